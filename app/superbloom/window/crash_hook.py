"""An error nobody caught: logged in full, told to the user in a sentence."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import TracebackType

from superbloom.control.messages import NoticeLevel
from superbloom.domain.errors import SuperbloomError
from superbloom.window.errors import MessageBoard, UserMessage

logger = logging.getLogger(__name__)


class CrashHook:
    """In force from its making until `close`. Errors inside Qt's slots come here too."""

    def __init__(self, board: MessageBoard, log: Path) -> None:
        self._board = board
        self._log = log
        self._before = sys.excepthook
        sys.excepthook = self._caught

    def close(self) -> None:
        sys.excepthook = self._before

    def _caught(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            self._before(kind, error, trace)
            return
        logger.error("an error was not caught", exc_info=(kind, error, trace))
        if isinstance(error, SuperbloomError):
            self._board.report(error)
            return
        self._board.post(
            UserMessage(
                NoticeLevel.ERROR,
                f"Something went wrong in the window: {kind.__name__}.",
                f"You can go on. The log says more: {self._log}",
            )
        )
