"""Where the message board's newest message is shown, with its next step."""

from __future__ import annotations

from PySide6.QtCore import QSize, QTimer
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from superbloom.control.messages import NoticeLevel
from superbloom.window.errors import MessageBoard, UserMessage
from superbloom.window.theme import Space, Theme
from superbloom.window.widgets.announce import announce
from superbloom.window.widgets.buttons import IconButton
from superbloom.window.widgets.labels import label, paragraph

NEWS_MILLISECONDS = 8000
"""News go by themselves; warnings and errors stay until they are dismissed."""

_COLORS = {
    NoticeLevel.INFO: "lupine",
    NoticeLevel.WARNING: "warning",
    NoticeLevel.ERROR: "error",
}


class MessageBar(QFrame):
    """Hidden while there is nothing to say."""

    def __init__(self, board: MessageBoard, theme: Theme) -> None:
        super().__init__()
        self._board = board
        self._theme = theme
        self._told: UserMessage | None = None
        self.setProperty("kind", "info")  # before the first polish: only then margins count
        self._icon = QLabel()
        self._sentence = label(bold=True)
        self._sentence.setWordWrap(True)
        self._step = paragraph(tone="")
        close = IconButton(theme, "close", "Dismiss the message", size=16)
        close.clicked.connect(board.dismiss)
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(self._sentence)
        words.addWidget(self._step)
        row = QHBoxLayout(self)
        row.setContentsMargins(Space.M, Space.S + 2, Space.S, Space.S + 2)
        row.setSpacing(Space.M)
        row.addWidget(self._icon)
        row.addLayout(words, 1)
        row.addWidget(close)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(board.dismiss)
        board.changed.connect(self._draw)
        theme.changed.connect(self._draw)
        self._draw()

    def _draw(self) -> None:
        message = self._board.newest
        self.setVisible(message is not None)
        self._timer.stop()
        self._announce(message)
        if message is None:
            return
        self._sentence.setText(message.sentence)
        self._step.setText(message.next_step)
        self._step.setVisible(bool(message.next_step))
        drawing = "info" if message.level is NoticeLevel.INFO else "warning"
        icon = self._theme.icon(drawing, _COLORS[message.level])
        self._icon.setPixmap(icon.pixmap(QSize(20, 20)))
        self._show_kind(self, message.level)
        if message.level is NoticeLevel.INFO:
            self._timer.start(NEWS_MILLISECONDS)

    def _announce(self, message: UserMessage | None) -> None:
        told, self._told = self._told, message
        if message is not None and message is not told:
            words = f"{message.sentence} {message.next_step}".strip()
            announce(self, words, at_once=message.level is not NoticeLevel.INFO)

    @staticmethod
    def _show_kind(widget: QWidget, level: NoticeLevel) -> None:
        if widget.property("kind") != level.value:
            widget.setProperty("kind", level.value)
            widget.style().polish(widget)
