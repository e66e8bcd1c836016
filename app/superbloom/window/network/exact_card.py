"""The switch for prompts that are never rounded."""

from __future__ import annotations

from superbloom.window.actions import Actions
from superbloom.window.store import Store
from superbloom.window.theme import Theme
from superbloom.window.widgets.setting_card import SettingCard

TITLE = "Exact, also over slow lines"

EXPLANATION = (
    "Where a slow line holds up a long text, its numbers are rounded to 8 bits on their way, so "
    "that the answer begins up to twice as soon. That can change a word now and then. With this "
    "on, nothing is rounded. What is written as an answer never is."
)


def exact_card(store: Store, actions: Actions, theme: Theme) -> SettingCard:
    """The switch with its words."""
    words = (TITLE, EXPLANATION)
    return SettingCard(store, theme, words, value=lambda: store.exact, change=actions.exact)
