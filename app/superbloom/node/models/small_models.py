"""Small models of this computer that guess ahead: loaded when a ring is slow, dropped when idle."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from superbloom.control.messages import ModelInfo
from superbloom.domain.draft_pace import DraftPace
from superbloom.machine.memory import free_bytes, give_back_freed_pages
from superbloom.machine.processor import usable_cores
from superbloom.node.daemon_thread import in_daemon_thread

if TYPE_CHECKING:
    from superbloom.node.models.draft_choice import ChosenDraft
    from superbloom.pipeline.guessing import Guesser

logger = logging.getLogger(__name__)

IDLE_SECONDS = 600.0
"""A small model that nobody asked for so long is dropped."""

RETRY_SECONDS = 120.0
"""Where there was none, one may have come after so long."""

FAILURE_SECONDS = 3600.0
"""One that failed at its work is not trusted again sooner."""


class SmallModels:
    """One small model at a time is loaded; every model that answers has a source of guesses."""

    def __init__(
        self,
        models: Callable[[], Awaitable[Iterable[ModelInfo]]],
        *,
        wanted: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`models` gives all models of this computer; `wanted` is what the user has chosen."""
        self._models = models
        self._wanted = wanted
        self._clock = clock
        self._sources: dict[str, SmallModelSource] = {}
        self._loaded: _Loaded | None = None
        self._loading: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._closed = False

    def source(self, model: str, vocabulary: int) -> SmallModelSource:
        """Guesses for the answers of `model`, whose token ids are below `vocabulary`."""
        found = self._sources.get(model)
        if found is None:
            found = self._sources[model] = SmallModelSource(self, model, vocabulary)
        return found

    def forget(self, model: str) -> None:
        """The files of `model` have changed or are gone."""
        self._sources.pop(model, None)
        if self._loaded is not None and model in (self._loaded.id, self._loaded.answering):
            self._drop()

    def settle(self) -> None:
        """The user has chosen anew."""
        if not self._wanted():
            self._drop()

    async def close(self) -> None:
        """Free what is loaded."""
        self._closed = True
        self._drop()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)

    # --- for sources --------------------------------------------------------------------------

    def guesser(self, source: SmallModelSource) -> Guesser | None:
        """The one that is loaded for the source's model; else None, and it may be loaded."""
        if not self._wanted():
            return None
        if self._loaded is not None and self._loaded.answering == source.model:
            self._loaded.used_at = self._clock()
            return self._loaded.guesser
        free = self._loading is None or self._loading.done()
        current = self._sources.get(source.model) is source
        if free and current and not self._closed and self._clock() >= source.retry_at:
            self._loading = asyncio.create_task(self._load(source), name="load a small model")
        return None

    def failed(self, source: SmallModelSource, guesser: Guesser) -> None:
        """It is of no use any more."""
        source.retry_at = self._clock() + FAILURE_SECONDS
        if self._loaded is not None and self._loaded.guesser is guesser:
            self._drop()

    async def _load(self, source: SmallModelSource) -> None:
        source.retry_at = self._clock() + RETRY_SECONDS
        try:
            models = await self._models()
            chosen = await in_daemon_thread(
                lambda: _load_draft(source.model, models), name="small model"
            )
        except Exception:  # a boundary: answers go on without guesses
            logger.exception("no small model could be loaded to guess ahead")
            return
        if chosen is None or self._sources.get(source.model) is not source or not self._wanted():
            return
        self._drop()
        self._loaded = _loaded(chosen, source, self._clock())
        self._watch()

    def _watch(self) -> None:
        """Look again when it may have been idle for long."""
        if self._loaded is None:
            return
        left = self._loaded.used_at + IDLE_SECONDS - self._clock()
        if left <= 0:
            self._drop()
        else:
            self._idle = asyncio.get_running_loop().call_later(left, self._watch)

    def _drop(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._loaded is not None:
            logger.info("%s guesses ahead no more", self._loaded.id)
            self._loaded.guesser.close()
            self._loaded = None
            give_back_freed_pages()


class SmallModelSource:
    """`pipeline.guessing.GuessSource` for the answers of one model."""

    def __init__(self, owner: SmallModels, model: str, vocabulary: int) -> None:
        self.model = model
        self.vocabulary = vocabulary
        self.pace = DraftPace()
        self.retry_at = 0.0
        """No small model is looked for before."""
        self._owner = owner

    def guesser(self) -> Guesser | None:
        """As GuessSource."""
        return self._owner.guesser(self)

    def failed(self, guesser: Guesser) -> None:
        """As GuessSource."""
        self._owner.failed(self, guesser)


class _Loaded:
    """A small model at work for the model `answering`."""

    def __init__(self, id: str, answering: str, guesser: Guesser, now: float) -> None:
        self.id = id
        self.answering = answering
        self.guesser = guesser
        self.used_at = now


def _load_draft(answering: str, models: Iterable[ModelInfo]) -> ChosenDraft | None:
    from superbloom.inference.device import use_threads  # noqa: PLC0415 (imports torch)
    from superbloom.node.models.draft_choice import load_draft_for  # noqa: PLC0415

    use_threads(1)  # answers are being written meanwhile
    return load_draft_for(answering, models, free_bytes)


def _loaded(chosen: ChosenDraft, source: SmallModelSource, now: float) -> _Loaded:
    from superbloom.pipeline.guessing import Guesser  # noqa: PLC0415 (imports torch)

    guesser = Guesser(
        lambda: chosen.model.text(source.vocabulary), chosen.model.threads(usable_cores())
    )
    return _Loaded(chosen.id, source.model, guesser, now)
