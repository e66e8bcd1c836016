"""What client and servers of one session say to each other, and its bytes.

A frame is one kind byte and a body: `Step` and `Result` are packed (they are sent per token), all
others are JSON of their fields. Streams belong to one session, so frames do not name it.

    client -> server   Open, Step, NewEpoch, Reroute, Probe, Park, Resume, Close
    server -> client   Opened, Result, EpochBegun, Rerouted, Progress, Resumed, NextLost, Refused,
                       Draining, Closed, Arrived
    server -> next     Push (first), Step
    next -> server     Arrived
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from superbloom.domain.errors import ProtocolViolation
from superbloom.domain.speculation import WINDOW_TOKENS
from superbloom.pipeline.message_fields import decode_fields, encode_fields
from superbloom.pipeline.tensor_codec import (
    decode_hidden,
    encode_compact,
    encode_hidden,
    is_compact,
)

SESSION_SERVICE = "session"
PUSH_SERVICE = "push"
PROTOCOL = 2

CHUNK_TOKENS = 256
"""Prompts and replays go in steps of so many tokens."""

MAX_STEP_TOKENS = 2 * CHUNK_TOKENS
"""The longest step a server takes, in tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Open `session` (32 hex digits) on blocks [start, end) with room for `max_tokens` positions.

    Every server of a chain has its own session. `next` is the peer that gets this server's output
    (into `next_session`), empty for the last server, whose output goes to the client. `previous`
    is the peer that pushes steps, empty for the client itself. Replayed steps go to `next` only if
    `passes_replay`. Long steps may be compact if the client `allows_compact` ones. `tag` proves
    membership of the swarm.
    """

    session: str
    model: str
    fingerprint: str
    start: int
    end: int
    max_tokens: int
    epoch: int
    next: str
    next_session: str
    previous: str
    passes_replay: bool
    allows_compact: bool
    tag: str
    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The session is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEpoch:
    """Forget steps of other epochs; positions from `position` on will be sent again."""

    epoch: int
    position: int
    previous: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochBegun:
    """The reply to NewEpoch."""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reroute:
    """Send output to `next` from now on, beginning with a replay of positions [0, replay)."""

    epoch: int
    next: str
    next_session: str
    replay: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerouted:
    """The reply to Reroute; `replayed` is False when the history is no longer there."""

    epoch: int
    replayed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """How far are you? Asked when an answer is overdue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Positions received and positions computed and passed on, in the present epoch."""

    epoch: int
    received: int
    sent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Park:
    """The session is kept for a next turn; its place may be given to others.

    What is under way is not computed any more.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """A parked session goes on, with room for `max_tokens` positions."""

    epoch: int
    position: int
    max_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """The reply to Resume; `granted` is False where there is no such room."""

    granted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NextLost:
    """The next server cannot be reached from here."""

    epoch: int
    peer: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The session ends here; `blame` names the peer whose data was bad, if it was that."""

    code: str
    message: str
    next_step: str
    blame: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """This server will leave; move the session when there is another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The client is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The reply to Close: nothing of this session runs any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """The reply to each long step, where they may be compact: how quickly it came in."""

    bytes_per_second: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """The first frame of a stream from the previous server."""

    session: str
    tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Hidden states [tokens, hidden_size] for positions `position` and on.

    The last server returns the last `keep` rows of its output. A `replay` only fills caches. The
    first step of a newer epoch begins it at every server that it comes to: what they have queued of
    older ones is dropped, and what they hold from its position on is written over. A `compact` step
    is a long one that travels in 8 bits.
    """

    epoch: int
    position: int
    keep: int
    replay: bool
    hidden: Tensor
    compact: bool = False

    @property
    def end(self) -> int:
        """The position after the last."""
        return self.position + int(self.hidden.shape[0])

    @property
    def is_long(self) -> bool:
        """True for those of prompts and replays, false for those of an answer being written."""
        return int(self.hidden.shape[0]) > WINDOW_TOKENS


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Positions [position, end) went through the whole chain; `hidden` is [keep, hidden_size]."""

    epoch: int
    position: int
    end: int
    hidden: Tensor


