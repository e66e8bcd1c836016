"""A node that is only talk: it speaks the control wire from a script, in the test's own loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject
from PySide6.QtNetwork import QHostAddress, QTcpServer, QTcpSocket

from superbloom.control.address import CONTROL_FILE, NodeAddress, write_address
from superbloom.control.codec import decode, encode
from superbloom.control.messages import (
    PROTOCOL,
    Answering,
    CancelFetch,
    ChangeSettings,
    ChatDelta,
    ChatFinished,
    ChatNotice,
    ConversationChanged,
    ConversationList,
    CreateInvite,
    DeleteConversation,
    Done,
    FetchModel,
    GetStatus,
    GetTranscript,
    Hello,
    Invitation,
    JoinSwarm,
    LeaveSwarm,
    ListConversations,
    ModelInfo,
    ModelsChanged,
    ModelState,
    NewConversation,
    NodeStatus,
    Reach,
    RemoveModel,
    RenameConversation,
    SendMessage,
    ShareChanged,
    StartShare,
    StopAnswer,
    StopNode,
    StopShare,
    Subscribe,
    SwarmChanged,
    SwarmStatus,
    Transcript,
    UseModel,
    VerifyModel,
    Welcome,
)
from superbloom.domain.conversation import Conversation, Message, Role
from superbloom.domain.errors import ControlRefused, InviteInvalid, SuperbloomError
from superbloom.domain.generation import ChainHop, ChatPhase
from superbloom.domain.model_card import Precision
from superbloom.domain.sampling import EndReason
from superbloom.domain.sharing import ShareRequest, ShareState, ShareStatus
from superbloom.domain.span import Span
from superbloom.domain.swarm_map import ServerInfo, ServerState

TOKEN = "0123456789abcdef"
MODEL = "smollm2-135m-instruct"
MB = 1_000_000


def model(id: str = MODEL, name: str = "SmolLM2 135M", **changes: Any) -> ModelInfo:
    """A model as small as the starter."""
    usual: dict[str, Any] = {
        "licence": "Apache-2.0",
        "family": "llama",
        "state": ModelState.READY,
        "blocks": 30,
        "hidden_size": 576,
        "parameters": 134_515_008,
        "context_tokens": 8192,
        "block_bytes": {
            Precision.FP32: 14 * MB,
            Precision.BF16: 7 * MB,
            Precision.INT8: 4 * MB,
            Precision.FP16: 7 * MB,
            Precision.NF4: 2 * MB,
        },
        "client_bytes": 57 * MB,
        "disk_bytes": 269 * MB,
        "cache_bytes_per_token": 768,
    }
    return ModelInfo(id=id, name=name, **{**usual, **changes})


def server(name: str, span: Span, **changes: Any) -> ServerInfo:
    usual: dict[str, Any] = {
        "peer": f"12D3KooW{name}",
        "model": MODEL,
        "fingerprint": "0011223344556677",
        "blocks": 30,
        "state": ServerState.ONLINE,
        "precision": Precision.BF16,
        "device": "cpu",
        "version": "0.1.0",
        "step_seconds": 0.021,
        "prefill_tokens_per_second": 700.0,
        "free_cache_tokens": 40_000,
        "sessions": 0,
        "addresses": (f"/ip4/192.168.1.20/tcp/4001/p2p/12D3KooW{name}",),
        "announced_at": time.time(),
    }
    return ServerInfo(name=name, span=span, **{**usual, **changes})


Until = Callable[[Callable[[], bool]], None]
"""Waits until something holds: the `until` fixture."""


class FakeNode(QObject):
    """Answers every request from what its attributes say; `script` overrides an answer."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__()
        self.data_dir = data_dir
        self.token = TOKEN
        self.received: list[Any] = []
        self.guess_ahead = True
        self.exact = False
        self.script: dict[type, Callable[[Any], Any]] = {}
        """By request: gives a reply or a SuperbloomError; None answers nothing."""
        self.answering: dict[str, str] = {}
        """By conversation: the answer that is said to be running."""
        self.models: tuple[ModelInfo, ...] = (model(),)
        self.model = MODEL
        self.share = ShareStatus(
            state=ShareState.SERVING,
            wanted=True,
            model=MODEL,
            span=Span(0, 30),
            precision=Precision.BF16,
            device="cpu",
            memory_bytes=812 * MB,
            peer="12D3KooWmine",
            wish=ShareRequest(model=MODEL),
        )
        self.swarm = SwarmStatus(
            name="meadow",
            reach=Reach.LOCAL,
            peer="12D3KooWnode",
            connected=True,
            servers=(server("mine", Span(0, 30)),),
            round_trip_seconds={"12D3KooWmine": 0.0004},
        )
        self.conversations: dict[str, Conversation] = {}
        self.transcripts: dict[str, tuple[Message, ...]] = {}
        self.count = 0
        self._server = QTcpServer(self)
        self._server.newConnection.connect(self._accept)
        self._sockets: list[QTcpSocket] = []
        self._subscribed: list[QTcpSocket] = []

    # --- its life ---------------------------------------------------------------------------

    def start(self) -> None:
        assert self._server.listen(QHostAddress.SpecialAddress.LocalHost, 0)
        address = NodeAddress(port=self._server.serverPort(), token=TOKEN, pid=1, version="0.1.0")
        write_address(self.data_dir / CONTROL_FILE, address)

    def die(self) -> None:
        """As after kill -9: the file stays, nothing listens."""
        self._server.close()
        for socket in tuple(self._sockets):
            socket.abort()
            socket.deleteLater()
        self._sockets.clear()
        self._subscribed.clear()

    def tell(self, *events: Any) -> None:
        """Send events to every subscriber."""
        for event in events:
            for socket in self._subscribed:
                socket.write(encode(event))

    def tell_raw(self, line: bytes) -> None:
        for socket in self._subscribed:
            socket.write(line)

    @property
    def is_watched(self) -> bool:
        return bool(self._subscribed)

    def asked(self, kind: type) -> list[Any]:
        """The requests of a kind that came so far."""
        return [one for one in self.received if isinstance(one, kind)]

    # --- talk -------------------------------------------------------------------------------

    def add_conversation(self, title: str, *messages: Message, age: float = 0.0) -> Conversation:
        self.count += 1
        now = time.time() - age
        head = Conversation(
            id=f"c{self.count}", title=title, model=MODEL, created_at=now, updated_at=now
        )
        self.conversations[head.id] = head
        self.transcripts[head.id] = tuple(replace(one, conversation=head.id) for one in messages)
        return head

    def message(self, role: Role, text: str, **changes: Any) -> Message:
        self.count += 1
        usual: dict[str, Any] = {
            "id": f"m{self.count}",
            "conversation": "",
            "parent": None,
            "created_at": time.time(),
            "end": EndReason.END_OF_TEXT if role is Role.ASSISTANT else None,
        }
        return Message(role=role, text=text, **{**usual, **changes})

    def write(self, conversation: str, text: str, *, tokens: int = 1, speed: float = 40.0) -> None:
        """More text of the conversation's last answer."""
        answer = self.transcripts[conversation][-1]
        self.transcripts[conversation] = (
            *self.transcripts[conversation][:-1],
            replace(answer, text=answer.text + text),
        )
        self.tell(
            ChatDelta(
                conversation=conversation,
                message=answer.id,
                text=text,
                tokens=tokens,
                tokens_per_second=speed,
            )
        )

    def notice(self, conversation: str, phase: ChatPhase, words: str, *chain: str) -> None:
        answer = self.transcripts[conversation][-1]
        self.tell(
            ChatNotice(
                conversation=conversation,
                message=answer.id,
                phase=phase,
                words=words,
                chain=chain,
                hops=tuple(
                    ChainHop(name=name, blocks=Span(at, at + 1), seconds=0.012)
                    for at, name in enumerate(chain)
                ),
            )
        )

    def finish(
        self,
        conversation: str,
        end: EndReason = EndReason.END_OF_TEXT,
        error: str = "",
        next_step: str = "",
    ) -> None:
        answer = replace(
            self.transcripts[conversation][-1], end=end, tokens=118, tokens_per_second=41.3
        )
        self.transcripts[conversation] = (*self.transcripts[conversation][:-1], answer)
        self.tell(
            ChatFinished(conversation=conversation, answer=answer, error=error, next_step=next_step)
        )

    # --- the wire ---------------------------------------------------------------------------

    def _accept(self) -> None:
        while (socket := self._server.nextPendingConnection()) is not None:
            socket.readyRead.connect(lambda socket=socket: self._read(socket))
            socket.disconnected.connect(lambda socket=socket: self._lost(socket))
            self._sockets.append(socket)

    def _lost(self, socket: QTcpSocket) -> None:
        for known in (self._sockets, self._subscribed):
            if socket in known:
                known.remove(socket)

    def _read(self, socket: QTcpSocket) -> None:
        while socket.canReadLine():
            line = decode(bytes(socket.readLine().data()))
            self.received.append(line.message)
            reply = self._reply(line.message, socket)
            if reply is not None:
                socket.write(encode(reply, line.id))
            if isinstance(reply, ControlRefused):
                socket.disconnectFromHost()

    def _reply(self, request: Any, socket: QTcpSocket) -> Any:
        if type(request) in self.script:
            return self.script[type(request)](request)
        if isinstance(request, Hello) and request.token != self.token:
            return ControlRefused("The node was not shown the right token.")
        if isinstance(request, Subscribe):
            self._subscribed.append(socket)
        return getattr(self, f"_on_{type(request).__name__}")(request)

    def _on_Hello(self, request: Hello) -> Welcome:
        return Welcome(version="0.1.0", protocol=PROTOCOL, client="view-1")

    def _on_Subscribe(self, request: Subscribe) -> Done:
        return Done()

    def _on_StopNode(self, request: StopNode) -> Done:
        return Done()

    def _on_GetStatus(self, request: GetStatus) -> NodeStatus:
        return NodeStatus(
            version="0.1.0",
            data_dir=str(self.data_dir),
            pid=1,
            started_at=time.time(),
            model=self.model,
            swarm=self.swarm,
            share=self.share,
            models=self.models,
            guess_ahead=self.guess_ahead,
            exact=self.exact,
        )

    def _on_ListConversations(self, request: ListConversations) -> ConversationList:
        return ConversationList(conversations=tuple(self.conversations.values()))

    def _on_GetTranscript(self, request: GetTranscript) -> Transcript | SuperbloomError:
        return Transcript(
            conversation=self.conversations[request.conversation],
            messages=self.transcripts[request.conversation],
            answering=self.answering.get(request.conversation, ""),
        )

    def _on_NewConversation(self, request: NewConversation) -> Conversation:
        head = self.add_conversation(request.title or "New conversation")
        self.tell(ConversationChanged(conversation=head, initiator="view-1"))
        return head

    def _on_RenameConversation(self, request: RenameConversation) -> Conversation:
        head = replace(self.conversations[request.conversation], title=request.title)
        self.conversations[head.id] = head
        self.tell(ConversationChanged(conversation=head))
        return head

    def _on_DeleteConversation(self, request: DeleteConversation) -> Done:
        head = self.conversations.pop(request.conversation)
        self.tell(ConversationChanged(conversation=head, deleted=True))
        return Done()

    def _on_SendMessage(self, request: SendMessage) -> Answering:
        name = request.conversation
        question = self.message(Role.USER, request.text, conversation=name)
        answer = self.message(Role.ASSISTANT, "", conversation=name, end=None)
        self.transcripts[name] = (*self.transcripts[name], question, answer)
        return Answering(question=question, answer=answer)

    def _on_StopAnswer(self, request: StopAnswer) -> Done:
        self.finish(request.conversation, EndReason.STOPPED)
        return Done()

    def _on_StartShare(self, request: StartShare) -> ShareStatus:
        wish = request.request or self.share.wish
        self.share = replace(self.share, state=ShareState.STARTING, wanted=True, wish=wish)
        self.tell(ShareChanged(status=self.share))
        return self.share

    def _on_StopShare(self, request: StopShare) -> ShareStatus:
        self.share = replace(self.share, state=ShareState.OFF, wanted=False, span=None)
        self.tell(ShareChanged(status=self.share))
        return self.share

    def _on_CreateInvite(self, request: CreateInvite) -> Invitation:
        code = "superbloom:" + "mE4dOw7Qk2rT9xZbVn3LpYsHc8Jw5Fg" * 4
        return Invitation(code=code, expires_at=time.time() + 3600 * request.hours)

    def _on_JoinSwarm(self, request: JoinSwarm) -> SwarmStatus | SuperbloomError:
        if not request.code.startswith("superbloom:"):
            return InviteInvalid("This is not an invite code.")
        self.swarm = replace(self.swarm, name="orchard", reach=Reach.OPEN)
        self.tell(SwarmChanged(status=self.swarm))
        return self.swarm

    def _on_LeaveSwarm(self, request: LeaveSwarm) -> SwarmStatus:
        self.swarm = replace(self.swarm, name="fresh", reach=Reach.LOCAL)
        return self.swarm

    def _on_FetchModel(self, request: FetchModel) -> ModelInfo:
        return self._set_state(request.model, ModelState.FETCHING)

    def _on_CancelFetch(self, request: CancelFetch) -> Done:
        self._set_state(request.model, ModelState.PARTIAL)
        return Done()

    def _on_VerifyModel(self, request: VerifyModel) -> ModelInfo:
        return self._set_state(request.model, ModelState.READY)

    def _on_RemoveModel(self, request: RemoveModel) -> Done:
        self._set_state(request.model, ModelState.ABSENT)
        return Done()

    def _on_UseModel(self, request: UseModel) -> NodeStatus:
        self.model = request.model
        return self._on_GetStatus(GetStatus())

    def _on_ChangeSettings(self, request: ChangeSettings) -> NodeStatus:
        if request.guess_ahead is not None:
            self.guess_ahead = request.guess_ahead
        if request.exact is not None:
            self.exact = request.exact
        return self._on_GetStatus(GetStatus())

    def _set_state(self, name: str, state: ModelState) -> ModelInfo:
        self.models = tuple(
            replace(one, state=state) if one.id == name else one for one in self.models
        )
        self.tell(ModelsChanged(models=self.models, model=self.model))
        return next(one for one in self.models if one.id == name)
