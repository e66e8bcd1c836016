"""The message bar keeps its distance from its own edge, and is heard as well as seen."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QObject, QPoint
from pytestqt.qtbot import QtBot

from superbloom.control.messages import NoticeLevel
from superbloom.window.errors import MessageBoard, UserMessage
from superbloom.window.theme import DARK, Space, Theme
from superbloom.window.widgets import announce as announcing
from superbloom.window.widgets import message_bar
from superbloom.window.widgets.buttons import IconButton
from superbloom.window.widgets.message_bar import MessageBar

TROUBLE = UserMessage(NoticeLevel.ERROR, "It broke.", "Mend it.")
NEWS = UserMessage(NoticeLevel.INFO, "It is mended.")
MARGIN_ABOVE, MARGIN_BESIDE = 10, 16
"""Around the coloured box, from the style sheet."""


@pytest.fixture
def board(qtbot: QtBot) -> MessageBoard:
    return MessageBoard()


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    said: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        message_bar,
        "announce",
        lambda source, words, *, at_once: said.append((words, at_once)),
    )
    return said


@pytest.fixture
def bar(qtbot: QtBot, theme: Theme, board: MessageBoard) -> MessageBar:
    made = MessageBar(board, theme)
    qtbot.addWidget(made)
    return made


@pytest.mark.parametrize("message", [TROUBLE, NEWS])
def test_everything_lies_inside_the_coloured_box(
    bar: MessageBar, board: MessageBoard, message: UserMessage
) -> None:
    bar.resize(600, 10)
    board.post(message)
    bar.resize(600, bar.sizeHint().height())
    bar.grab()
    sentence = bar._sentence.mapTo(bar, QPoint(0, 0))
    assert sentence.y() >= MARGIN_ABOVE + Space.S
    assert bar._icon.mapTo(bar, QPoint(0, 0)).x() >= MARGIN_BESIDE + Space.M
    close = bar.findChild(IconButton)
    right = close.mapTo(bar, QPoint(close.width(), 0)).x()
    assert right <= bar.width() - MARGIN_BESIDE - Space.S
    board.dismiss()


def test_a_message_is_said_once(
    bar: MessageBar, board: MessageBoard, theme: Theme, heard: list[tuple[str, bool]]
) -> None:
    board.post(TROUBLE)
    theme.use(DARK)
    board.post(NEWS)
    assert heard == [("It broke. Mend it.", True), ("It is mended.", False)]
    board.dismiss()
    board.dismiss()


def test_an_announcement_reaches_the_accessibility_bridge(
    bar: MessageBar, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[QObject, str]] = []
    monkeypatch.setattr(
        announcing.QAccessible,
        "updateAccessibility",
        lambda event: said.append((event.object(), event.message())),
    )
    announcing.announce(bar, "")
    announcing.announce(bar, "Hear this.", at_once=True)
    assert said == [(bar, "Hear this.")]
