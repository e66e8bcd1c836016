"""Says how things stand with the node while they do not stand well."""

from __future__ import annotations

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QFrame, QHBoxLayout

from superbloom.window.node_keeper import Connection, NodeKeeper
from superbloom.window.theme import Space
from superbloom.window.widgets.announce import announce
from superbloom.window.widgets.buttons import button
from superbloom.window.widgets.labels import paragraph

PATIENCE_MILLISECONDS = 1500
"""A node that is there sooner is not worth a word."""

_WORDS = {
    Connection.LOOKING: "Looking for the node …",
    Connection.STARTING: "The node is starting …",
    Connection.GONE: "The node is gone.",
    Connection.REFUSED: "The node does not accept this window.",
}


class NodeBanner(QFrame):
    """Hidden while the window is connected."""

    def __init__(self, keeper: NodeKeeper) -> None:
        super().__init__()
        self._keeper = keeper
        self.setProperty("kind", "warning")
        self.words = paragraph(tone="")
        self._start = button("Start the node")
        self._start.clicked.connect(keeper.start_node)
        row = QHBoxLayout(self)
        row.setContentsMargins(Space.L, Space.S, Space.S, Space.S)
        row.addWidget(self.words, 1)
        row.addWidget(self._start)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._draw_now)
        keeper.changed.connect(self._draw)
        self.hide()
        self._timer.start(PATIENCE_MILLISECONDS)

    def _draw(self) -> None:
        state = self._keeper.state
        if state in (Connection.LOOKING, Connection.STARTING) and not self._keeper.problem:
            if self.isHidden() and not self._timer.isActive():
                self._timer.start(PATIENCE_MILLISECONDS)
            elif not self.isHidden():
                self._draw_now()
            return
        self._timer.stop()
        self._draw_now()

    def _draw_now(self) -> None:
        state, problem = self._keeper.state, self._keeper.problem
        self.setVisible(state is not Connection.CONNECTED)
        if state is Connection.CONNECTED:
            self.words.clear()
            return
        words = [_WORDS[state]]
        if problem is not None:
            words = [problem.message, problem.next_step]
            if state is Connection.STARTING:
                words.append("It is started again …")
        text = " ".join(part for part in words if part)
        if text != self.words.text():
            self.words.setText(text)
            announce(self, text, at_once=state is Connection.GONE)
        self._start.setVisible(state is Connection.GONE)
