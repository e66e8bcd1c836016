"""A dialog with a title, an explanation, one line for what happens, and buttons at its foot."""

from __future__ import annotations

from PySide6.QtWidgets import QDialog, QHBoxLayout, QPlainTextEdit, QVBoxLayout, QWidget

from superbloom.window.theme import Space, code_font
from superbloom.window.widgets.labels import label, paragraph, set_tone

WIDTH = 480
CODE_HEIGHT = 92


class Sheet(QDialog):
    """Put fields into `rows` and buttons into `foot`; grows with what is said."""

    def __init__(self, parent: QWidget, title: str, explanation: str) -> None:
        super().__init__(parent)
        self.setWindowTitle(title)
        self.setMinimumWidth(WIDTH)
        self.words = paragraph()
        self.words.hide()
        self.rows = QVBoxLayout()
        self.rows.setSpacing(Space.M)
        self.foot = QHBoxLayout()
        self.foot.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(Space.XL, Space.XL, Space.XL, Space.L)
        column.setSpacing(Space.M)
        column.addWidget(label(title, scale=1.3, bold=True))
        column.addWidget(paragraph(explanation))
        column.addLayout(self.rows)
        column.addWidget(self.words)
        column.addStretch(1)
        column.addLayout(self.foot)

    def say(self, words: str, tone: str = "muted") -> None:
        """Say what happens; empty says nothing."""
        self.words.setText(words)
        self.words.setVisible(bool(words))
        set_tone(self.words, tone)
        self.grow()

    def grow(self) -> None:
        """Take the height that the content needs at this width."""
        layout = self.layout()
        assert layout is not None
        layout.activate()
        needed = layout.totalHeightForWidth(self.width())
        self.setMinimumHeight(max(needed, layout.totalMinimumSize().height()))


def code_field() -> QPlainTextEdit:
    """Where an invite code stands."""
    field = QPlainTextEdit()
    field.setObjectName("field")
    field.setAccessibleName("Invite code")
    field.setTabChangesFocus(True)
    field.setFont(code_font(0.95))
    field.setFixedHeight(CODE_HEIGHT)
    return field
