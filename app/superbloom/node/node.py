"""The composition root: every service of one computer, put together, begun and ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from superbloom import __version__
from superbloom.control.address import NodeAddress, new_token, write_address
from superbloom.control.messages import (
    Event,
    ModelInfo,
    ModelsChanged,
    ModelState,
    NodeStatus,
    Notice,
    NoticeLevel,
    ShareChanged,
)
from superbloom.control.server import ControlServer
from superbloom.domain.catalogue import STARTER
from superbloom.domain.errors import SuperbloomError
from superbloom.domain.settings import Settings
from superbloom.domain.sharing import ShareStatus
from superbloom.node.chat import ChatService
from superbloom.node.chat_models import ChatModels
from superbloom.node.commands import Commands
from superbloom.node.conversations import Conversations
from superbloom.node.kept_settings import KeptSettings
from superbloom.node.model_waits import ModelWaits
from superbloom.node.models import ModelService
from superbloom.node.network import connect as connect_hivemind
from superbloom.node.server_wire import EnterSwarm
from superbloom.node.sharing import SharingService
from superbloom.node.supervisor import Supervisor, server_command
from superbloom.node.swarm import Connect, Place, SwarmService
from superbloom.storage.paths import DataFolder
from superbloom.storage.secrets import Secrets

logger = logging.getLogger(__name__)

LOOK_AT_LOG = "Look at the node's log."

SAY_AGAIN = 5.0
"""Seconds after which a wait for the network is explained again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """What the command line says: `model` and `port` are kept, `share` False holds this time."""

    model: str = ""
    port: int | None = None
    share: bool = True


