"""What stands in the chat pane before the first question: a greeting and some examples."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from superbloom.window.icons import bloom_pixmap
from superbloom.window.theme import Space
from superbloom.window.widgets.buttons import button
from superbloom.window.widgets.labels import label, paragraph

EXAMPLES = (
    ("Explain", "Why is the sky blue? Explain it in three sentences."),
    ("Write", "Write a short poem about wildflowers after the rain."),
    ("Code", "Write a Python function that tells whether a word is a palindrome."),
)

BLOOM = 72


class Welcome(QWidget):
    """`chosen` carries an example's text."""

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        bloom = QLabel()
        bloom.setPixmap(bloom_pixmap(BLOOM, self.devicePixelRatio()))
        bloom.setAlignment(Qt.AlignmentFlag.AlignCenter)
        greeting = label("What would you like to ask?", scale=1.9, bold=True)
        greeting.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._model = paragraph()
        self._model.setAlignment(Qt.AlignmentFlag.AlignCenter)
        examples = QVBoxLayout()
        examples.setSpacing(Space.S)
        for kind, text in EXAMPLES:
            one = button(text, kind="prompt", name=f"{kind}: {text}")
            one.clicked.connect(lambda _checked=False, text=text: self.chosen.emit(text))
            examples.addWidget(one)
        middle = QHBoxLayout()
        middle.addStretch(1)
        middle.addLayout(examples, 8)
        middle.addStretch(1)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(Space.XL, Space.XL, Space.XL, Space.XL)
        rows.setSpacing(Space.M)
        rows.addStretch(2)
        rows.addWidget(bloom)
        rows.addWidget(greeting)
        rows.addWidget(self._model)
        rows.addSpacing(Space.M)
        rows.addLayout(middle)
        rows.addStretch(3)

    def show_model(self, words: str) -> None:
        """Which model will answer, and where."""
        self._model.setText(words)
