"""What a model folder says that it holds: its manifest, and how the files compare to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from superbloom.domain.catalogue import source_words
from superbloom.domain.errors import ModelDamaged
from superbloom.domain.model_card import HubSource, ModelSource
from superbloom.domain.record import NotARecord, from_plain, to_plain
from superbloom.storage.atomic_file import write_file
from superbloom.storage.fetching import plain_name

MANIFEST = "superbloom.json"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A whole file: its size and its hash."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a model folder holds. Only files listed here count as whole.

    `revision` is the hub's commit; `complete` is True if every block is here; `damaged` are the
    files that a check has found wrong.
    """

    model: str
    source: str
    revision: str = ""
    complete: bool = False
    files: Mapping[str, StoredFile]
    damaged: tuple[str, ...] = ()


def source_name(source: ModelSource) -> str:
    """A source as a manifest names it."""
    return f"hub:{source.repository}" if isinstance(source, HubSource) else source_words(source)


def read_manifest(folder: Path) -> Manifest | None:
    """The folder's manifest, None if it has none. Raises ModelDamaged if it cannot be read."""
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelDamaged(f"{folder / MANIFEST} cannot be read: {error}.") from error
    try:
        manifest = from_plain(Manifest, json.loads(text))
        for name in manifest.files:
            plain_name(name)
    except (NotARecord, ValueError) as error:
        raise ModelDamaged(f"{folder / MANIFEST} is damaged: {error}.") from error
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Raises DiskFull, StorageFailed."""
    content = json.dumps(to_plain(manifest), indent=1, ensure_ascii=False) + "\n"
    write_file(folder / MANIFEST, content.encode())


def damaged_files(folder: Path) -> tuple[str, ...]:
    """The files that are damaged, by their sizes and the last check. Raises ModelDamaged."""
    manifest = read_manifest(folder)
    if manifest is None:
        return ()
    wrong = (name for name, file in manifest.files.items() if _size(folder / name) != file.bytes)
    return tuple(dict.fromkeys((*wrong, *manifest.damaged)))


def whole_files(folder: Path) -> frozenset[str]:
    """The files that are whole as far as is known; without a manifest all that lie here.

    Raises ModelDamaged.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return frozenset(item.name for item in folder.iterdir()) if folder.is_dir() else frozenset()
    return frozenset(manifest.files) - frozenset(damaged_files(folder))


def _size(path: Path) -> int | None:
    """A file's size in bytes, None if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return None
