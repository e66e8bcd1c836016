"""The one place where failures and news reach the user: a board that any part may write on."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

from PySide6.QtCore import QObject, Signal

from superbloom.control.messages import NoticeLevel
from superbloom.domain.errors import SuperbloomError

logger = logging.getLogger(__name__)

KEPT = 50
"""As many messages wait for a reader at most; older ones are in the log."""

_LOG_LEVELS = {
    NoticeLevel.INFO: logging.INFO,
    NoticeLevel.WARNING: logging.WARNING,
    NoticeLevel.ERROR: logging.ERROR,
}


@dataclass(frozen=True, slots=True)
class UserMessage:
    """What happened, and what to do about it."""

    level: NoticeLevel
    sentence: str
    next_step: str = ""


class MessageBoard(QObject):
    """Keeps messages, newest last, until they are dismissed; exists before any window does."""

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._messages: deque[UserMessage] = deque(maxlen=KEPT)

    @property
    def newest(self) -> UserMessage | None:
        return self._messages[-1] if self._messages else None

    @property
    def count(self) -> int:
        return len(self._messages)

    def report(self, error: SuperbloomError) -> None:
        """Show a failure."""
        self.post(UserMessage(NoticeLevel.ERROR, error.message, error.next_step))

    def post(self, message: UserMessage) -> None:
        """Show a message; one that is shown already goes to the front instead of twice."""
        logger.log(_LOG_LEVELS[message.level], "%s %s", message.sentence, message.next_step)
        if message in self._messages:
            self._messages.remove(message)
        self._messages.append(message)
        self.changed.emit()

    def dismiss(self) -> None:
        """Take the newest message away."""
        if self._messages:
            self._messages.pop()
            self.changed.emit()
