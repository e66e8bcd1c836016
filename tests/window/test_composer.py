"""Writing, sending, composing, stopping."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QInputMethodEvent
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from superbloom.window.chat.composer import MOST_LINES, Composer
from superbloom.window.theme import Theme


@pytest.fixture
def composer(qtbot: QtBot, theme: Theme) -> Composer:
    made = Composer(theme)
    qtbot.addWidget(made)
    made.resize(500, 80)
    made.set_reachable(True)
    made.show()
    made.sends = []  # type: ignore[attr-defined]
    made.sent.connect(made.sends.append)  # type: ignore[attr-defined]
    return made


def test_enter_sends_and_shift_enter_breaks_the_line(composer: Composer, qtbot: QtBot) -> None:
    qtbot.keyClicks(composer.field, "one")
    qtbot.keyClick(composer.field, Qt.Key.Key_Return, Qt.KeyboardModifier.ShiftModifier)
    qtbot.keyClicks(composer.field, "two")
    qtbot.keyClick(composer.field, Qt.Key.Key_Return)
    assert composer.sends == ["one\ntwo"]
    assert composer.text == ""


def test_enter_does_not_send_while_an_input_method_composes(
    composer: Composer, qtbot: QtBot
) -> None:
    qtbot.keyClicks(composer.field, "hello ")
    QApplication.sendEvent(composer.field, QInputMethodEvent("nihao", []))
    qtbot.keyClick(composer.field, Qt.Key.Key_Return)
    assert composer.sends == []
    done = QInputMethodEvent("", [])
    done.setCommitString("你好")
    QApplication.sendEvent(composer.field, done)
    qtbot.keyClick(composer.field, Qt.Key.Key_Return)
    assert composer.sends == ["hello 你好"]


def test_nothing_is_sent_when_empty_unreachable_or_answering(
    composer: Composer, qtbot: QtBot
) -> None:
    qtbot.keyClicks(composer.field, "   ")
    qtbot.keyClick(composer.field, Qt.Key.Key_Return)
    composer.write("text")
    composer.set_reachable(False)
    qtbot.keyClick(composer.field, Qt.Key.Key_Return)
    assert not composer.send_button.isEnabled()
    composer.set_reachable(True)
    composer.set_answering(True)
    qtbot.keyClick(composer.field, Qt.Key.Key_Return)
    assert composer.sends == []
    assert composer.text == "text"


def test_the_button_stops_once_while_an_answer_runs(composer: Composer, qtbot: QtBot) -> None:
    stops = []
    composer.stopped.connect(lambda: stops.append(1))
    composer.set_answering(True)
    assert composer.stop_button.isVisible()
    assert not composer.send_button.isVisible()
    composer.stop_button.click()
    composer.set_answering(True, stopping=True)
    composer.stop_button.click()
    assert stops == [1]
    assert composer.stop_button.accessibleName() == "Stopping …"


def test_it_grows_with_the_text_up_to_a_bound(composer: Composer) -> None:
    low = composer.field.height()
    composer.write("a\nb\nc")
    middle = composer.field.height()
    composer.write("\n".join("x" * MOST_LINES * 3))
    high = composer.field.height()
    assert low < middle < high
    composer.write("\n".join("x" * 500))
    assert composer.field.height() == high


def test_a_refused_text_comes_back_unless_something_new_stands_there(composer: Composer) -> None:
    composer.give_back("lost")
    assert composer.text == "lost"
    composer.give_back("other")
    assert composer.text == "lost"
