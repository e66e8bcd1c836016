"""One file over HTTP: resumed where it broke off, tried again, checked, and whole or not there."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from superbloom.domain.errors import DownloadFailed, SuperbloomError
from superbloom.storage.atomic_file import storage_error
from superbloom.storage.fetching import PARTIAL, FetchWatch, git_hash_of, sha256_of

logger = logging.getLogger(__name__)

PAUSES: Sequence[float] = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each new attempt; a piece that arrives starts the count anew."""

CONNECT_SECONDS = 15.0
SILENT_SECONDS = 20.0
"""A server that sends nothing for this long counts as gone."""

MOST_WRONG = 2
"""A file that has arrived with the wrong content this often is not fetched again."""

_CHUNK = 256 * 1024
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file to fetch; `size` in bytes, hashes as far as the source gives them."""

    url: str
    size: int | None = None
    sha256: str = ""
    git_hash: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a download bears silence and how often it tries again; seconds."""

    connect: float = CONNECT_SECONDS
    silent: float = SILENT_SECONDS
    pauses: Sequence[float] = PAUSES


class _BrokenOff(Exception):
    """This attempt failed in a way that another may not."""


class _WrongContent(_BrokenOff):
    """What arrived is not the file, and has been deleted."""


def download(
    remote: RemoteFile,
    target: Path,
    watch: FetchWatch,
    advance: Callable[[int], None],
    patience: Patience | None = None,
) -> str:
    """Fetch into `target` and give its SHA-256; it exists only whole and checked.

    What arrived before a failure stays beside it for the next time. `advance(bytes)` hears of
    pieces as they arrive (negative where a piece turns out useless). Raises DownloadFailed,
    DiskFull, StorageFailed, FetchCancelled.
    """
    patience = patience or Patience()
    partial = target.with_name(target.name + PARTIAL)
    kept = partial.stat().st_size if partial.exists() else 0
    advance(kept)
    failures = wrong = 0
    while True:
        watch.check()
        before = partial.stat().st_size if partial.exists() else 0
        try:
            _receive(remote, partial, watch, advance, patience)
            return _accept(remote, partial, target, watch, advance)
        except _BrokenOff as error:
            came = (partial.stat().st_size if partial.exists() else 0) > before
            failures = 1 if came else failures + 1
            wrong += isinstance(error, _WrongContent)
            logger.warning("%s: %s (attempt %d)", target.name, error, failures)
            if failures > len(patience.pauses) or wrong >= MOST_WRONG:
                raise DownloadFailed(f"{target.name} could not be fetched: {error}.") from error
            watch.cancelled.wait(patience.pauses[failures - 1])
        except OSError as error:
            raise storage_error(partial, error) from error


def _receive(
    remote: RemoteFile,
    partial: Path,
    watch: FetchWatch,
    advance: Callable[[int], None],
    patience: Patience,
) -> None:
    """One attempt to bring `partial` to its size and no further. Raises _BrokenOff, OSError."""
    begin = partial.stat().st_size if partial.exists() else 0
    if remote.size is not None and begin >= remote.size:
        if begin == remote.size:
            return
        advance(-begin)
        partial.unlink()
        begin = 0
    headers = {**remote.headers, "Accept-Encoding": "identity"}
    if begin:
        headers["Range"] = f"bytes={begin}-"
    timeout = httpx2.Timeout(patience.silent, connect=patience.connect)
    try:
        with httpx2.stream(
            "GET", remote.url, headers=headers, timeout=timeout, follow_redirects=True
        ) as response:
            if response.status_code == 416:
                # Nothing follows what is here: the end is reached, or it is of another file.
                if remote.size is None:
                    return
                advance(-begin)
                partial.unlink()
                raise _BrokenOff("the server has another file now")
            _check_status(response)
            if begin and response.status_code != 206:
                advance(-begin)
                begin = 0
            with partial.open("ab" if begin else "wb") as file:
                here = begin
                for piece in response.iter_raw(_CHUNK):
                    watch.check()
                    here += len(piece)
                    if remote.size is not None and here > remote.size:
                        break
                    file.write(piece)
                    advance(len(piece))
                file.flush()
                os.fsync(file.fileno())
    except httpx2.TimeoutException as error:
        raise _BrokenOff("the server fell silent") from error
    except httpx2.HTTPError as error:
        raise _BrokenOff(f"the connection broke off ({type(error).__name__})") from error
    if remote.size is not None and here > remote.size:
        _discard(partial, advance)
        raise _WrongContent("more arrives than belongs to it")
    if remote.size is not None and here < remote.size:
        raise _BrokenOff("the transfer ended too early")


def _check_status(response: httpx2.Response) -> None:
    """Raises _BrokenOff where another attempt may help, DownloadFailed where none does."""
    status = response.status_code
    if status in (200, 206):
        return
    if status in _TRY_AGAIN:
        raise _BrokenOff(f"the server is busy ({status})")
    if status in (401, 403):
        raise DownloadFailed(
            "The source does not let this computer have the file.",
            "If the model asks for an account, agree on its page and set HF_TOKEN.",
        )
    raise DownloadFailed(f"The source has no such file (status {status}).")


def _accept(
    remote: RemoteFile,
    partial: Path,
    target: Path,
    watch: FetchWatch,
    advance: Callable[[int], None],
) -> str:
    """Check the hash and give the file its name. Raises _BrokenOff if the content is wrong."""
    found = sha256_of(partial, watch, lambda _: None)
    wrong = remote.sha256 and found != remote.sha256
    if not remote.sha256 and remote.git_hash:
        wrong = git_hash_of(partial) != remote.git_hash
    if wrong or (remote.size is not None and partial.stat().st_size != remote.size):
        _discard(partial, advance)
        raise _WrongContent("its content does not match its checksum")
    partial.replace(target)
    return found


def _discard(partial: Path, advance: Callable[[int], None]) -> None:
    advance(-partial.stat().st_size)
    partial.unlink()


def unreachable(what: str, error: Exception) -> SuperbloomError:
    """The error for a source that does not answer."""
    logger.warning("%s: %s: %s", what, type(error).__name__, error)
    return DownloadFailed(
        f"{what} cannot be reached.",
        "Check this computer's connection and try again: what is here is kept.",
    )
