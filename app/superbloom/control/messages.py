"""What crosses the control wire: one request or event a class, plain frozen values.

Each request names the type of its reply. A request that runs for a while (a chat, a download)
replies at once and goes on as events, which every subscriber sees; `initiator` lets a view
recognise its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from superbloom.domain.conversation import Conversation, Message
from superbloom.domain.generation import ChainHop, ChatPhase
from superbloom.domain.model_card import Precision
from superbloom.domain.sampling import SamplingSettings
from superbloom.domain.settings import Reach as Reach  # noqa: PLC0414 (views take it from here)
from superbloom.domain.sharing import ShareRequest, ShareStatus
from superbloom.domain.swarm_map import ServerInfo

PROTOCOL = 3
"""Raised when the wire changes so that old and new do not understand each other."""


FINDER = "finder"
"""The `client` of a Hello by which a program only looks whether a node is there."""

BORROWER = "borrower"
"""The `client` of a Hello by the program that started the node for itself alone."""


# --- values ---------------------------------------------------------------------------------


class ModelState(StrEnum):
    """Where a model's files stand on this computer."""

    ABSENT = "absent"
    FETCHING = "fetching"
    PARTIAL = "partial"
    READY = "ready"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model as the user sees it; sizes in bytes, computed from its configuration."""

    id: str
    name: str
    licence: str
    family: str
    state: ModelState
    blocks: int
    hidden_size: int
    parameters: int
    context_tokens: int
    block_bytes: dict[Precision, int]
    client_bytes: int
    disk_bytes: int = 0
    folder: str = ""
    source: str = ""
    note: str = ""
    chat: bool = True
    cache_bytes_per_token: int = 0
    """Keys and values of one block for one token, in 16 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmStatus:
    """The swarm this node is in."""

    name: str
    reach: Reach
    peer: str
    addresses: tuple[str, ...] = ()
    connected: bool = False
    problem: str = ""
    servers: tuple[ServerInfo, ...] = ()
    round_trip_seconds: dict[str, float] = field(default_factory=dict)
    """By peer id, as measured from here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """Everything a view needs to draw itself."""

    version: str
    data_dir: str
    pid: int
    started_at: float
    model: str
    """The model that chats use."""
    swarm: SwarmStatus
    share: ShareStatus
    models: tuple[ModelInfo, ...] = ()
    guess_ahead: bool = True
    """A small model of this computer may guess how answers go on."""
    exact: bool = False
    """No prompt is rounded on its way over a slow link."""


class NoticeLevel(StrEnum):
    """How loudly to say it."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The reply of a request that has nothing more to say."""


