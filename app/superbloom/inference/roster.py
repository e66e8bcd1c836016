"""The open sessions: by name, and by owner in the order in which they get their turns."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field

from superbloom.inference.step_queue import Session


@dataclass(slots=True)
class Line:
    """One owner's sessions, the one that has had no turn for longest first."""

    sessions: OrderedDict[Session, None] = field(default_factory=OrderedDict)
    turn_at: float = -math.inf
    """When the last tick with a step of them began, in monotonic seconds."""


class Roster:
    """Sessions in lines, one for each owner; the line whose prompts had no turn for longest first.

    Whoever comes anew is the last, so that nobody gains by leaving and coming back.
    """

    def __init__(self) -> None:
        self._sessions: dict[bytes, Session] = {}
        self._lines: OrderedDict[str, Line] = OrderedDict()

    @property
    def sessions(self) -> Collection[Session]:
        """All of them."""
        return self._sessions.values()

    @property
    def lines(self) -> Collection[Line]:
        """Those of all owners; none is empty."""
        return self._lines.values()

    def get(self, name: bytes) -> Session | None:
        """The session called so, if it is open."""
        return self._sessions.get(name)

    def add(self, name: bytes, session: Session) -> None:
        """Put a session at the end of its owner's line."""
        self._sessions[name] = session
        self._lines.setdefault(session.owner, Line()).sessions[session] = None

    def remove(self, name: bytes) -> Session | None:
        """Take a session out; None if it is not open."""
        session = self._sessions.pop(name, None)
        if session is not None:
            line = self._lines[session.owner].sessions
            del line[session]
            if not line:
                del self._lines[session.owner]
        return session

    def clear(self) -> None:
        """Take all out."""
        self._sessions.clear()
        self._lines.clear()

    def has_turn(self, session: Session, *, prompt: bool, now: float) -> None:
        """A tick that begins `now` takes of it: the session goes to the end of its line.

        With a chunk of a prompt the line goes to the end as well.
        """
        line = self._lines[session.owner]
        line.sessions.move_to_end(session)
        line.turn_at = now
        if prompt:
            self._lines.move_to_end(session.owner)
