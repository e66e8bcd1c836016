"""A model's folder on this computer: what is in it, and whether it is whole."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from superbloom.domain.errors import InputRejected, ModelDamaged, ModelNotHere
from superbloom.domain.record import NotARecord, from_plain, to_plain
from superbloom.storage.atomic_file import storage_error, write_file
from superbloom.storage.fetching import FetchWatch, make_folder, plain_name, sha256_of

logger = logging.getLogger(__name__)

MANIFEST = "superbloom.json"
CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"

_PARTIAL = ".part"
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SMALL = frozenset(
    {
        CONFIG_FILE,
        INDEX_FILE,
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "generation_config.json",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
    }
)


class FolderState(StrEnum):
    """How much of a model a folder holds, as its manifest and the files' sizes tell."""

    ABSENT = "absent"
    PARTIAL = "partial"
    READY = "ready"
    DAMAGED = "damaged"


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


def is_small_file(name: str) -> bool:
    """True for a model's configuration, tokenizer and index."""
    return name in _SMALL


def is_id(model: str) -> bool:
    """True if `model` may name a model (and a folder)."""
    return _ID.fullmatch(model) is not None and ".." not in model


def check_id(model: str) -> str:
    """`model` if it may name a model (and a folder). Raises InputRejected."""
    if not is_id(model):
        raise InputRejected(
            f"{model[:80]!r} cannot name a model.",
            "Use small letters, digits, dots, dashes and underscores, 64 at most.",
        )
    return model


