"""Waiting for a model's files, with words for whoever waits; which blocks to fetch for a share."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from superbloom.control.messages import Event, ModelProgress, ModelState
from superbloom.domain.budget import in_words
from superbloom.domain.model_card import ModelShape
from superbloom.domain.placement import choose_span
from superbloom.domain.sharing import ShareRequest
from superbloom.domain.span import Span
from superbloom.node.daemon_thread import in_daemon_thread
from superbloom.node.models.service import ModelService
from superbloom.node.place import Place

if TYPE_CHECKING:
    from superbloom.node.models.span_offer import Offer

ENOUGH = 0.5
"""The part of the blocks that would fit that is enough to share without fetching more.

Free memory differs from start to start: that alone is no reason to fetch gigabytes.
"""

Tell = Callable[[str], None]


class ModelWaits:
    """Passes the progress of models' files on to those who wait for them."""

    def __init__(
        self,
        models: ModelService,
        place: Callable[[Tell], Awaitable[Place]],
        offer: Callable[[ShareRequest, ModelShape, Path], Offer] | None = None,
    ) -> None:
        """`place` waits for the swarm; `offer` is `span_offer.offer_from_node` for None."""
        self._models = models
        self._place = place
        self._offer = offer or _offer_of
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
        """The folder once what shall be shared is in it; only those blocks are fetched.

        Where none are asked for, those here are shared if they are enough, else the ones that the
        swarm needs most. Raises what fetching raises, InputRejected, BudgetTooSmall.
        """
        with self._told(request.model, tell):
            span = request.span
            if span is None:
                folder = await self._models.ensure(request.model)
                span = await self._lacking(request, folder, tell)
                if span is None:
                    return folder
            return await self._models.ensure(request.model, span)

    async def _lacking(self, request: ShareRequest, folder: Path, tell: Tell) -> Span | None:
        """The blocks to fetch before sharing, None if enough are here."""
        model = request.model
        if await self._models.stored(model) is ModelState.READY:
            return None
        shape = await self._models.shape(model)
        offer = await in_daemon_thread(lambda: self._offer(request, shape, folder), name="offer")
        if any(len(run) >= ENOUGH * offer.capacity for run in offer.here):
            return None
        place = await self._place(tell)
        await place.directory.refresh(model)
        servers = place.directory.servers(model)
        return choose_span(servers, shape.blocks, offer.capacity, own_peer="", now=time.time())

    @contextlib.contextmanager
    def _told(self, model: str, tell: Tell) -> Iterator[None]:
        waiting = (model, tell)
        self._waiting.append(waiting)
        try:
            yield
        finally:
            self._waiting.remove(waiting)


def _offer_of(request: ShareRequest, shape: ModelShape, folder: Path) -> Offer:
    from superbloom.node.models.span_offer import offer_from_node  # noqa: PLC0415 (imports torch)

    return offer_from_node(request, shape, folder)


def _in_words(progress: ModelProgress) -> str:
    if progress.total_bytes <= 0:
        return f"{progress.words}."
    done, total = in_words(progress.done_bytes), in_words(progress.total_bytes)
    percent = 100 * progress.done_bytes // progress.total_bytes
    return f"{progress.words}: {done} of {total} ({percent} %)."
