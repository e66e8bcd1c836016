"""One connection to the node: requests with their replies, and events, on a Qt socket."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtNetwork import QAbstractSocket, QNetworkProxy, QTcpSocket

from superbloom.control.address import NodeAddress
from superbloom.control.codec import MAX_LINE_BYTES, decode, encode
from superbloom.control.messages import Done, Hello, Request, Subscribe, Welcome
from superbloom.domain.errors import ControlRefused, NodeUnreachable, SuperbloomError

logger = logging.getLogger(__name__)

Receive = Callable[[Any], None]
Fail = Callable[[SuperbloomError], None]

OPEN_SECONDS = 5.0
REPLY_SECONDS = 30.0
CHECK_MILLISECONDS = 500
BURST_LINES = 200
"""So many lines are read before the window may draw and hear the user again."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    receive: Receive
    fail: Fail
    deadline: float


class Link(QObject):
    """Opened with an address; `opened` follows, or `closed` with the reason.

    Events arrive from `opened` on: the link subscribes by itself.
    """

    opened = Signal()
    closed = Signal(object)
    """A SuperbloomError: why there is no connection any more, or none came about."""
    told = Signal(object)
    """An event of control.messages."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.name = ""
        """What events give as the initiator of what this link asked for."""
        self.is_open = False
        self._socket: QTcpSocket | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._token = ""
        self._clock = QTimer(self)
        self._clock.setInterval(CHECK_MILLISECONDS)
        self._clock.timeout.connect(self._check_deadlines)

    def open(self, address: NodeAddress) -> None:
        """Connect to a node; an earlier connection ends without a word."""
        self._drop()
        self._token = address.token
        socket = QTcpSocket(self)
        socket.setProxy(QNetworkProxy(QNetworkProxy.ProxyType.NoProxy))
        socket.setReadBufferSize(2 * MAX_LINE_BYTES)
        socket.connected.connect(self._greet)
        socket.readyRead.connect(self._read)
        socket.disconnected.connect(self._broke_off)
        socket.errorOccurred.connect(self._broke_off)
        self._socket = socket
        self._wait(0, lambda reply: None, self._close, OPEN_SECONDS)
        socket.connectToHost("127.0.0.1", address.port)

    def ask(
        self,
        request: Request,
        receive: Receive,
        fail: Fail,
        timeout: float = REPLY_SECONDS,
    ) -> None:
        """Send a request; exactly one of `receive` and `fail` is called, never before this returns.

        `timeout` is in seconds.
        """
        number = next(self._numbers)
        self._wait(number, receive, fail, timeout)
        if not self.is_open:
            self._fail_soon(number, NodeUnreachable("The node is not there.", "Wait a moment."))
            return
        try:
            line = encode(request, number)
        except ControlRefused as error:
            self._fail_soon(number, error)
            return
        self._write(line)

    def close(self) -> None:
        """End the connection; what waits for a reply is told so. `closed` is not emitted."""
        self._drop()

    def _greet(self) -> None:
        self._write(encode(Hello(token=self._token, client="window"), 0))

    def _welcomed(self, welcome: Welcome) -> None:
        self.name = welcome.client
        self.is_open = True
        self.ask(Subscribe(), self._subscribed, self._close)

    def _subscribed(self, reply: Done) -> None:
        self.opened.emit()

    def _read(self) -> None:
        socket = self._socket
        lines = 0
        while socket is not None and socket is self._socket and socket.canReadLine():
            if lines == BURST_LINES:
                QTimer.singleShot(0, self, self._read)
                return
            lines += 1
            self._take(bytes(socket.readLine(MAX_LINE_BYTES + 1).data()))
        waits = socket.bytesAvailable() if socket is not None and socket is self._socket else 0
        if waits > MAX_LINE_BYTES:
            self._close(ControlRefused("The node sent a line that is too long."))

    def _take(self, line: bytes) -> None:
        try:
            told = decode(line)
        except SuperbloomError as error:
            self._close(error)
            return
        if told.id is None:
            if isinstance(told.message, SuperbloomError):
                self._close(told.message)
            else:
                self.told.emit(told.message)
            return
        waiting = self._waiting.pop(told.id, None)
        if waiting is None:
            return
        if isinstance(told.message, SuperbloomError):
            waiting.fail(told.message)
        elif isinstance(told.message, Welcome):
            self._welcomed(told.message)
        else:
            waiting.receive(told.message)

    def _write(self, line: bytes) -> None:
        if self._socket is not None:
            self._socket.write(line)

    def _wait(self, number: int, receive: Receive, fail: Fail, timeout: float) -> None:
        self._waiting[number] = _Waiting(receive, fail, time.monotonic() + timeout)
        if not self._clock.isActive():
            self._clock.start()

    def _fail_soon(self, number: int, error: SuperbloomError) -> None:
        def fail() -> None:
            waiting = self._waiting.pop(number, None)
            if waiting is not None:
                waiting.fail(error)

        QTimer.singleShot(0, self, fail)

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        for number, waiting in tuple(self._waiting.items()):
            if waiting.deadline < now and self._waiting.pop(number, None) is not None:
                waiting.fail(
                    NodeUnreachable("The node does not answer.", "Wait a moment and try again.")
                )
        if not self._waiting:
            self._clock.stop()

    def _broke_off(self, reason: object = None) -> None:
        # what came before the end still counts: a refusal is followed by the end at once
        self._read()
        refused = reason is QAbstractSocket.SocketError.ConnectionRefusedError
        words = "No node answers." if refused else "The connection to the node broke off."
        self._close(NodeUnreachable(words, ""))

    def _close(self, error: SuperbloomError) -> None:
        if self._socket is None:
            return
        logger.info("the link closed: %s", error.message)
        self._drop()
        self.closed.emit(error)

    def _drop(self) -> None:
        socket, self._socket = self._socket, None
        self.is_open = False
        waiting = [one for number, one in self._waiting.items() if number]
        self._waiting.clear()
        self._clock.stop()
        if socket is not None:
            socket.blockSignals(True)
            socket.abort()
            socket.deleteLater()
        for one in waiting:
            one.fail(NodeUnreachable("The connection to the node broke off.", "Try it again."))
