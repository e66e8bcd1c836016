"""Whether and how this computer shares: the owner's wish, kept, and carried out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from superbloom.domain.errors import SuperbloomError
from superbloom.domain.settings import ShareSettings
from superbloom.domain.sharing import ShareRequest, ShareState, ShareStatus
from superbloom.node.kept_settings import KeptSettings
from superbloom.node.serving.server_wire import EnterSwarm, StartServing
from superbloom.node.serving.supervisor import Supervisor

logger = logging.getLogger(__name__)

FolderOf = Callable[[ShareRequest, Callable[[str], None]], Awaitable[Path]]
"""`(request, tell) -> folder` once its files are here; `tell` hears what is waited for.

Raises ModelError when they are not coming.
"""


class SharingService:
    """The node's side of StartShare and StopShare."""

    def __init__(
        self,
        supervisor: Supervisor,
        settings: KeptSettings,
        *,
        folder_of: FolderOf,
        model: Callable[[], str],
    ) -> None:
        self._supervisor = supervisor
        self._settings = settings
        self._folder_of = folder_of
        self._model = model
        self._preparing: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def status(self) -> ShareStatus:
        return self.with_wish(self._supervisor.status)

    def with_wish(self, status: ShareStatus) -> ShareStatus:
        """The supervisor's status and what the owner asked for last."""
        return replace(status, wish=self._wanted_request())

    async def begin(self) -> None:
        """At the node's start: share if that was wanted last, or on the very first start."""
        if self._settings.value.share.wanted:
            await self._share(self._wanted_request())

    async def start(self, request: ShareRequest | None) -> ShareStatus:
        """Share from now on, also after the next start of the node; None is as asked last."""
        if request is None:
            self._settings.change(
                lambda settings: replace(settings, share=replace(settings.share, wanted=True))
            )
            await self._share(self._wanted_request())
            return self.status
        model = "" if request.model == self._model() else request.model
        wish = ShareSettings(
            wanted=True,
            model=model,
            first_block=request.span.start if request.span else None,
            end_block=request.span.end if request.span else None,
            memory_bytes=request.memory_bytes,
            precision=request.precision,
            device=request.device,
            threads=request.threads,
        )
        self._settings.change(lambda settings: replace(settings, share=wish))
        await self._share(replace(request, model=request.model or self._model()))
        return self.status

    async def stop(self, *, drain: bool) -> ShareStatus:
        """Share no more, also after the next start of the node."""
        self._settings.change(
            lambda settings: replace(settings, share=replace(settings.share, wanted=False))
        )
        await self._stop_preparing()
        return self.with_wish(await self._supervisor.stop(drain=drain))

    async def model_changed(self) -> None:
        """The node uses another model: share that one, unless the owner chose one to share.

        Chosen blocks were blocks of the model before: they are forgotten.
        """
        wish = self._settings.value.share
        if wish.model:
            return
        fresh = replace(wish, first_block=None, end_block=None)
        self._settings.change(lambda settings: replace(settings, share=fresh))
        if self._supervisor.status.wanted:
            await self._share(self._wanted_request())

    async def enter_swarm(self, swarm: EnterSwarm) -> None:
        """The node is in this swarm now; the server follows."""
        await self._supervisor.enter_swarm(swarm)

    async def close(self) -> None:
        """End the server; the wish stays. No later request starts one again."""
        self._closed = True
        await self._stop_preparing()
        await self._supervisor.close()

    def _wanted_request(self) -> ShareRequest:
        wish = self._settings.value.share
        return ShareRequest(
            model=wish.model or self._model(),
            span=wish.span,
            memory_bytes=wish.memory_bytes,
            precision=wish.precision,
            device=wish.device,
            threads=wish.threads,
        )

    async def _share(self, request: ShareRequest) -> None:
        await self._stop_preparing()
        await self._supervisor.end()
        if self._closed:
            return
        self._supervisor.say(ShareState.STARTING, request, "")
        self._preparing = asyncio.create_task(self._prepare(request), name="prepare the share")

    async def _prepare(self, request: ShareRequest) -> None:
        """Start the server as soon as the model's files are here."""

        def waiting(words: str) -> None:
            self._supervisor.say(ShareState.STARTING, request, words)

        try:
            folder = await self._folder_of(request, waiting)
            await self._supervisor.start(StartServing(request=request, folder=str(folder)))
        except SuperbloomError as error:
            logger.warning("the share does not start: %s", error)
            self._supervisor.say(ShareState.FAILED, request, str(error))

    async def _stop_preparing(self) -> None:
        task, self._preparing = self._preparing, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
