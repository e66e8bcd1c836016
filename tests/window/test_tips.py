"""Tooltips show the words of models and peers as they are: nothing in them is rich text."""

from __future__ import annotations

import pytest
from PySide6 import QtGui
from PySide6.QtCore import QEvent, QPoint, Qt
from PySide6.QtGui import QHelpEvent, QTextDocument
from PySide6.QtWidgets import QApplication, QToolTip
from pytestqt.qtbot import QtBot

from superbloom.window.chat.prose_view import ProseView
from superbloom.window.theme import Theme
from superbloom.window.widgets.block_bar import BlockBar, BlockHolders
from superbloom.window.widgets.buttons import IconButton
from superbloom.window.widgets.confirm import confirm
from superbloom.window.widgets.labels import ElidedLabel
from superbloom.window.widgets.tips import plain_tip

HOSTILE = '<img src="file:///etc/hostname"> & more'


def shown(tip: str) -> str:
    """What a reader sees of a tooltip."""
    assert QtGui.Qt.mightBeRichText(tip)
    document = QTextDocument()
    document.setHtml(tip)
    return document.toPlainText()


@pytest.mark.parametrize("text", ["plain", HOSTILE, "a &lt; b", "two\nlines"])
def test_a_tip_shows_its_text(text: str) -> None:
    assert shown(plain_tip(text)) == text
    assert "<img" not in plain_tip(text)


def test_no_text_is_no_tip() -> None:
    assert plain_tip("") == ""


def test_a_link_names_its_address_and_loads_nothing(qtbot: QtBot, theme: Theme) -> None:
    view = ProseView(theme, "Answer")
    qtbot.addWidget(view)
    view.show_markdown(r'[x](<\<img src="file:///etc/hostname"\>> "<b>title</b>")')
    tips = []
    block = view.document().begin()
    iterator = block.begin()
    while not iterator.atEnd():
        tips.append(iterator.fragment().charFormat().toolTip())
        iterator += 1
    assert [shown(tip) for tip in tips] == ['<img src="file:///etc/hostname">']
    assert "<img" not in tips[0]


def test_a_cut_name_stands_in_the_tip(qtbot: QtBot) -> None:
    name = ElidedLabel(HOSTILE)
    qtbot.addWidget(name)
    name.resize(40, 20)
    name.grab()
    assert shown(name.toolTip()) == HOSTILE
    name.resize(name.sizeHint())
    name.grab()
    assert name.toolTip() == ""


def test_a_button_is_named_by_its_tip(qtbot: QtBot, theme: Theme) -> None:
    made = IconButton(theme, "more", f"More for {HOSTILE}")
    qtbot.addWidget(made)
    assert shown(made.toolTip()) == f"More for {HOSTILE}"
    assert made.accessibleName() == f"More for {HOSTILE}"


def test_the_names_of_servers_are_shown_as_they_are(
    qtbot: QtBot, theme: Theme, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(QToolTip, "showText", lambda place, words, widget: told.append(words))
    bar = BlockBar(theme, "Coverage", rows=1)
    qtbot.addWidget(bar)
    bar.show_blocks((BlockHolders(mine=False, names=(HOSTILE,)),), "")
    event = QHelpEvent(QEvent.Type.ToolTip, QPoint(3, 3), QPoint(3, 3))
    QApplication.sendEvent(bar, event)
    assert [shown(one) for one in told] == [f"Block 0: {HOSTILE}"]


def test_a_question_is_plain_text(qtbot: QtBot, theme: Theme) -> None:
    parent = IconButton(theme, "more", "More")
    qtbot.addWidget(parent)
    box = confirm(parent, f"Remove {HOSTILE}?", HOSTILE, "Remove", lambda: None)
    assert box.textFormat() is Qt.TextFormat.PlainText
    box.reject()
