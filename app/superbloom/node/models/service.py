"""The models of this computer: which there are, fetching, importing, checking and removing them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from superbloom.control.messages import Event, ModelInfo, ModelsChanged, ModelState
from superbloom.domain.catalogue import Catalogue, read_catalogue, source_words, unknown_model
from superbloom.domain.errors import InputRejected, ModelDamaged, SuperbloomError
from superbloom.domain.model_card import ModelCard, ModelShape
from superbloom.domain.span import Span
from superbloom.node.daemon_thread import in_daemon_thread
from superbloom.node.models.jobs import ModelJobs
from superbloom.node.models.shapes import ModelShapes
from superbloom.node.models.tools import InferenceTools, ModelTools
from superbloom.node.models.work import ModelWork, source_at
from superbloom.storage.fetching import FetchWatch
from superbloom.storage.model_files import CONFIG_FILE, FolderState, ModelFolder
from superbloom.storage.model_places import ModelPlaces
from superbloom.storage.paths import DataFolder, resource

if TYPE_CHECKING:
    from superbloom.storage.download import Patience

CLOSE_SECONDS = 1.0
"""How long closing waits for the sizes that are being computed."""

_ENSURE_ROUNDS = 4
"""Work of others to wait for and a fetch of one's own, before it is called hopeless."""


