"""Messages as JSON lines and back. Strict: what is odd is refused, never guessed at."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn, get_args

from superbloom.control.messages import Event, Reply, Request
from superbloom.domain.errors import ControlRefused, SuperbloomError, error_from_code
from superbloom.domain.record import NotARecord, from_plain, to_plain

MAX_LINE_BYTES = 32 * 1024 * 1024
"""The longest line, its newline included: the transcript of the longest conversation fits, see
`node.chats.chat`."""

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""The longest line that a node reads from a view."""

ERROR = "error"
"""The type of a line that carries a SuperbloomError."""

Message = Request | Reply | Event


@dataclass(frozen=True, slots=True)
class Line:
    """What a line said; `id` is the request's number, None for an event."""

    id: int | None
    message: Any


@dataclass(frozen=True, slots=True)
class Envelope:
    """A line whose message has not been looked into yet."""

    id: int | None
    type: str
    body: object


class LineCodec:
    """A set of message classes as JSON lines; a line's `type` is the class's name."""

    def __init__(self, classes: Iterable[type], *, requests: Iterable[type] = ()) -> None:
        """`requests` are those of the classes that must fit MAX_REQUEST_BYTES."""
        self._classes = {kind.__name__: kind for kind in classes}
        self._requests = frozenset(requests)

    def encode(self, message: object, id: int | None = None) -> bytes:
        """One line with its newline. A SuperbloomError becomes an error line.

        Raises ControlRefused for a class that is not of the set, a number that is not finite,
        text that is not valid Unicode, or a line over MAX_LINE_BYTES, a request's over
        MAX_REQUEST_BYTES.
        """
        if isinstance(message, SuperbloomError):
            name = ERROR
            body: object = {
                "code": message.code,
                "message": message.message,
                "next_step": message.next_step,
            }
        else:
            name = type(message).__name__
            if self._classes.get(name) is not type(message):
                raise ControlRefused(f"{name} is not a message of this wire.")
            body = to_plain(message)
        envelope = (
            {"type": name, "body": body} if id is None else {"id": id, "type": name, "body": body}
        )
        try:
            text = json.dumps(envelope, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            line = text.encode() + b"\n"
        except ValueError as error:
            raise ControlRefused(f"A {name} cannot be written as JSON: {error}.") from error
        longest = MAX_REQUEST_BYTES if type(message) in self._requests else MAX_LINE_BYTES
        if len(line) > longest:
            words = f"A {name} of {len(line)} bytes is too long for the wire."
            raise ControlRefused(words, "Shorten it and try again.")
        return line

    def open(self, line: bytes) -> Envelope:
        """Read a line's number and type only. Raises ControlRefused."""
        if len(line) > MAX_LINE_BYTES:
            raise ControlRefused(f"A line of {len(line)} bytes is too long for the wire.")
        try:
            plain = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ControlRefused(f"A line is not JSON: {error}.") from error
        if not isinstance(plain, dict) or not {"type", "body"} <= plain.keys() <= _KEYS:
            raise ControlRefused("A line must have a type, a body and perhaps an id.")
        number, name = plain.get("id"), plain["type"]
        if not isinstance(name, str):
            raise ControlRefused("A line's type must be text.")
        if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
            raise ControlRefused("A line's id must be a whole number.")
        return Envelope(number, name, plain["body"])

    def read(self, envelope: Envelope) -> Any:
        """The message in the envelope; an error line gives its SuperbloomError.

        Raises ControlRefused, or InputRejected where a value's own check says so.
        """
        if envelope.type == ERROR:
            return _read_error(envelope.body)
        kind = self._classes.get(envelope.type)
        if kind is None:
            raise ControlRefused(f"There is no message called {envelope.type[:80]!r}.")
        try:
            return from_plain(kind, envelope.body)
        except NotARecord as error:
            raise ControlRefused(f"A message is malformed: {error}.") from error

    def decode(self, line: bytes) -> Line:
        """`open` and `read` in one."""
        envelope = self.open(line)
        return Line(envelope.id, self.read(envelope))


_KEYS = {"id", "type", "body"}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _read_error(body: object) -> SuperbloomError:
    try:
        wire = from_plain(_WireError, body)
    except NotARecord as error:
        raise ControlRefused(f"An error line is malformed: {error}.") from error
    return error_from_code(wire.code, wire.message, wire.next_step)


@dataclass(frozen=True, slots=True)
class _WireError:
    code: str
    message: str
    next_step: str


CONTROL = LineCodec(get_args(Message), requests=get_args(Request))
encode = CONTROL.encode
decode = CONTROL.decode
