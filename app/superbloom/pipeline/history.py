"""What a server sent in a session, kept so that a replacement of the next server can be fed."""

from __future__ import annotations

from collections import Counter, OrderedDict

import torch
from torch import Tensor

HISTORY_BYTES = 256 * 1024 * 1024
"""The most one session keeps; beyond it a lost successor costs a new prefill."""

ALL_HISTORIES_BYTES = 1024 * 1024 * 1024
"""The most all sessions of a server keep together."""

OWNER_SHARE = 0.25
"""What one owner's sessions may keep of that when others need room; one session at least."""


class HistoryRoom:
    """The memory of all histories of a server. When it is full, the least recently written goes.

    An owner that has more than its share gives up its own first, so that nobody's many sessions
    cost the others theirs.
    """

    def __init__(self, limit_bytes: int = ALL_HISTORIES_BYTES) -> None:
        self._limit = limit_bytes
        self._held: OrderedDict[History, int] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """What is kept now, in bytes."""
        return sum(self._held.values())

    def grant(self, history: History, nbytes: int) -> bool:
        """Let `history` keep `nbytes`, at the expense of others; False if it is too much."""
        if nbytes > self._limit:
            return False
        self._held[history] = nbytes
        self.touch(history)
        while self.nbytes > self._limit:
            self._next_to_go(history).forget()
        return True

    def touch(self, history: History) -> None:
        """`history` is written to."""
        if history in self._held:
            self._held.move_to_end(history)

    def give_back(self, history: History) -> None:
        """`history` keeps nothing more."""
        self._held.pop(history, None)

    def _next_to_go(self, writing: History) -> History:
        """The history that makes room for the one that is being written."""
        by_owner: Counter[str] = Counter()
        for history, nbytes in self._held.items():
            by_owner[history.owner] += nbytes
        owner, most = max(by_owner.items(), key=lambda item: item[1])
        others = [history for history in self._held if history is not writing]
        own = [history for history in others if history.owner == owner]
        return own[0] if own and most > OWNER_SHARE * self._limit else others[0]


class History:
    """Hidden states of positions [0, tokens) as they were sent, in host memory.

    `owner` is whose session it is.
    """

    def __init__(
        self,
        room: HistoryRoom | None = None,
        owner: str = "",
        *,
        limit_bytes: int = HISTORY_BYTES,
    ) -> None:
        self.owner = owner
        self._room = room or HistoryRoom()
        self._limit = limit_bytes
        self._rows: Tensor | None = None
        self.tokens = 0
        self.gone = False

    def write(self, position: int, hidden: Tensor) -> None:
        """Keep `hidden` [n, hidden_size] at `position`, and nothing of what followed it."""
        if self.gone:
            return
        if position > self.tokens:
            self.forget()
            return
        end = position + int(hidden.shape[0])
        rows = self._reserve(end, hidden)
        if rows is None:
            self.forget()
            return
        rows[position:end] = hidden
        self.tokens = end
        self._room.touch(self)

    def read(self, start: int, end: int) -> Tensor:
        """A copy of positions [start, end): [end - start, hidden_size]."""
        assert self._rows is not None and end <= self.tokens
        return self._rows[start:end].clone()

    def holds(self, tokens: int) -> bool:
        """True if positions [0, tokens) can be read."""
        return not self.gone and self.tokens >= tokens

    def forget(self) -> None:
        """Give up what is kept, for good."""
        self._rows, self.tokens, self.gone = None, 0, True
        self._room.give_back(self)

    def _reserve(self, end: int, like: Tensor) -> Tensor | None:
        rows = self._rows
        if rows is not None and end <= rows.shape[0]:
            return rows
        columns = int(like.shape[1])
        capacity = max(256, end + end // 2)
        if capacity * columns * like.dtype.itemsize > self._limit:
            capacity = end
        nbytes = capacity * columns * like.dtype.itemsize
        if nbytes > self._limit or not self._room.grant(self, nbytes):
            return None
        grown = torch.empty(capacity, columns, dtype=like.dtype)
        if rows is not None:
            grown[: self.tokens] = rows[: self.tokens]
        self._rows = grown
        return grown
