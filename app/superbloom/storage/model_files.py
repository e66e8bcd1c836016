"""A model's folder on this computer: what is in it, and whether it is whole."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from superbloom.domain.errors import InputRejected, ModelDamaged, ModelNotHere
from superbloom.storage.atomic_file import storage_error
from superbloom.storage.fetching import PARTIAL, FetchWatch, make_folder, plain_name, sha256_of
from superbloom.storage.manifest import (
    MANIFEST,
    Manifest,
    StoredFile,
    damaged_files,
    read_manifest,
    whole_files,
    write_manifest,
)

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"

_WEIGHTS = ".safetensors"
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


# What file managers leave in every folder they show; nobody misses it.
_LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


class FolderState(StrEnum):
    """How much of a model a folder holds, as its manifest and the files' sizes tell."""

    ABSENT = "absent"
    PARTIAL = "partial"
    READY = "ready"
    DAMAGED = "damaged"


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
        return read_manifest(self.path)

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
            partial = self.path.is_dir() and any(self.path.glob(f"*{PARTIAL}"))
            return FolderState.PARTIAL if partial else FolderState.ABSENT
        if damaged_files(self.path):
            return FolderState.DAMAGED
        return FolderState.READY if manifest.complete else FolderState.PARTIAL

    def holds(self, names: set[str]) -> bool:
        """True if all these files are here, whole as far as sizes tell."""
        return self.manifest() is not None and names <= whole_files(self.path)

    def require_ours(self) -> None:
        """Raises InputRejected if there are files here that this program has not brought."""
        if (self.path / MANIFEST).exists():
            return
        foreign = [item.name for item in _entries(self.path) if not _is_left_over(item.name)]
        if foreign or self.path.is_file():
            raise InputRejected(
                f"{self.path} holds something else already: {(*foreign, self.path.name)[0]}.",
                "Move it away or choose another folder. If it is a model, take it in with "
                "`superbloom model import`.",
            )

    def begin(self, source: str, revision: str) -> None:
        """Start a manifest, or go on with one of the same source and revision.

        Files of another source are deleted: where they are still good for something, the caller
        fetches into a folder of its own.
        """
        manifest = self.manifest()
        if manifest and (manifest.source, manifest.revision) == (source, revision):
            self._write(replace(manifest, damaged=()))
            return
        if manifest:
            for name in manifest.files:
                (self.path / name).unlink(missing_ok=True)
        for left in _entries(self.path):
            if _is_left_over(left.name):
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
        wrong = damaged_files(self.path)
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
        """Put a finished folder in this one's place; files that are not ours stay.

        Raises DiskFull, StorageFailed.
        """
        self.remove()
        make_folder(self.path.parent)
        try:
            if self.path.exists():
                # The manifest first: until the last file is here, the model counts as damaged.
                for item in (finished / MANIFEST, *_entries(finished)):
                    if item.exists():
                        item.replace(self.path / item.name)
                finished.rmdir()
            else:
                finished.replace(self.path)
            _sync(self.path.parent)
        except OSError as error:
            raise storage_error(self.path, error) from error

    def disk_bytes(self) -> int:
        """What the folder takes on the disk, partial files included."""
        return sum(_bytes(item) for item in _entries(self.path))

    def partial_bytes(self, name: str) -> int:
        """How much of a file has arrived so far."""
        return _bytes(self.path / (name + PARTIAL))

    def remove(self) -> None:
        """Delete the model's files, and the folder if that leaves it empty. Raises StorageFailed.

        What else lies in it is the user's and stays. No error if nothing is there.
        """
        try:
            # The manifest goes last: if we die in between, the rest still counts as the model's.
            for item in (*self._ours(), self.path / MANIFEST):
                item.unlink(missing_ok=True)
            if self.path.is_dir() and not _entries(self.path):
                self.path.rmdir()
        except OSError as error:
            raise storage_error(self.path, error) from error

    def _ours(self) -> list[Path]:
        """The model's files without the manifest; by their names if that cannot be read."""
        try:
            manifest = self.manifest()
            named = frozenset(manifest.files if manifest else ())
        except ModelDamaged:
            named = frozenset(i.name for i in _entries(self.path) if _may_be_a_models(i.name))
        return [i for i in _entries(self.path) if i.name in named or _is_left_over(i.name)]

    def _write(self, manifest: Manifest) -> None:
        write_manifest(self.path, manifest)


def read_weight_map(folder: Path) -> dict[str, str]:
    """The index's map from tensor to file, its names checked. Raises ModelDamaged."""
    try:
        index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
        weight_map = index["weight_map"]
        return {str(tensor): plain_name(file) for tensor, file in weight_map.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelDamaged(f"{INDEX_FILE} is not a map of tensors to files.") from error


def _may_be_a_models(name: str) -> bool:
    return is_small_file(name) or name.endswith(_WEIGHTS)


def _is_left_over(name: str) -> bool:
    """True for what an unfinished download or write of ours leaves, and for litter."""
    if name.endswith(PARTIAL):
        return _may_be_a_models(name.removesuffix(PARTIAL))
    return name in _LITTER or (name.startswith(f".{MANIFEST}.") and name.endswith(".new"))


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _bytes(path: Path) -> int:
    """A file's size, 0 if there is none."""
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


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
