"""Where each model lies on this computer: in the models' folder, or where the user wanted it."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

from superbloom.domain.errors import InputRejected
from superbloom.storage.atomic_file import write_file
from superbloom.storage.fetching import make_folder
from superbloom.storage.model_files import FolderState, ModelFolder, check_id, is_id

logger = logging.getLogger(__name__)

_PLACES = "places.json"
_WORK = ".work"


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
        """Keep the model under `parent` from now on. Raises InputRejected if it lies elsewhere."""
        wanted = parent.expanduser().absolute() / check_id(model)
        present = self.folder(model)
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
        """A folder for unfinished work on a model, on the same disk as its final place."""
        return make_folder(self.folder(model).path.parent / _WORK / check_id(model))

    def clear_work(self, model: str) -> None:
        """Delete unfinished work."""
        shutil.rmtree(self.folder(model).path.parent / _WORK / check_id(model), ignore_errors=True)

    def _read(self) -> dict[str, str]:
        try:
            content = json.loads((self.root / _PLACES).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be read: %s", self.root / _PLACES, error)
            return {}
        return {str(key): str(value) for key, value in content.items()}

    def _write(self, places: dict[str, str]) -> None:
        make_folder(self.root)
        write_file(self.root / _PLACES, json.dumps(places, indent=1).encode())
