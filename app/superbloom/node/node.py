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
from pathlib import Path
from typing import TypeVar

from superbloom import __version__
from superbloom.control.address import NodeAddress, new_token, write_address
from superbloom.control.messages import (
    ChangeSettings,
    Event,
    ModelInfo,
    ModelsChanged,
    ModelState,
    NodeStatus,
    Notice,
    NoticeLevel,
    SettingsChanged,
    ShareChanged,
)
from superbloom.control.server import ControlServer
from superbloom.domain.catalogue import STARTER
from superbloom.domain.errors import SuperbloomError
from superbloom.domain.settings import Settings
from superbloom.domain.sharing import ShareState, ShareStatus
from superbloom.node.chats.chat import ChatService
from superbloom.node.chats.chat_models import ChatModels
from superbloom.node.chats.conversations import Conversations
from superbloom.node.commands import Commands
from superbloom.node.kept_settings import KeptSettings, with_changes
from superbloom.node.models.chosen import ChosenModel
from superbloom.node.models.service import ModelService
from superbloom.node.models.small_models import SmallModels
from superbloom.node.models.waits import ModelWaits
from superbloom.node.network import connect as connect_hivemind
from superbloom.node.node_use import NodeUse, stdin_closed
from superbloom.node.options import NodeOptions, with_options
from superbloom.node.serving.server_wire import EnterSwarm
from superbloom.node.serving.sharing import SharingService
from superbloom.node.serving.supervisor import Supervisor, server_command
from superbloom.node.stop_signals import stop_signals
from superbloom.node.swarm import Connect, Place, SwarmService
from superbloom.storage.paths import DataFolder
from superbloom.storage.secrets import Secrets

logger = logging.getLogger(__name__)

LOOK_AT_LOG = "Look at the node's log."

SAY_AGAIN = 5.0
"""Seconds after which a wait for the network is explained again."""

LOOK_SECONDS = 0.5
"""How often a node whose borrower is gone looks whether others need it still."""

