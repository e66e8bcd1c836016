"""What is still missing before a question can be answered, with how far it is."""

from __future__ import annotations

from PySide6.QtWidgets import QFrame, QHBoxLayout, QProgressBar, QVBoxLayout

from superbloom.window.chat.readiness import Readiness
from superbloom.window.theme import Space
from superbloom.window.widgets.labels import ElidedLabel, label, paragraph

STEPS = 1000


class Preparation(QFrame):
    """Hidden when everything is ready."""

    def __init__(self) -> None:
        super().__init__()
        self.setProperty("kind", "card")
        self.words = label(bold=True)
        self.words.setWordWrap(True)
        self._detail = ElidedLabel(tone="muted")
        self._hint = paragraph(scale=0.92)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        self.bar.setAccessibleName("Progress")
        head = QHBoxLayout()
        head.addWidget(self.words, 1)
        head.addWidget(self._detail)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(Space.L, Space.M, Space.L, Space.M)
        rows.setSpacing(Space.S)
        rows.addLayout(head)
        rows.addWidget(self.bar)
        rows.addWidget(self._hint)

    def show_readiness(self, now: Readiness) -> None:
        """Draw what is missing."""
        self.setVisible(not now.ready)
        self.words.setText(now.words)
        short = now.working
        self._detail.setText(now.detail)
        self._detail.setVisible(short and bool(now.detail))
        self._hint.setText(
            "You can write already: your question is answered as soon as the model is here."
            if short
            else now.detail
        )
        self.bar.setVisible(now.working)
        if now.part is None:
            self.bar.setRange(0, 0)
        else:
            self.bar.setRange(0, STEPS)
            self.bar.setValue(round(STEPS * now.part))