class ModelFolder:
    """One model's folder. Nothing here is kept in memory: the manifest on disk is the truth."""

    def __init__(self, model: str, path: Path) -> None:
        self.model = check_id(model)
        self.path = path

    def manifest(self) -> Manifest | None:
        """What is here, or None if nothing is. Raises ModelDamaged if it cannot be read."""
        try:
            text = (self.path / MANIFEST).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ModelDamaged(f"{self.path / MANIFEST} cannot be read: {error}.") from error
        try:
            manifest = from_plain(Manifest, json.loads(text))
            for name in manifest.files:
                plain_name(name)
        except (NotARecord, ValueError) as error:
            raise ModelDamaged(f"{self.path / MANIFEST} is damaged: {error}.") from error
        return manifest

    def require_manifest(self) -> Manifest:
        """What is here. Raises ModelNotHere, ModelDamaged."""
        manifest = self.manifest()
        if manifest is None:
            raise ModelNotHere(f"The files of {self.model} are not on this computer.")
        return manifest

    def state(self) -> FolderState:
        """By the manifest and the files' sizes; hashes are left to `verify`."""
        try:
            manifest = self.manifest()
        except ModelDamaged:
            return FolderState.DAMAGED
        if manifest is None:
            partial = self.path.is_dir() and any(self.path.glob(f"*{_PARTIAL}"))
            return FolderState.PARTIAL if partial else FolderState.ABSENT
        if self._wrong_size(manifest) or manifest.damaged:
            return FolderState.DAMAGED
        return FolderState.READY if manifest.complete else FolderState.PARTIAL

    def _wrong_size(self, manifest: Manifest) -> tuple[str, ...]:
        return tuple(
            name for name, file in manifest.files.items() if _size(self.path / name) != file.bytes
        )

    def holds(self, names: set[str]) -> bool:
        """True if all these files are here, whole as far as sizes tell."""
        manifest = self.manifest()
        if manifest is None:
            return False
        wrong = {*self._wrong_size(manifest), *manifest.damaged}
        return names <= manifest.files.keys() - wrong

    def begin(self, source: str, revision: str) -> None:
        """Start a manifest, or go on with one of the same source and revision."""
        manifest = self.manifest()
        if manifest and (manifest.source, manifest.revision) == (source, revision):
            self._write(replace(manifest, damaged=()))
            return
        if manifest:
            for name in manifest.files:
                (self.path / name).unlink(missing_ok=True)
        for left in self.path.glob(f"*{_PARTIAL}"):
            left.unlink(missing_ok=True)
        self._write(Manifest(model=self.model, source=source, revision=revision, files={}))

    def record(self, name: str, file: StoredFile) -> None:
        """A file is whole."""
        manifest = self.require_manifest()
        self._write(replace(manifest, files={**manifest.files, name: file}))

    def finish(self, *, complete: bool) -> None:
        """Everything wanted is here; `complete` if that is every block."""
        self._write(replace(self.require_manifest(), complete=complete, damaged=()))

    def drop_damaged(self) -> None:
        """Delete files that are damaged, so that they are fetched anew."""
        try:
            manifest = self.manifest()
        except ModelDamaged:
            logger.warning("the manifest of %s is damaged; its files are fetched anew", self.model)
            self.remove()
            return
        if manifest is None:
            return
        wrong = {*self._wrong_size(manifest), *manifest.damaged}
        if not wrong:
            return
        for name in wrong:
            (self.path / name).unlink(missing_ok=True)
        kept = {name: file for name, file in manifest.files.items() if name not in wrong}
        self._write(replace(manifest, files=kept, complete=False, damaged=()))

    def verify(self, watch: FetchWatch) -> tuple[str, ...]:
        """Hash every file and note those that are wrong; gives their names.

        Raises ModelNotHere, ModelDamaged, FetchCancelled.
        """
        manifest = self.require_manifest()
        total = sum(file.bytes for file in manifest.files.values())
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            watch.tell(done, total, "Checking every file")

        wrong = []
        for name, file in manifest.files.items():
            try:
                found = sha256_of(self.path / name, watch, advance)
            except OSError as error:
                logger.warning("%s: %s", name, error)
                found = ""
            if found != file.sha256:
                wrong.append(name)
        self._write(replace(manifest, damaged=tuple(wrong)))
        return tuple(wrong)

    def seal(self, source: str, watch: FetchWatch) -> None:
        """Hash everything that lies here and call it complete. Raises FetchCancelled."""
        names = [item.name for item in sorted(self.path.iterdir()) if item.is_file()]
        names = [name for name in names if name != MANIFEST]
        total = sum((self.path / name).stat().st_size for name in names)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            watch.tell(done, total, "Noting checksums")

        files = {
            name: StoredFile(
                (self.path / name).stat().st_size, sha256_of(self.path / name, watch, advance)
            )
            for name in names
        }
        for name in names:
            _sync(self.path / name)
        self._write(Manifest(model=self.model, source=source, complete=True, files=files))

    def replace_with(self, finished: Path) -> None:
        """Put a finished folder in this one's place. Raises DiskFull, StorageFailed."""
        self.remove()
        make_folder(self.path.parent)
        try:
            finished.replace(self.path)
            _sync(self.path.parent)
        except OSError as error:
            raise storage_error(self.path, error) from error

    def disk_bytes(self) -> int:
        """What the folder takes on the disk, partial files included."""
        if not self.path.is_dir():
            return 0
        return sum(_size(item) or 0 for item in self.path.iterdir())

    def partial_bytes(self, name: str) -> int:
        """How much of a file has arrived so far."""
        return _size(self.path / (name + _PARTIAL)) or 0

    def remove(self) -> None:
        """Delete the folder; no error if it is not there. Raises StorageFailed."""
        if not self.path.exists():
            return
        # The manifest goes first: what is left if we die in between counts as nothing.
        (self.path / MANIFEST).unlink(missing_ok=True)
        try:
            shutil.rmtree(self.path)
        except OSError as error:
            raise storage_error(self.path, error) from error

    def _write(self, manifest: Manifest) -> None:
        content = json.dumps(to_plain(manifest), indent=1, ensure_ascii=False) + "\n"
        write_file(self.path / MANIFEST, content.encode())


def read_weight_map(folder: Path) -> dict[str, str]:
    """The index's map from tensor to file, its names checked. Raises ModelDamaged."""
    try:
        index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
        weight_map = index["weight_map"]
        return {str(tensor): plain_name(file) for tensor, file in weight_map.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelDamaged(f"{INDEX_FILE} is not a map of tensors to files.") from error


def _size(path: Path) -> int | None:
    """A file's size in bytes, None if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _sync(path: Path) -> None:
    """Have the system write a file or folder to the disk, where it can."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return  # Windows opens no folders
    try:
        os.fsync(descriptor)
    except OSError as error:
        logger.debug("fsync of %s: %s", path, error)
    finally:
        os.close(descriptor)
