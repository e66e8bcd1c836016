"""What stands in the chat pane before the first question: a greeting and some examples."""

from __future__ import annotations

from PySide6.QtCore import QRect, QSize, Qt, Signal
from PySide6.QtGui import QPaintEvent, QResizeEvent
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QStyle,
    QStyleOptionButton,
    QStylePainter,
    QVBoxLayout,
    QWidget,
)

from superbloom.window.icons import bloom_pixmap
from superbloom.window.theme import Space
from superbloom.window.widgets.labels import label, paragraph

EXAMPLES = (
    ("Explain", "Why is the sky blue? Explain it in three sentences."),
    ("Write", "Write a short poem about wildflowers after the rain."),
    ("Code", "Write a Python function that tells whether a word is a palindrome."),
)

BLOOM = 72
EXAMPLES_WIDTH = 600
ROOM_FOR_BLOOM = 400
"""Pixels of height; in less the words come first."""

LEAST_EXAMPLE = 160
_WRAPPED = int(
    Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextWordWrap
)


class Welcome(QScrollArea):
    """`chosen` carries an example's text."""

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._bloom = QLabel()
        self._bloom.setPixmap(bloom_pixmap(BLOOM, self.devicePixelRatio()))
        self._bloom.setAlignment(Qt.AlignmentFlag.AlignCenter)
        greeting = label("What would you like to ask?", scale=1.9, bold=True)
        self._model = paragraph()
        for words in (greeting, self._model):
            words.setAlignment(Qt.AlignmentFlag.AlignCenter)
            words.setWordWrap(True)
        body = QWidget()
        body.setObjectName("scrolled")
        rows = QVBoxLayout(body)
        rows.setContentsMargins(Space.XL, Space.S, Space.XL, Space.S)
        rows.setSpacing(Space.M)
        rows.addStretch(2)
        rows.addWidget(self._bloom)
        rows.addWidget(greeting)
        rows.addWidget(self._model)
        rows.addSpacing(Space.S)
        rows.addLayout(self._make_examples())
        rows.addStretch(3)
        self.setWidget(body)

    def show_model(self, words: str) -> None:
        """Which model will answer, and where."""
        self._model.setText(words)

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._bloom.setVisible(event.size().height() >= ROOM_FOR_BLOOM)
        super().resizeEvent(event)

    def _make_examples(self) -> QHBoxLayout:
        examples = QWidget()
        examples.setMaximumWidth(EXAMPLES_WIDTH)
        rows = QVBoxLayout(examples)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(Space.S)
        for kind, text in EXAMPLES:
            one = _Example(kind, text)
            one.clicked.connect(lambda _checked=False, text=text: self.chosen.emit(text))
            rows.addWidget(one)
        middle = QHBoxLayout()
        middle.addStretch(1)
        middle.addWidget(examples, 100)
        middle.addStretch(1)
        return middle


class _Example(QPushButton):
    """A button whose words go over several lines where there is no room for one."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.setProperty("kind", "prompt")
        self.setAccessibleName(f"{kind}: {text}")
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setAutoDefault(False)
        policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)

    def hasHeightForWidth(self) -> bool:
        return True

    def heightForWidth(self, width: int) -> int:
        room = QRect(0, 0, width - 2 * Space.L, 10_000)
        words = self.fontMetrics().boundingRect(room, _WRAPPED, self.text())
        return words.height() + 2 * Space.M

    def sizeHint(self) -> QSize:
        width = self.fontMetrics().horizontalAdvance(self.text()) + 1 + 2 * Space.L
        return QSize(width, self.heightForWidth(width))

    def minimumSizeHint(self) -> QSize:
        return QSize(LEAST_EXAMPLE, self.fontMetrics().height() + 2 * Space.M)

    def paintEvent(self, event: QPaintEvent) -> None:
        option = QStyleOptionButton()
        self.initStyleOption(option)
        option.text = ""
        painter = QStylePainter(self)
        painter.drawControl(QStyle.ControlElement.CE_PushButton, option)
        area = self.rect().adjusted(Space.L, Space.M, -Space.L, -Space.M)
        palette, role = self.palette(), self.foregroundRole()
        painter.drawItemText(area, _WRAPPED, palette, self.isEnabled(), self.text(), role)