# --- requests -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The first line of every connection. Reply: Welcome, or the connection ends."""

    token: str
    protocol: int = PROTOCOL
    client: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The node's answer to Hello; `client` is the name this connection goes by as an initiator."""

    version: str
    protocol: int
    client: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GetStatus:
    """Reply: NodeStatus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribe:
    """From now on send every event. Reply: Done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopNode:
    """End the node and its server cleanly. Reply: Done, then the connection closes.

    With `only_if_unused` NodeInUse is the answer while other views are connected, and once one of
    them has asked for what outlasts it: a share, a swarm, an invite, a model's files.
    """

    only_if_unused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ListConversations:
    """Reply: ConversationList, newest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationList:
    conversations: tuple[Conversation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GetTranscript:
    """Reply: Transcript."""

    conversation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    conversation: Conversation
    messages: tuple[Message, ...]
    """The shown path, oldest first; a running answer with all the text that was sent so far."""
    answering: str = ""
    """The id of the answer that is running, if one is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewConversation:
    """Reply: Conversation. `model` empty takes the node's."""

    model: str = ""
    title: str = ""
    system: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameConversation:
    """Reply: Conversation."""

    conversation: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteConversation:
    """Reply: Done. A running answer is stopped first."""

    conversation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SendMessage:
    """Ask and have it answered. Reply: Answering; then ChatDelta, ChatNotice, ChatFinished."""

    conversation: str
    text: str
    sampling: SamplingSettings = field(default_factory=SamplingSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """The question as stored, and the answer that has begun (empty text, end None)."""

    question: Message
    answer: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAnswer:
    """Stop the running answer of a conversation on every server. Reply: Done when they know."""

    conversation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartShare:
    """Share this computer; without a request, as it was asked for last.

    Reply: ShareStatus at once; ShareChanged as it goes on.
    """

    request: ShareRequest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StopShare:
    """Stop sharing; `drain` lets open answers finish first. Reply: ShareStatus."""

    drain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchModel:
    """Fetch a model's files; `blocks` None is all. Reply: ModelInfo; then ModelProgress events.

    `folder` empty keeps it in the data folder.
    """

    model: str
    folder: str = ""
    first_block: int | None = None
    end_block: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelFetch:
    """Stop a download; what is here stays for a later one. Reply: Done."""

    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportModel:
    """Import a GGUF file or a folder from this computer. Reply: ModelInfo; then ModelProgress."""

    path: str
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyModel:
    """Check every file's hash. Reply: ModelInfo when done; ModelProgress meanwhile."""

    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveModel:
    """Delete a model's files. Reply: Done."""

    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UseModel:
    """Make `model` the one that new chats and the share use. Reply: NodeStatus."""

    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSettings:
    """Keep what is given, for good. Reply: NodeStatus."""

    guess_ahead: bool | None = None
    exact: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateInvite:
    """Reply: Invitation. Opens the swarm to other computers if it was local."""

    hours: float = 168.0
    address: str = ""
    """A host name or IP to put into the code instead of the addresses found."""
    keep_in_file: bool = False
    """The user's consent to keep the swarm's secret in a file where there is no keyring."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    code: str
    expires_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinSwarm:
    """Leave the present swarm and join the code's. Reply: SwarmStatus once connected."""

    code: str
    keep_in_file: bool = False
    """As in CreateInvite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveSwarm:
    """Leave and begin a fresh swarm of this computer alone. Reply: SwarmStatus."""


Request = (
    Hello
    | GetStatus
    | Subscribe
    | StopNode
    | ListConversations
    | GetTranscript
    | NewConversation
    | RenameConversation
    | DeleteConversation
    | SendMessage
    | StopAnswer
    | StartShare
    | StopShare
    | FetchModel
    | CancelFetch
    | ImportModel
    | VerifyModel
    | RemoveModel
    | UseModel
    | ChangeSettings
    | CreateInvite
    | JoinSwarm
    | LeaveSwarm
)

Reply = (
    Welcome
    | Done
    | NodeStatus
    | ConversationList
    | Conversation
    | Transcript
    | Answering
    | ShareStatus
    | ModelInfo
    | Invitation
    | SwarmStatus
)


# --- events ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatDelta:
    """More text of an answer, and the figures so far."""

    conversation: str
    message: str
    text: str
    tokens: int
    tokens_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatNotice:
    """What happens to an answer, in words; `chain` names the servers it flows through.

    `hops` says more of the same servers; empty where they are those of before.
    """

    conversation: str
    message: str
    phase: ChatPhase
    words: str
    chain: tuple[str, ...] = ()
    hops: tuple[ChainHop, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFinished:
    """An answer ended; `answer` is as stored. `error` and `next_step` when it failed."""

    conversation: str
    answer: Message
    error: str = ""
    next_step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationChanged:
    """A conversation was made, renamed, answered or deleted."""

    conversation: Conversation
    deleted: bool = False
    initiator: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareChanged:
    status: ShareStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmChanged:
    status: SwarmStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProgress:
    """A download, import or verification; `total_bytes` 0 when not known."""

    model: str
    done_bytes: int
    total_bytes: int
    words: str
    finished: bool = False
    error: str = ""
    next_step: str = ""
    cancelled: bool = False
    """It did not fail: somebody did not want it any more. `error` says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsChanged:
    models: tuple[ModelInfo, ...]
    model: str
    """The model that chats use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsChanged:
    """As in NodeStatus."""

    guess_ahead: bool
    exact: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something the user should know that belongs to no one request."""

    level: NoticeLevel
    message: str
    next_step: str = ""


Event = (
    ChatDelta
    | ChatNotice
    | ChatFinished
    | ConversationChanged
    | ShareChanged
    | SwarmChanged
    | ModelProgress
    | ModelsChanged
    | SettingsChanged
    | Notice
)