T = TypeVar("T")


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
        self._notices: list[Notice] = []
        self._chosen = ChosenModel(self._settings)
        self._conversations = Conversations(data.database)
        self._models = ModelService(
            data,
            self._tell,
            chosen=self._model,
            models_folder=_models_folder(self._settings.value),
        )
        self._waits = ModelWaits(self._models, self._place)
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
        self._small_models = SmallModels(
            self._models.list, wanted=lambda: self._settings.value.guess_ahead
        )
        self._chat_models = ChatModels(
            client_folder=self._waits.client_folder,
            place=self._place,
            present=lambda: self._swarm.place,
            share=lambda: self._sharing.status,
            small=self._small_models,
        )
        self._chat = ChatService(
            self._conversations,
            self._chat_models,
            self._tell,
            model=self._model,
            exact=lambda: self._settings.value.exact,
        )
        commands = Commands(
            chat=self._chat,
            sharing=self._sharing,
            models=self._models,
            swarm=self._swarm,
            status=self._status,
            use_model=self._use_model,
            remove_model=self._remove_model,
            change_settings=self._change_settings,
            use=(use := NodeUse(lambda: self._control.views)),
            stop=self._begin_end,
        )
        self._use = use
        self._token = new_token()
        self._control = ControlServer(self._token, commands.answer, news=lambda: self._notices)

    async def run(self, ready: Callable[[str], None]) -> None:
        """Open the control port, begin everything, and end it all when told to.

        `ready` hears the data folder's path once views can connect. Raises UnknownModel, and
        DiskFull or StorageFailed when the folder cannot be written.
        """
        if self._options.model:
            await self._models.stored(self._options.model)
        self._settings.change(lambda settings: with_options(settings, self._options))
        self._end_on_signals()
        tasks: list[asyncio.Task[None]] = []
        try:
            port = await self._control.start()
            address = NodeAddress(
                port=port, token=self._token, pid=os.getpid(), version=__version__
            )
            write_address(self._data.control_file, address)
            logger.info("the node is running: process %d, version %s", os.getpid(), __version__)
            ready(str(self._data.root))
            tasks.append(asyncio.create_task(self._attempt(self._begin()), name="begin"))
            if self._options.borrowed:
                tasks.append(asyncio.create_task(self._follow_borrower(), name="borrower"))
            await self._stop.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._end()

    async def _begin(self) -> None:
        """Begin the services, the slowest first: the server process imports beside this one."""
        if self._settings.problem:
            self._notice(NoticeLevel.WARNING, self._settings.problem)
        state = await self._attempt(self._chosen.state(self._models.stored, self._tell_all))
        here = state is ModelState.READY
        if self._options.share:
            if not here and self._settings.value.share.wanted and self._model() == STARTER:
                await self._attempt(self._models.fetch(STARTER))
            await self._attempt(self._sharing.begin())
        warm = self._options.share or here
        if warm:
            self._chat_models.warm(self._model())
        await self._attempt(self._open_conversations())
        await self._attempt(self._swarm.start())
        if warm:
            await self._chat_models.warmed(self._model())
        await self._attempt(self._models.start())

    async def _open_conversations(self) -> None:
        if problem := await self._conversations.problem():
            self._notice(NoticeLevel.WARNING, problem)

    async def _follow_borrower(self) -> None:
        """End once the command that borrowed this node is gone and nobody else needs it."""
        await stdin_closed()
        while self._use.without_borrower():  # noqa: ASYNC110 (views come and go)
            await asyncio.sleep(LOOK_SECONDS)
        self._begin_end()

    async def _attempt(self, step: Awaitable[T]) -> T | None:
        """A step of the beginning; its failure is told and does not hold up the others."""
        try:
            return await step
        except SuperbloomError as error:
            logger.error("the node did not begin as it should: %s", error)
            self._notice(NoticeLevel.ERROR, error.message, error.next_step)
        except Exception:  # a boundary: the control port stays open, whatever happens
            logger.exception("the node did not begin as it should")
            self._notice(NoticeLevel.ERROR, "The node did not begin as it should.", LOOK_AT_LOG)
        return None

    def _begin_end(self) -> None:
        """Whoever comes from now on waits for the folder instead."""
        self._control.begin_close()
        self._stop.set()

    async def _end(self) -> None:
        """End the services; answers first, so that their text is kept."""
        self._control.begin_close()
        try:
            self._data.control_file.unlink(missing_ok=True)
        except OSError as error:  # it is not taken for a node that answers
            logger.warning("the control file stays: %s", error)
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
            signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(self._begin_end))
            return
        for number in stop_signals():
            loop.add_signal_handler(number, self._begin_end)

    # --- what services ask of each other ------------------------------------------------------

    def _model(self) -> str:
        return self._chosen.name

    def _followed_models(self) -> tuple[str, ...]:
        """The models whose servers the directory watches."""
        shared = self._settings.value.share.model
        return tuple(dict.fromkeys(model for model in (self._model(), shared) if model))

    async def _enter(self, place: Place) -> None:
        """The node is in a swarm: its server and its chats follow."""
        self._entered.set()
        swarm = self._settings.value.swarm
        await self._sharing.enter_swarm(
            EnterSwarm(
                name=place.membership.name,
                secret=place.membership.secret.hex(),
                bootstrap=place.bootstrap,
                listen=f"{place.host}:{swarm.server_port}",
                address=swarm.address,
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
        if not self._chosen.is_owners(model):
            await self._choose(model)
            self._chat_models.warm(model)

    async def _remove_model(self, model: str) -> None:
        """Remove it; where it was the chosen one, the starter is. Raises UnknownModel."""
        self._chat_models.forget(model)
        await self._models.remove(model)
        if model == self._model() != STARTER:
            await self._choose(STARTER)

    async def _change_settings(self, changes: ChangeSettings) -> NodeStatus:
        """Keep what the user has chosen and tell every view. Raises DiskFull, StorageFailed."""
        settings = self._settings.change(lambda settings: with_changes(settings, changes))
        self._small_models.settle()
        self._tell(SettingsChanged(guess_ahead=settings.guess_ahead, exact=settings.exact))
        return await self._status()

    async def _choose(self, model: str) -> None:
        self._chosen.choose(model)
        await self._sharing.model_changed()
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
            guess_ahead=self._settings.value.guess_ahead,
            exact=self._settings.value.exact,
        )

    # --- what everybody hears -----------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        self._waits.hear(event)
        self._control.broadcast(event)

    def _tell_share(self, status: ShareStatus) -> None:
        if status.state is ShareState.SERVING and self._swarm.place is not None:
            self._swarm.place.directory.look_soon()  # it is new, and does not know us yet
        self._tell(ShareChanged(status=self._sharing.with_wish(status)))

    def _notice(self, level: NoticeLevel, message: str, next_step: str = "") -> None:
        self._tell_all(Notice(level=level, message=message, next_step=next_step))

    def _tell_all(self, notice: Notice) -> None:
        """Tell the views, and those that come later too."""
        self._notices.append(notice)
        self._tell(notice)


def _models_folder(settings: Settings) -> Path | None:
    """The folder for models that the user has chosen, None for the data folder's."""
    return Path(settings.models_folder).expanduser() if settings.models_folder else None
