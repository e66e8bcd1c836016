"""One window a data folder: a second start raises the first one, or waits for its end."""

from __future__ import annotations

import sys
import zlib
from enum import StrEnum
from pathlib import Path

from PySide6.QtCore import QObject, Signal
from PySide6.QtNetwork import QLocalServer, QLocalSocket

PATH_LIMIT = 100
"""Unix sockets have short names; a longer path is replaced by its hash."""

ANSWER_MILLISECONDS = 2000


class Answer(StrEnum):
    """What a window says to a second start."""

    SHOWN = "shown"
    ENDING = "ending"
    """It is quitting, and gives the folder back soon."""
    NONE = "none"
    """Nobody answers: it is only starting, has just ended, or hangs."""


class SingleInstance(QObject):
    """The first window's ear. Listen only while holding the folder's window lock."""

    asked = Signal()
    """Somebody has started the program again."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__()
        self.ending = False
        """Set while the program quits: a second start is told to wait."""
        self._server = QLocalServer(self)
        self._server.setSocketOptions(QLocalServer.SocketOption.UserAccessOption)
        self._server.newConnection.connect(self._welcome)
        name = socket_name(data_dir)
        QLocalServer.removeServer(name)  # what a killed window left behind
        self.listening = self._server.listen(name)

    def close(self) -> None:
        self._server.close()

    def _welcome(self) -> None:
        while (caller := self._server.nextPendingConnection()) is not None:
            caller.disconnected.connect(caller.deleteLater)
            caller.write((Answer.ENDING if self.ending else Answer.SHOWN).encode())
            caller.flush()  # it ends the connection once it has read that
            if not self.ending:
                self.asked.emit()


def raise_first(data_dir: Path) -> Answer:
    """Ask the window that runs on `data_dir` to show itself."""
    socket = QLocalSocket()
    socket.connectToServer(socket_name(data_dir))
    if not socket.waitForConnected(ANSWER_MILLISECONDS):
        return Answer.NONE
    if not socket.bytesAvailable():
        socket.waitForReadyRead(ANSWER_MILLISECONDS)
    said = bytes(socket.readAll().data()).decode(errors="replace")
    socket.abort()
    return Answer(said) if said in tuple(Answer) else Answer.NONE


def socket_name(data_dir: Path) -> str:
    """In the data folder where its path is short enough, else by a hash of it."""
    path = str(data_dir / "window.socket")
    if sys.platform != "win32" and len(path.encode()) <= PATH_LIMIT:
        return path
    return f"superbloom-{zlib.crc32(str(data_dir).encode()):08x}"