Frame = (
    Open
    | Opened
    | NewEpoch
    | EpochBegun
    | Reroute
    | Rerouted
    | Probe
    | Progress
    | Park
    | Resume
    | Resumed
    | NextLost
    | Refused
    | Draining
    | Close
    | Closed
    | Arrived
    | Push
    | Step
    | Result
)

_STEP_KIND = 1
_RESULT_KIND = 2
_STEP = struct.Struct("<BIIIIB")
_RESULT = struct.Struct("<BIIII")
_JSON_KINDS: dict[int, type[Any]] = {
    16: Open,
    17: Opened,
    18: NewEpoch,
    19: EpochBegun,
    20: Reroute,
    21: Rerouted,
    22: Probe,
    23: Progress,
    24: NextLost,
    25: Refused,
    26: Draining,
    27: Close,
    28: Closed,
    29: Push,
    30: Park,
    31: Resume,
    32: Resumed,
    33: Arrived,
}
_KIND_OF = {cls: kind for kind, cls in _JSON_KINDS.items()}


def encode_frame(frame: Frame) -> bytes:
    """The bytes of a frame."""
    if isinstance(frame, Step):
        head = _STEP.pack(
            _STEP_KIND,
            frame.epoch,
            frame.position,
            int(frame.hidden.shape[0]),
            frame.keep,
            frame.replay,
        )
        encode = encode_compact if frame.compact else encode_hidden
        return head + encode(frame.hidden)
    if isinstance(frame, Result):
        rows = int(frame.hidden.shape[0])
        head = _RESULT.pack(_RESULT_KIND, frame.epoch, frame.position, frame.end, rows)
        return head + encode_hidden(frame.hidden)
    return bytes([_KIND_OF[type(frame)]]) + encode_fields(frame)


def decode_frame(data: bytes, *, hidden_size: int) -> Frame:
    """The frame in `data`, checked; raises ProtocolViolation on anything else."""
    if not data:
        raise ProtocolViolation("A peer sent an empty frame.")
    kind = data[0]
    if kind == _STEP_KIND:
        return _decode_step(data, hidden_size)
    if kind == _RESULT_KIND:
        return _decode_result(data, hidden_size)
    cls = _JSON_KINDS.get(kind)
    if cls is None:
        raise ProtocolViolation(f"A peer sent a frame of unknown kind {kind}.")
    frame: Frame = decode_fields(cls, data[1:])
    return frame


def _decode_step(data: bytes, hidden_size: int) -> Step:
    if len(data) < _STEP.size:
        raise ProtocolViolation("A peer sent a step that is cut short.")
    _, epoch, position, tokens, keep, replay = _STEP.unpack_from(data)
    if not 1 <= tokens <= MAX_STEP_TOKENS or keep > tokens or replay > 1:
        raise ProtocolViolation(f"A peer sent a step of {tokens} tokens that keeps {keep}.")
    body = memoryview(data)[_STEP.size :]
    step = Step(
        epoch=epoch,
        position=position,
        keep=keep,
        replay=bool(replay),
        hidden=decode_hidden(body, rows=tokens, columns=hidden_size, may_be_compact=True),
        compact=is_compact(body),
    )
    if step.compact and not step.is_long:
        raise ProtocolViolation(f"A peer sent a step of {tokens} tokens in 8 bits.")
    return step


def _decode_result(data: bytes, hidden_size: int) -> Result:
    if len(data) < _RESULT.size:
        raise ProtocolViolation("A peer sent a result that is cut short.")
    _, epoch, position, end, rows = _RESULT.unpack_from(data)
    if not position < end <= position + MAX_STEP_TOKENS or rows > end - position:
        raise ProtocolViolation("A peer sent a result whose positions make no sense.")
    hidden = decode_hidden(memoryview(data)[_RESULT.size :], rows=rows, columns=hidden_size)
    return Result(epoch=epoch, position=position, end=end, hidden=hidden)