class Node:
    """One computer's core. Made once, run once."""

    def __init__(
        self,
        data: DataFolder,
        options: NodeOptions,
        *,
        connect: Connect | None = None,
        server: Sequence[str] | None = None,
    ) -> None:
        """`connect` opens the network and `server` is the server's command: the real ones for None.

        Raises StorageFailed when the settings cannot be read.
        """
        self._data = data
        self._options = options
        self._settings = KeptSettings(data.settings_file)
        self._started_at = time.time()
        self._stop = asyncio.Event()
        self._entered = asyncio.Event()
        self._conversations = Conversations(data.database)
        self._models = ModelService(
            data,
            self._tell,
            chosen=self._model,
            models_folder=_models_folder(self._settings.value),
        )
        self._waits = ModelWaits(self._models)
        self._swarm = SwarmService(
            self._settings,
            Secrets(data, in_file=not data.is_default),
            connect=connect or (lambda entry: connect_hivemind(data, entry)),
            models=self._followed_models,
            entered=self._enter,
            notify=self._tell,
        )
        self._sharing = SharingService(
            Supervisor(server or server_command(str(data.root)), self._tell_share),
            self._settings,
            folder_of=self._waits.share_folder,
            model=self._model,
        )
        self._chat_models = ChatModels(
            client_folder=self._waits.client_folder,
            place=self._place,
            share=lambda: self._sharing.status,
        )
        self._chat = ChatService(
            self._conversations, self._chat_models, self._tell, model=self._model
        )
        commands = Commands(
            chat=self._chat,
            sharing=self._sharing,
            models=self._models,
            swarm=self._swarm,
            status=self._status,
            use_model=self._use_model,
            forget_model=self._chat_models.forget,
            stop=self._stop.set,
        )
        self._token = new_token()
        self._control = ControlServer(self._token, commands.answer)

    async def run(self, ready: Callable[[str], None]) -> None:
        """Open the control port, begin everything, and end it all when told to.

        `ready` hears the data folder's path once views can connect. Raises UnknownModel.
        """
        if self._options.model:
            await self._models.stored(self._options.model)
        self._settings.change(lambda settings: _with_options(settings, self._options))
        self._end_on_signals()
        port = await self._control.start()
        address = NodeAddress(port=port, token=self._token, pid=os.getpid(), version=__version__)
        write_address(self._data.control_file, address)
        logger.info("the node is running: process %d, version %s", os.getpid(), __version__)
        ready(str(self._data.root))
        beginning = asyncio.create_task(self._begin(), name="begin")
        try:
            await self._stop.wait()
        finally:
            beginning.cancel()
            await asyncio.gather(beginning, return_exceptions=True)
            await self._end()

    async def _begin(self) -> None:
        """Begin the services, the slowest first: the server process imports beside this one."""
        if self._settings.problem:
            self._notice(NoticeLevel.WARNING, self._settings.problem)
        here = await self._models.stored(self._model()) is ModelState.READY
        if self._options.share:
            if not here and self._settings.value.share.wanted and self._model() == STARTER:
                await self._attempt(self._models.fetch(STARTER))
            await self._attempt(self._sharing.begin())
        warm = self._options.share or here
        if warm:
            self._chat_models.warm(self._model())
        await self._attempt(self._swarm.start())
        if warm:
            await self._chat_models.warmed(self._model())
        await self._attempt(self._models.start())

    async def _attempt(self, step: Awaitable[object]) -> None:
        """One service's beginning; its failure is told and does not hold up the others."""
        try:
            await step
        except SuperbloomError as error:
            logger.error("the node did not begin as it should: %s", error)
            self._notice(NoticeLevel.ERROR, error.message, error.next_step)
        except Exception:  # a boundary: the control port stays open, whatever happens
            logger.exception("the node did not begin as it should")
            self._notice(NoticeLevel.ERROR, "The node did not begin as it should.", LOOK_AT_LOG)

    async def _end(self) -> None:
        """End the services; answers first, so that their text is kept."""
        self._data.control_file.unlink(missing_ok=True)
        for close in (
            self._chat.close,
            self._sharing.close,
            self._models.close,
            self._chat_models.close,
            self._swarm.close,
            self._control.close,
            self._conversations.close,
        ):
            try:
                await close()
            except Exception:  # a boundary: the others must end too
                logger.exception("the node did not end as it should")

    def _end_on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        if sys.platform == "win32":
            signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(self._stop.set))
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)

    # --- what services ask of each other ------------------------------------------------------

    def _model(self) -> str:
        return self._settings.value.model

    def _followed_models(self) -> tuple[str, ...]:
        """The models whose servers the directory watches."""
        shared = self._settings.value.share.model
        return tuple(dict.fromkeys(model for model in (self._model(), shared) if model))

    async def _enter(self, place: Place) -> None:
        """The node is in a swarm: its server and its chats follow."""
        self._entered.set()
        await self._sharing.enter_swarm(
            EnterSwarm(
                name=place.membership.name,
                secret=place.membership.secret.hex(),
                bootstrap=place.bootstrap,
                listen=f"{place.host}:0",
                display_name=self._settings.value.display_name,
            )
        )

    async def _place(self, tell: Callable[[str], None]) -> Place:
        """The node's place, once it is in a swarm; `tell` hears what keeps it."""
        while (place := self._swarm.place) is None:
            self._entered.clear()
            tell(self._swarm.status().problem or "Joining the swarm.")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SAY_AGAIN):
                    await self._entered.wait()
        return place

    async def _use_model(self, model: str) -> None:
        await self._models.stored(model)  # raises UnknownModel
        if model == self._model():
            return
        self._settings.change(lambda settings: replace(settings, model=model))
        await self._sharing.model_changed()
        self._chat_models.warm(model)
        self._tell(ModelsChanged(models=await self._models.list(), model=model))

    async def _status(self) -> NodeStatus:
        models: tuple[ModelInfo, ...] = await self._models.list()
        return NodeStatus(
            version=__version__,
            data_dir=str(self._data.root),
            pid=os.getpid(),
            started_at=self._started_at,
            model=self._model(),
            swarm=self._swarm.status(),
            share=self._sharing.status,
            models=models,
        )

    # --- what everybody hears -----------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        self._waits.hear(event)
        self._control.broadcast(event)

    def _tell_share(self, status: ShareStatus) -> None:
        self._tell(ShareChanged(status=status))

    def _notice(self, level: NoticeLevel, message: str, next_step: str = "") -> None:
        self._tell(Notice(level=level, message=message, next_step=next_step))


def _with_options(settings: Settings, options: NodeOptions) -> Settings:
    changed = replace(settings, model=options.model or settings.model or STARTER)
    if options.port is None:
        return changed
    return replace(changed, swarm=replace(changed.swarm, port=options.port))


def _models_folder(settings: Settings) -> Path | None:
    """The folder for models that the user has chosen, None for the data folder's."""
    return Path(settings.models_folder).expanduser() if settings.models_folder else None
