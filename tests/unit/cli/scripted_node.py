"""A node that plays a script, in a thread of the tests: the commands cannot tell the difference."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import announced
from superbloom.control.address import CONTROL_FILE, NodeAddress, write_address
from superbloom.control.messages import (
    Answering,
    CancelFetch,
    ChangeSettings,
    ChatDelta,
    ChatFinished,
    ChatNotice,
    CreateInvite,
    Done,
    Event,
    FetchModel,
    GetStatus,
    ImportModel,
    Invitation,
    JoinSwarm,
    LeaveSwarm,
    ModelInfo,
    ModelProgress,
    ModelState,
    NewConversation,
    NodeStatus,
    Reach,
    RemoveModel,
    Reply,
    Request,
    SendMessage,
    ShareChanged,
    StartShare,
    StopAnswer,
    StopNode,
    StopShare,
    SwarmStatus,
    UseModel,
    VerifyModel,
)
from superbloom.control.server import Caller, ControlServer
from superbloom.domain.conversation import Conversation, Message, Role
from superbloom.domain.errors import InviteInvalid, UnknownModel
from superbloom.domain.generation import ChainHop, ChatPhase
from superbloom.domain.model_card import Precision
from superbloom.domain.sampling import EndReason
from superbloom.domain.sharing import ShareState, ShareStatus
from superbloom.domain.span import Span
from superbloom.domain.swarm_map import ServerInfo, ServerState

R = TypeVar("R")

MODEL = "tiny"
TOKEN = "t" * 64


def server_info(name: str, span: Span, state: ServerState = ServerState.ONLINE) -> ServerInfo:
    return announced.server_info(
        f"peer-{name}",
        span,
        name=name,
        model=MODEL,
        blocks=4,
        state=state,
        sessions=1,
        announced_at=1000.0,
    )


INFO = ModelInfo(
    id=MODEL,
    name="Tiny",
    licence="MIT",
    family="llama",
    state=ModelState.READY,
    blocks=4,
    hidden_size=8,
    parameters=1000,
    context_tokens=2048,
    block_bytes={Precision.BF16: 50 * 1024**2, Precision.INT8: 25 * 1024**2},
    client_bytes=1024,
    disk_bytes=300 * 1024**2,
    folder="/models/tiny",
)

SHARING = ShareStatus(
    state=ShareState.SERVING,
    wanted=True,
    model=MODEL,
    span=Span(0, 2),
    precision=Precision.BF16,
    device="cpu",
    memory_bytes=10**9,
    peer="peer-ada",
)

STATUS = NodeStatus(
    version="1",
    data_dir="/data",
    pid=1,
    started_at=0.0,
    model=MODEL,
    swarm=SwarmStatus(
        name="ours",
        reach=Reach.LOCAL,
        peer="me",
        connected=True,
        servers=(server_info("ada", Span(0, 2)), server_info("bob", Span(1, 3))),
        round_trip_seconds={"peer-bob": 0.025},
    ),
    share=SHARING,
    models=(INFO,),
)


class ScriptedNode:
    """Answers as told: set the attributes, then run a command on `data`."""

    def __init__(self, data: Path) -> None:
        self.status = STATUS
        self.asked: list[Request] = []
        self.pieces: tuple[str, ...] = ("Hello", " wor", "ld")
        self.notices: tuple[tuple[ChatPhase, str], ...] = ()
        self.hops: tuple[ChainHop, ...] = ()
        self.end = EndReason.END_OF_TEXT
        self.error = ("", "")
        self.waits = False
        """The answer does not end by itself."""
        self.stop_ends = True
        self.dies_after: int | None = None
        """Breaks every connection after so many pieces."""
        self.fetch_error = ("", "")
        self.share_states: tuple[ShareStatus, ...] = (SHARING,)
        self.stale_share_states: tuple[ShareStatus, ...] = ()
        """Told before the new share begins."""
        self.answering = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.news: tuple[Event, ...] = ()
        """What every subscriber hears first."""
        self._server = ControlServer(TOKEN, self._answer, news=lambda: self.news)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stops: dict[str, asyncio.Event] = {}
        port = self._run(self._server.start())
        self.address = NodeAddress(port=port, token=TOKEN, pid=os.getpid(), version="1")
        self.file = data / CONTROL_FILE
        write_address(self.file, self.address)

    def asked_for(self, kind: type[R]) -> R:
        """The only request of this kind."""
        (found,) = (one for one in self.asked if isinstance(one, kind))
        return found

    def close(self) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.close()

    async def _answer(self, request: Request, _caller: Caller) -> Reply:
        self.asked.append(request)
        handler = _HANDLERS[type(request)]
        reply: Reply = handler(self, request)
        return reply

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)

    def _tell(self, event: Event) -> None:
        self._server.broadcast(event)

    # --- chat ---------------------------------------------------------------------------------

    def new_conversation(self, request: NewConversation) -> Reply:
        if request.model not in ("", MODEL):
            raise UnknownModel(f"There is no model called {request.model}.")
        number = sum(isinstance(one, NewConversation) for one in self.asked)
        return Conversation(
            id=f"c{number}", title="New", model=MODEL, created_at=0.0, updated_at=0.0
        )

    def send(self, request: SendMessage) -> Reply:
        def message(role: Role, text: str) -> Message:
            return Message(
                id=str(role), conversation=request.conversation, parent=None, role=role,
                text=text, created_at=0.0,
            )  # fmt: skip

        answer = message(Role.ASSISTANT, "")
        self._stops[request.conversation] = asyncio.Event()
        self._later(self._write(answer))
        return Answering(question=message(Role.USER, request.text), answer=answer)

    async def _write(self, answer: Message) -> None:
        where = answer.conversation
        self._tell(ChatFinished(conversation="another", answer=answer))
        for phase, words in self.notices:
            self._tell(
                ChatNotice(
                    conversation=where, message=answer.id, phase=phase, words=words,
                    chain=("ada", "bob"), hops=self.hops,
                )
            )  # fmt: skip
        for number, piece in enumerate(self.pieces):
            if number == self.dies_after:
                for connection in tuple(self._server._connections.values()):
                    connection._writer.transport.abort()
                return
            self._tell(
                ChatDelta(
                    conversation=where, message=answer.id, text=piece, tokens=number + 1,
                    tokens_per_second=5.0,
                )
            )  # fmt: skip
            await asyncio.sleep(0.001)
        self.answering.set()
        end = self.end
        if self.waits:
            await self._stops[where].wait()
            end = EndReason.STOPPED
        finished = replace(
            answer, text="".join(self.pieces), end=end, tokens=len(self.pieces),
            tokens_per_second=5.0, first_token_seconds=0.5,
        )  # fmt: skip
        error, next_step = self.error
        self._tell(
            ChatFinished(conversation=where, answer=finished, error=error, next_step=next_step)
        )

    def stop_answer(self, request: StopAnswer) -> Reply:
        if self.stop_ends:
            self._stops[request.conversation].set()
        return Done()

    # --- the rest -----------------------------------------------------------------------------

    def start_share(self, _request: StartShare) -> Reply:
        for status in self.stale_share_states:
            self._tell(ShareChanged(status=status))
        starting = ShareStatus(state=ShareState.STARTING, wanted=True, model=MODEL)
        self.status = replace(self.status, share=starting)
        self._later(self._share())
        return starting

    async def _share(self) -> None:
        for status in self.share_states:
            await asyncio.sleep(0.001)
            self.status = replace(self.status, share=status)
            self._tell(ShareChanged(status=status))

    def fetch(self, request: FetchModel) -> Reply:
        if request.model != MODEL:
            raise UnknownModel(f"There is no model called {request.model}.")
        self._later(self._bring())
        return replace(INFO, state=ModelState.FETCHING)

    async def _bring(self) -> None:
        error, next_step = self.fetch_error
        for done in (0, 50, 100):
            await asyncio.sleep(0.001)
            self._tell(
                ModelProgress(
                    model=MODEL, done_bytes=done << 20, total_bytes=100 << 20, words="Fetching",
                )
            )  # fmt: skip
        self.answering.set()
        if self.waits:
            return
        self._tell(
            ModelProgress(
                model=MODEL, done_bytes=0, total_bytes=0, words="", finished=True, error=error,
                next_step=next_step,
            )
        )  # fmt: skip

    def join(self, request: JoinSwarm) -> Reply:
        if request.code != "superbloom:good":
            raise InviteInvalid("This is no invite code.")
        return replace(STATUS.swarm, name="theirs", reach=Reach.OPEN)


_HANDLERS: dict[type, Callable[[ScriptedNode, Any], Any]] = {
    GetStatus: lambda node, _: node.status,
    NewConversation: ScriptedNode.new_conversation,
    SendMessage: ScriptedNode.send,
    StopAnswer: ScriptedNode.stop_answer,
    StartShare: ScriptedNode.start_share,
    StopShare: lambda *_: ShareStatus(state=ShareState.OFF, wanted=False),
    FetchModel: ScriptedNode.fetch,
    CancelFetch: lambda *_: Done(),
    ImportModel: lambda *_: INFO,
    VerifyModel: lambda node, _: node.status.models[0],
    RemoveModel: lambda *_: Done(),
    UseModel: lambda node, _: node.status,
    ChangeSettings: lambda node, asked: replace(node.status, guess_ahead=asked.guess_ahead),
    CreateInvite: lambda *_: Invitation(code="superbloom:code", expires_at=1e9),
    JoinSwarm: ScriptedNode.join,
    LeaveSwarm: lambda *_: STATUS.swarm,
    StopNode: lambda *_: Done(),
}
