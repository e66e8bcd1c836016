"""Keeps a node at the link's other end: finds it, starts it, comes back to it."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path

from PySide6.QtCore import QObject, QTimer, Signal

from superbloom.control.address import CONTROL_FILE, read_address
from superbloom.control.messages import StopNode
from superbloom.domain.errors import ControlRefused, NodeUnreachable, SuperbloomError
from superbloom.window.link import Link
from superbloom.window.node_process import NodeProcess

LOOK_MILLISECONDS = 50
START_SECONDS = 60.0
BACK_OFF = (0.2, 1.0, 2.0, 5.0, 15.0)
"""Seconds between tries; the last one repeats."""

CRASHES = 4
"""A node of ours that dies as often without having answered is not started again by itself."""

STEADY_SECONDS = 20.0
"""A connection that lasted as long forgets the failures before it."""

END_SECONDS = 15.0
"""So long may a node take to end before it is ended by force."""


class Connection(StrEnum):
    """How things stand with the node."""

    LOOKING = "looking"
    STARTING = "starting"
    CONNECTED = "connected"
    GONE = "gone"
    """It went away; it is looked for, and started only when the user says so."""
    REFUSED = "refused"
    """It is there and does not want us."""


class NodeKeeper(QObject):
    """Runs from `begin` on. A node that was there before stays when the window quits."""

    changed = Signal()
    ended = Signal()
    """After `end`: nothing of ours is left."""

    def __init__(self, data_dir: Path, link: Link, process: NodeProcess) -> None:
        super().__init__()
        self.state = Connection.LOOKING
        self.problem: SuperbloomError | None = None
        self._file = data_dir / CONTROL_FILE
        self._link = link
        self._process = process
        self._tries = 0
        self._crashes = 0
        self._may_start = True
        self._ending = False
        self._deadline = 0.0
        self._opened_at = 0.0
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._look)
        link.opened.connect(self._opened)
        link.closed.connect(self._closed)

    def begin(self) -> None:
        """Look for a node, and start one if there is none."""
        self._look()

    def start_node(self) -> None:
        """The user wants a node now."""
        self._may_start, self._crashes, self._tries = True, 0, 0
        self._set(Connection.LOOKING)
        self._look()

    def end(self) -> None:
        """Stop the node if this window started it; `ended` follows."""
        if self._ending:
            return
        self._ending = True
        self._timer.stop()
        if self._process.running and self._link.is_open:
            self._link.ask(StopNode(), lambda reply: None, lambda error: None)
        elif self._process.running:
            self._process.terminate()
        self._deadline = time.monotonic() + END_SECONDS
        self._timer.timeout.disconnect(self._look)
        self._timer.timeout.connect(self._see_off)
        self._timer.start(0)

    def end_at_once(self) -> None:
        """The user does not want to wait for the node to end."""
        self._process.kill()

    def _look(self) -> None:
        if self._process.started and not self._process.running:
            self._bury()
            if self._timer.isActive():
                return
        address = read_address(self._file)
        if address is None:
            self._nobody()
        else:
            self._link.open(address)

    def _opened(self) -> None:
        self._opened_at = time.monotonic()
        self._set(Connection.CONNECTED)

    def _closed(self, error: SuperbloomError) -> None:
        if self._ending:
            return
        if isinstance(error, ControlRefused):
            self._set(Connection.REFUSED, error)
            self._again()
        elif self.state is Connection.CONNECTED:
            if time.monotonic() > self._opened_at + STEADY_SECONDS:
                self._tries = self._crashes = 0
            self._may_start = self._process.started
            self._set(Connection.GONE, NodeUnreachable("The node has ended.", ""))
            self._again()
        else:
            self._nobody()

    def _nobody(self) -> None:
        """No node answers: start one, or wait for the one that is starting."""
        if self._process.running:
            if time.monotonic() > self._deadline:
                slow = NodeUnreachable("The node takes very long to start.", "The log may say why.")
                self._set(Connection.STARTING, slow)
            self._timer.start(LOOK_MILLISECONDS)
        elif self._may_start:
            self._start()
        else:
            if self.state is not Connection.GONE:
                self._set(Connection.GONE, self.problem)
            self._again()

    def _start(self) -> None:
        try:
            self._process.start()
        except NodeUnreachable as error:
            self._may_start = False
            self._set(Connection.GONE, error)
            self._again()
            return
        self._deadline = time.monotonic() + START_SECONDS
        self._set(Connection.STARTING, self.problem)
        self._timer.start(LOOK_MILLISECONDS)

    def _bury(self) -> None:
        """Our node has ended: note why, and whether it may be started again."""
        well = self._process.ended_well
        words = self._process.last_words()
        self._process.forget()
        if words is None:
            return
        if well:
            self._may_start = False
            self._set(Connection.GONE, NodeUnreachable("The node was ended.", ""))
            return
        self._crashes += 1
        self._may_start = self._crashes < CRASHES
        self._set(Connection.GONE, words)
        self._again()

    def _again(self) -> None:
        self._timer.start(round(1000 * BACK_OFF[min(self._tries, len(BACK_OFF) - 1)]))
        self._tries += 1

    def _see_off(self) -> None:
        if not self._process.running:
            self._link.close()
            self.ended.emit()
            return
        if time.monotonic() > self._deadline:
            self._process.kill()
        elif not self._link.is_open:
            self._process.terminate()
        self._timer.start(LOOK_MILLISECONDS)

    def _set(self, state: Connection, problem: SuperbloomError | None = None) -> None:
        self.state, self.problem = state, problem
        self.changed.emit()
