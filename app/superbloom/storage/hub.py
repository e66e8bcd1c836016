"""A model from the Hugging Face hub: its small files, then only the shards that are wanted."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from superbloom.domain.errors import DownloadFailed, ModelUnsupported
from superbloom.domain.model_card import HubSource
from superbloom.storage.download import Patience, RemoteFile, download, unreachable
from superbloom.storage.fetching import FetchWatch, in_words, make_folder, plain_name, require_room
from superbloom.storage.manifest import StoredFile, source_name
from superbloom.storage.model_files import (
    CONFIG_FILE,
    INDEX_FILE,
    SINGLE_FILE,
    ModelFolder,
    is_small_file,
    read_weight_map,
)

logger = logging.getLogger(__name__)

Select = Callable[[Mapping[str, str]], Collection[str]]
"""Which shard files are wanted, given the index's map from tensor to file."""

_ANSWER_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class _Listing:
    """The files of a repository at one commit."""

    repository: str
    revision: str
    files: Mapping[str, RemoteFile]


@dataclass(frozen=True, slots=True)
class _Fetch:
    """One fetch: from where, to where, watched by whom."""

    listing: _Listing
    folder: ModelFolder
    watch: FetchWatch
    patience: Patience | None


def fetch_from_hub(
    source: HubSource,
    folder: ModelFolder,
    select: Select,
    watch: FetchWatch,
    patience: Patience | None = None,
) -> None:
    """Bring the small files and the wanted shards into `folder`, recording each once it is whole.

    A later call goes on where this one ended, at the same commit. Raises DownloadFailed, DiskFull,
    ModelUnsupported, ModelDamaged, FetchCancelled.
    """
    watch.tell(0, 0, "Looking at the hub")
    folder.drop_damaged()
    known = folder.manifest()
    same = known is not None and known.source == source_name(source) and known.revision
    listing = _list(source, known.revision if known and same else source.revision)
    make_folder(folder.path)
    folder.begin(source_name(source), listing.revision)
    small = [name for name in listing.files if is_small_file(name)]
    if CONFIG_FILE not in small:
        raise ModelUnsupported(f"{source.repository} holds no model: it has no {CONFIG_FILE}.")
    fetch = _Fetch(listing, folder, watch, patience)
    _fetch_all(fetch, small, "Fetching the description")
    shards, all_shards = _wanted_shards(listing, folder, select)
    _fetch_all(fetch, shards, "Fetching the weights")
    held = folder.require_manifest().files
    folder.finish(complete=all(shard in held for shard in all_shards))


def _list(source: HubSource, revision: str) -> _Listing:
    """Every file of the repository at `revision`, with sizes and hashes."""
    endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    try:
        info = HfApi(endpoint=endpoint).model_info(
            source.repository, revision=revision, files_metadata=True, timeout=_ANSWER_SECONDS
        )
    except GatedRepoError as error:
        raise DownloadFailed(
            f"The maker of {source.repository} asks for an account and agreement on the hub.",
            "Agree on the model's page, then set HF_TOKEN to a token of yours and fetch again.",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise DownloadFailed(
            f"The hub has no model {source.repository} at {revision}.", "Choose another model."
        ) from error
    except (OfflineModeIsEnabled, HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise unreachable("The hub", error) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        # Something else answers in the hub's place, as the sign-in page of a hotel's network does.
        raise unreachable("The hub", error) from error
    headers = build_hf_headers()
    commit = info.sha or revision
    files = {}
    for sibling in info.siblings or ():
        name = sibling.rfilename
        if "/" in name:
            continue  # other forms of the same model lie in subfolders
        files[name] = RemoteFile(
            url=hf_hub_url(source.repository, name, revision=commit, endpoint=endpoint),
            size=sibling.size,
            sha256=sibling.lfs.sha256 if sibling.lfs else "",
            git_hash="" if sibling.lfs else sibling.blob_id or "",
            headers=headers,
        )
    return _Listing(source.repository, commit, files)


def _wanted_shards(
    listing: _Listing, folder: ModelFolder, select: Select
) -> tuple[list[str], list[str]]:
    """The shards to fetch, and all that the model has."""
    if INDEX_FILE in listing.files:
        weight_map = read_weight_map(folder.path)
        everything = sorted(set(weight_map.values()))
        wanted = sorted(select(weight_map))
        missing = [name for name in wanted if name not in listing.files]
        if missing:
            raise DownloadFailed(
                f"{listing.repository} lacks {missing[0]}, which its index names.",
                "Choose another model.",
            )
        return wanted, everything
    if SINGLE_FILE in listing.files:
        return [SINGLE_FILE], [SINGLE_FILE]
    if any(name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl")) for name in listing.files):
        raise ModelUnsupported(
            f"{listing.repository} has its weights only as pickles, which can run any program "
            "when they are read, so they are never used.",
            "Choose a model that comes as safetensors or GGUF.",
        )
    raise ModelUnsupported(f"{listing.repository} has no weights as safetensors.")


def _fetch_all(fetch: _Fetch, names: list[str], words: str) -> None:
    """Fetch those of `names` that are not here, each recorded as soon as it is whole."""
    listing, folder = fetch.listing, fetch.folder
    held = folder.require_manifest().files
    missing = [plain_name(name) for name in names if name not in held]
    sizes = {name: listing.files[name].size or 0 for name in names}
    partly = sum(folder.partial_bytes(name) for name in missing)
    require_room(folder.path, sum(sizes[name] for name in missing) - partly)
    total = sum(sizes.values())
    done = sum(sizes[name] for name in names if name in held)

    def advance(count: int) -> None:
        nonlocal done
        done += count
        fetch.watch.tell(done, total, words)

    for name in missing:
        logger.info("fetching %s (%s)", name, in_words(sizes[name]))
        target = folder.path / name
        digest = download(listing.files[name], target, fetch.watch, advance, fetch.patience)
        folder.record(name, StoredFile(target.stat().st_size, digest))