class ModelService:
    """The node's side of every request about models. One piece of work per model at a time.

    `notify` hears ModelProgress and ModelsChanged; `chosen` gives the model that chats use.
    """

    def __init__(
        self,
        data: DataFolder,
        notify: Callable[[Event], None],
        *,
        chosen: Callable[[], str],
        models_folder: Path | None = None,
        catalogue: Catalogue | None = None,
        tools: ModelTools | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._notify = notify
        self._chosen = chosen
        self._catalogue = catalogue or shipped_catalogue()
        self._tools = tools or InferenceTools()
        self._places = ModelPlaces(models_folder or data.models)
        self._shapes = ModelShapes(
            data.cache / "shapes.json",
            self._tools.shape_of,
            shipped=resource("catalogue", "shapes.json"),
        )
        self._shapes.load()
        self._places.set_orphans_aside([card.id for card in self._catalogue])
        self._work = ModelWork(self._places, self._tools, patience)
        self._jobs = ModelJobs(notify, self._changed)
        self._background: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Delete what work that was cut off has left and compute sizes, in the background."""
        self._background = asyncio.create_task(self._catch_up(), name="models' beginning")

    async def close(self) -> None:
        """Cancel all work and wait for it, a little."""
        if self._background is not None:
            self._background.cancel()
        await self._jobs.close()
        if self._background is not None:
            await asyncio.wait([self._background], timeout=CLOSE_SECONDS)

    async def list(self) -> tuple[ModelInfo, ...]:
        """Every model of the catalogue and every other that is on this computer."""
        return await asyncio.to_thread(self._list)

    async def info(self, model: str) -> ModelInfo:
        """Raises UnknownModel."""
        self._require_known(model)
        with contextlib.suppress(SuperbloomError):
            await self._shapes.compute([self._config(model)])
        return await asyncio.to_thread(self._info, model)

    async def stored(self, model: str) -> ModelState:
        """Where its files stand; quick, as sizes are not looked at. Raises UnknownModel."""
        self._require_known(model)
        if self._jobs.runs(model):
            return ModelState.FETCHING
        state = await asyncio.to_thread(self._places.folder(model).state)
        return ModelState(state.value)

    def card(self, model: str) -> ModelCard | None:
        """The catalogue's entry, if it has one."""
        return self._catalogue.find(model)

    async def shape(self, model: str) -> ModelShape:
        """The model's sizes. Raises UnknownModel, ModelUnsupported, ModelDamaged."""
        self._require_known(model)
        return await self._shapes.get(self._config(model))

    def folder(self, model: str) -> Path:
        """Where the model lies or would lie. Raises UnknownModel."""
        self._require_known(model)
        return self._places.folder(model).path

    async def fetch(self, model: str, folder: str = "", span: Span | None = None) -> ModelInfo:
        """Begin to fetch all blocks, or those of `span` and the client's ends.

        Returns at once; ModelProgress tells the rest. Work on its files that is under way goes on
        instead. Raises UnknownModel, InputRejected.
        """
        self._require_known(model)
        if self._jobs.runs(model) and not folder:
            return self._info(model)
        self._require_idle(model)
        place = self._places.folder(model)
        if folder:
            place = self._places.choose(model, Path(folder))
        self._begin_fetch(place, span, whole=span is None)
        return self._info(model)

    async def ensure(self, model: str, span: Span | None = None) -> Path:
        """The model's folder once the client's ends, and the blocks of `span`, are in it.

        Fetches what is missing, or waits for a fetch under way. Cancelling the waiting leaves the
        fetch going on. Raises UnknownModel and whatever fetching raises.
        """
        self._require_known(model)
        place = self._places.folder(model)
        for _ in range(_ENSURE_ROUNDS):
            task = self._jobs.running(model)
            if task is None:
                if await asyncio.to_thread(self._work.holds, place, span):
                    return place.path
                task = self._jobs.running(model) or self._begin_fetch(place, span, whole=False)
            await asyncio.shield(task)
        raise ModelDamaged(f"The files of {model} stay incomplete.")

    async def cancel(self, model: str) -> None:
        """End the work on a model, if any; what is here stays."""
        self._require_known(model)
        await self._jobs.cancel(model)

    async def import_path(self, path: str, model: str = "") -> ModelInfo:
        """Begin to import a GGUF file or a folder of this computer; returns at once.

        Raises InputRejected, ModelError.
        """
        source = await asyncio.to_thread(source_at, path)
        model = model or _id_from(Path(source.path))
        self._require_idle(model)
        place = self._places.folder(model)
        if place.state() is FolderState.READY:
            raise InputRejected(
                f"There is a model {model} already.", "Remove it first, or import under another id."
            )
        self._jobs.begin(
            model, lambda watch: self._work.import_from(source, place, watch), "Importing the model"
        )
        return self._info(model)

    async def verify(self, model: str) -> ModelInfo:
        """Check every file's hash. Raises UnknownModel, ModelNotHere, ModelDamaged."""
        self._require_known(model)
        self._require_idle(model)
        place = self._places.folder(model)
        place.require_manifest()

        def check(watch: FetchWatch) -> None:
            wrong = place.verify(watch)
            if wrong:
                raise ModelDamaged(
                    f"{len(wrong)} of the files of {model} are damaged: {', '.join(wrong[:3])}.",
                    f"Mend it with `superbloom model fetch {model}`.",
                )

        await asyncio.shield(self._jobs.begin(model, check, "Checking every file"))
        return await asyncio.to_thread(self._info, model)

    async def remove(self, model: str) -> None:
        """Delete a model's files, cancelling work on them first. Raises UnknownModel."""
        await self.cancel(model)
        place = self._places.folder(model)
        await asyncio.to_thread(place.remove)
        await asyncio.to_thread(self._places.clear_work, model)
        self._places.forget(model)
        await self._changed()

    def _begin_fetch(
        self, place: ModelFolder, span: Span | None, *, whole: bool
    ) -> asyncio.Task[None]:
        card = self._catalogue.find(place.model)
        if card is None:
            raise InputRejected(
                f"{place.model} was imported, so there is nowhere to fetch it from.",
                "Remove it and import it again.",
            )
        sources = card.sources
        return self._jobs.begin(
            place.model,
            lambda watch: self._work.fetch(place, sources, span, whole, watch),
            "Fetching the model",
        )

    # --- what is there ------------------------------------------------------------------------

    async def _catch_up(self) -> None:
        await in_daemon_thread(self._places.empty_bins, name="empty the bins")
        configs = [card.config for card in self._catalogue]
        for model in await asyncio.to_thread(self._places.models):
            with contextlib.suppress(SuperbloomError):
                configs.append(self._config(model))
        if await self._shapes.compute(configs):
            await self._changed()

    async def _changed(self) -> None:
        models = await self.list()
        self._notify(ModelsChanged(models=models, model=self._chosen()))

    def _known_ids(self) -> tuple[str, ...]:
        ids = [card.id for card in self._catalogue]
        here = dict.fromkeys((*self._places.models(), *self._jobs.models))
        return (*ids, *(model for model in here if model not in ids))

    def _require_known(self, model: str) -> None:
        if self._catalogue.find(model) is None and model not in self._known_ids():
            raise unknown_model(model, self._known_ids())

    def _require_idle(self, model: str) -> None:
        if self._jobs.runs(model):
            raise InputRejected(
                f"The files of {model} are being worked on.", "Wait until that is done."
            )

    def _list(self) -> tuple[ModelInfo, ...]:
        return tuple(self._info(model) for model in self._known_ids())

    def _info(self, model: str) -> ModelInfo:
        place = self._places.folder(model)
        card = self._catalogue.find(model)
        shape: ModelShape | None = None
        with contextlib.suppress(SuperbloomError):
            shape = self._shapes.known(self._config(model))
        state = ModelState(place.state().value)
        return ModelInfo(
            id=model,
            name=card.name if card else model,
            licence=card.licence if card else "",
            family=shape.family if shape else "",
            state=ModelState.FETCHING if self._jobs.runs(model) else state,
            blocks=shape.blocks if shape else 0,
            hidden_size=shape.hidden_size if shape else 0,
            parameters=shape.parameters if shape else 0,
            context_tokens=shape.context_tokens if shape else 0,
            block_bytes=dict(shape.block_bytes) if shape else {},
            client_bytes=shape.client_bytes if shape else 0,
            disk_bytes=place.disk_bytes() + self._places.work_bytes(model),
            folder=str(place.path) if state is not ModelState.ABSENT else "",
            source=source_words(card.sources[0]) if card else _source_of(place),
            note=card.note if card else "",
            chat=card.chat if card else True,
            cache_bytes_per_token=shape.cache_bytes_per_token if shape else 0,
        )

    def _config(self, model: str) -> Mapping[str, object]:
        """The catalogue's configuration, or an imported model's own. Raises ModelDamaged."""
        card = self._catalogue.find(model)
        if card is not None:
            return card.config
        path = self._places.folder(model).path / CONFIG_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelDamaged(f"{path} cannot be read: {error}.") from error
        if not isinstance(content, dict):
            raise ModelDamaged(f"{path} is no configuration.")
        return content


def shipped_catalogue() -> Catalogue:
    """The catalogue that comes with the program."""
    return read_catalogue(resource("catalogue", "models.json").read_text(encoding="utf-8"))


def _id_from(path: Path) -> str:
    """An id from a file's or folder's name."""
    name = path.stem if path.suffix.lower() == ".gguf" else path.name
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")[:64] or "imported"


def _source_of(place: ModelFolder) -> str:
    try:
        manifest = place.manifest()
    except ModelDamaged:
        return ""
    return manifest.source if manifest else ""
