"""Which service answers which request: the one table of what the node can be asked."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from superbloom.control.messages import (
    CancelFetch,
    ChangeSettings,
    CreateInvite,
    DeleteConversation,
    Done,
    FetchModel,
    GetStatus,
    GetTranscript,
    ImportModel,
    JoinSwarm,
    LeaveSwarm,
    ListConversations,
    NewConversation,
    NodeStatus,
    RemoveModel,
    RenameConversation,
    Reply,
    Request,
    SendMessage,
    StartShare,
    StopAnswer,
    StopNode,
    StopShare,
    UseModel,
    VerifyModel,
)
from superbloom.control.server import Caller
from superbloom.domain.errors import ControlRefused, InputRejected
from superbloom.domain.span import Span
from superbloom.node.chats.chat import ChatService
from superbloom.node.models.service import ModelService
from superbloom.node.node_use import NodeUse
from superbloom.node.serving.sharing import SharingService
from superbloom.node.swarm import SwarmService

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """Answers requests; used as the control server's handler."""

    chat: ChatService
    sharing: SharingService
    models: ModelService
    swarm: SwarmService
    status: Callable[[], Awaitable[NodeStatus]]
    use_model: Callable[[str], Awaitable[None]]
    remove_model: Callable[[str], Awaitable[None]]
    change_settings: Callable[[ChangeSettings], Awaitable[NodeStatus]]
    use: NodeUse
    stop: Callable[[], None]

    async def answer(self, request: Request, caller: Caller) -> Reply:
        """The reply. Raises the SuperbloomError that the caller shall see."""
        with self.use.noted(request, caller):
            return await self._answer(request, caller)

    async def _answer(  # noqa: PLR0911 (a table)
        self, request: Request, caller: Caller
    ) -> Reply:
        match request:
            case GetStatus():
                return await self.status()
            case StopNode(only_if_unused=polite):
                if polite:
                    self.use.require_none_but(caller)
                self.stop()
                return Done()
            case UseModel(model=model):
                await self.use_model(model)
                return await self.status()
            case ChangeSettings():
                return await self.change_settings(request)
            case StartShare(request=share):
                return await self.sharing.start(share)
            case StopShare(drain=drain):
                return await self.sharing.stop(drain=drain)
        reply = await self._about_chat(request, caller)
        reply = reply or await self._about_models(request)
        reply = reply or await self._about_swarm(request)
        if reply is None:
            raise ControlRefused(f"{type(request).__name__} is no request that a node answers.")
        return reply

    async def _about_chat(  # noqa: PLR0911 (a table)
        self, request: Request, caller: Caller
    ) -> Reply | None:
        match request:
            case ListConversations():
                return await self.chat.list_conversations()
            case GetTranscript(conversation=conversation):
                return await self.chat.transcript(conversation)
            case NewConversation(model=model):
                if model:
                    await self.models.stored(model)  # raises UnknownModel
                return await self.chat.create(request, caller.name)
            case RenameConversation(conversation=conversation, title=title):
                return await self.chat.rename(conversation, title, caller.name)
            case DeleteConversation(conversation=conversation):
                await self.chat.delete(conversation, caller.name)
                return Done()
            case SendMessage():
                return await self.chat.send(request, caller.name)
            case StopAnswer(conversation=conversation):
                await self.chat.stop(conversation)
                return Done()
        return None

    async def _about_models(self, request: Request) -> Reply | None:
        match request:
            case FetchModel(model=model, folder=folder):
                return await self.models.fetch(model, folder, _span_of(request))
            case CancelFetch(model=model):
                await self.models.cancel(model)
                return Done()
            case ImportModel():
                return await self.models.import_path(request.path, request.id)
            case VerifyModel(model=model):
                return await self.models.verify(model)
            case RemoveModel(model=model):
                await self.remove_model(model)
                return Done()
        return None

    async def _about_swarm(self, request: Request) -> Reply | None:
        match request:
            case CreateInvite(hours=hours, address=address, keep_in_file=in_file):
                return await self.swarm.create_invite(hours, address, keep_in_file=in_file)
            case JoinSwarm(code=code, keep_in_file=in_file):
                return await self.swarm.join(code, keep_in_file=in_file)
            case LeaveSwarm():
                return await self.swarm.leave()
        return None


def _span_of(request: FetchModel) -> Span | None:
    """The blocks to fetch, None for all. Raises InputRejected."""
    if request.first_block is None and request.end_block is None:
        return None
    try:
        return Span(request.first_block or 0, request.end_block or 0)
    except ValueError as error:
        raise InputRejected("The blocks to fetch are a first one and a later end.") from error
