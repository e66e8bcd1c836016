"""The switch for a small model that guesses ahead."""

from __future__ import annotations

from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout

from superbloom.window.actions import Actions
from superbloom.window.store import Store
from superbloom.window.theme import Space, Theme
from superbloom.window.widgets.card import Card
from superbloom.window.widgets.labels import label, paragraph
from superbloom.window.widgets.switch import Switch

TITLE = "Use a small model on this computer to guess ahead"

EXPLANATION = (
    "While other computers work on an answer, a small model of the same family guesses its next "
    "words, and the large one checks several at once. The answers stay the same and come faster. "
    "It rests where it does not help. Nothing is downloaded for it: fetch a small model above."
)


class GuessAheadCard(Card):
    """Draws the setting of the store."""

    def __init__(self, store: Store, actions: Actions, theme: Theme) -> None:
        super().__init__()
        self._store = store
        self.switch = Switch(theme, TITLE)
        self.switch.clicked.connect(actions.guess_ahead)
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(label(TITLE, bold=True))
        words.addWidget(paragraph(EXPLANATION))
        row = QHBoxLayout()
        row.setSpacing(Space.L)
        row.addWidget(self.switch)
        row.addLayout(words, 1)
        self.rows.addLayout(row)
        store.settings_changed.connect(self._draw)
        self._draw()

    def _draw(self) -> None:
        self.switch.setChecked(self._store.guess_ahead)
        self.switch.setEnabled(self._store.node is not None)
