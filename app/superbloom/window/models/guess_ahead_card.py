"""The switch for a small model that guesses ahead."""

from __future__ import annotations

from superbloom.window.actions import Actions
from superbloom.window.store import Store
from superbloom.window.theme import Theme
from superbloom.window.widgets.setting_card import SettingCard

TITLE = "Use a small model on this computer to guess ahead"

EXPLANATION = (
    "While other computers work on an answer, a small model of the same family guesses its next "
    "words, and the large one checks several at once. The answers stay the same and come faster. "
    "It rests where it does not help. Nothing is downloaded for it: fetch a small model above."
)


def guess_ahead_card(store: Store, actions: Actions, theme: Theme) -> SettingCard:
    """The switch with its words."""
    words = (TITLE, EXPLANATION)
    return SettingCard(
        store, theme, words, value=lambda: store.guess_ahead, change=actions.guess_ahead
    )
