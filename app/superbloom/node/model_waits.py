"""Waiting for a model's files, with words for whoever waits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from superbloom.control.messages import Event, ModelProgress, ModelState
from superbloom.domain.budget import in_words
from superbloom.domain.errors import ModelNotHere
from superbloom.domain.sharing import ShareRequest
from superbloom.node.models import ModelService

Tell = Callable[[str], None]


class ModelWaits:
    """Passes the progress of models' files on to those who wait for them."""

    def __init__(self, models: ModelService) -> None:
        self._models = models
        self._waiting: list[tuple[str, Tell]] = []

    def hear(self, event: Event) -> None:
        """An event of the node, perhaps the progress of a fetch."""
        if isinstance(event, ModelProgress) and not event.finished:
            for model, tell in tuple(self._waiting):
                if model == event.model:
                    tell(_in_words(event))

    async def client_folder(self, model: str, tell: Tell) -> Path:
        """The folder once the client's files are in it. Raises ModelError, DiskFull."""
        with self._told(model, tell):
            return await self._models.ensure(model)

    async def share_folder(self, request: ShareRequest, tell: Tell) -> Path:
        """The folder once what shall be shared is in it; chosen blocks are fetched if need be.

        Raises ModelNotHere if nobody has asked to fetch the model, or what fetching it raises.
        """
        with self._told(request.model, tell):
            if request.span is not None:
                return await self._models.ensure(request.model, request.span)
            state = await self._models.stored(request.model)
            if state is ModelState.FETCHING:
                await self._models.ensure(request.model)
                state = await self._models.stored(request.model)
            if state is not ModelState.READY:
                raise ModelNotHere(
                    f"The blocks of {request.model} are not all on this computer.",
                    f"Run `superbloom model fetch {request.model}`, or say which blocks to share.",
                )
            return self._models.folder(request.model)

    @contextlib.contextmanager
    def _told(self, model: str, tell: Tell) -> Iterator[None]:
        waiting = (model, tell)
        self._waiting.append(waiting)
        try:
            yield
        finally:
            self._waiting.remove(waiting)


def _in_words(progress: ModelProgress) -> str:
    if progress.total_bytes <= 0:
        return f"{progress.words}."
    done, total = in_words(progress.done_bytes), in_words(progress.total_bytes)
    percent = 100 * progress.done_bytes // progress.total_bytes
    return f"{progress.words}: {done} of {total} ({percent} %)."
