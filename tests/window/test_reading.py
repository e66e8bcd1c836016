"""Reading with the keyboard, and staying where one reads."""

from __future__ import annotations

import pytest
from fake_node import FakeNode, Until
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QPlainTextEdit, QWidget
from pytestqt.qtbot import QtBot

from superbloom.domain.conversation import Role
from superbloom.window.application import Application
from superbloom.window.chat.code_view import CodeView
from superbloom.window.chat.message_card import AnswerCard
from superbloom.window.chat.prose_view import ProseView
from superbloom.window.chat.transcript_view import TranscriptView

PARAGRAPH = "Some words that make a paragraph of several lines in a window of this width. " * 6
ANSWER = f"Look at [this](https://example.org/):\n\n```python\nprint(1)\n```\n\n{PARAGRAPH}"


def open_talk(program: Application, node: FakeNode, until: Until, count: int) -> TranscriptView:
    """A talk of `count` messages, shown, with the newest cards drawn."""
    messages = [
        node.message(Role.USER, f"question {n}?")
        if n % 2 == 0
        else node.message(Role.ASSISTANT, f"Answer {n}. {ANSWER}")
        for n in range(count)
    ]
    head = node.add_conversation("Long", *messages)
    program.actions.refresh()
    program.actions.open_conversation(head.id)
    view = program.window.chat.transcript
    until(lambda: view.verticalScrollBar().maximum() > 500)
    return view


def part(view: TranscriptView, kind: type[QWidget], number: int) -> QWidget:
    card = view.cards[number]
    assert isinstance(card, AnswerCard)
    return card.findChildren(kind)[0]


@pytest.mark.parametrize("kind", [ProseView, QPlainTextEdit])
def test_keys_scroll_after_a_click_into_a_message(
    program: Application, node: FakeNode, qtbot: QtBot, until: Until, kind: type[QWidget]
) -> None:
    view = open_talk(program, node, until, 8)
    until(lambda: len(view.cards) == 8)
    program.window.activateWindow()
    inside = part(view, kind, -1)
    inside.setFocus(Qt.FocusReason.MouseFocusReason)
    bar = view.verticalScrollBar()
    until(lambda: bar.value() == bar.maximum())
    places = [bar.value()]
    for key in (Qt.Key.Key_PageUp, Qt.Key.Key_Up, Qt.Key.Key_Home):
        QTest.keyClick(inside, key)
        places.append(bar.value())
    assert places == sorted(set(places), reverse=True)
    assert bar.value() == 0
    QTest.keyClick(inside, Qt.Key.Key_End)
    assert bar.value() == bar.maximum()
    assert view.following


def test_tab_goes_through_what_is_seen_in_the_order_of_reading(
    program: Application, node: FakeNode, until: Until
) -> None:
    view = open_talk(program, node, until, 20)
    until(lambda: len(view.cards) == 20)
    until(lambda: not view._settled.isActive())
    program.window.activateWindow()
    view.setFocus()
    seen: list[str] = []
    while not seen or seen[-1] != "Message":
        QTest.keyClick(QApplication.focusWidget(), Qt.Key.Key_Tab)
        seen.append(QApplication.focusWidget().accessibleName())
        assert len(seen) < 20
    one_answer = ["Answer", "Answer", "Copy the code", "Code", "Answer"]  # twice for the link
    assert [name for name in seen if name != "Copy the answer"][-6:] == [*one_answer, "Message"]
    view.verticalScrollBar().setValue(0)
    view.setFocus()
    QTest.keyClick(view, Qt.Key.Key_Tab)
    assert QApplication.focusWidget() is view.cards[0].findChild(ProseView)


def test_the_place_of_the_keyboard_is_seen(
    program: Application, node: FakeNode, until: Until
) -> None:
    view = open_talk(program, node, until, 8)
    program.window.activateWindow()
    prose = part(view, ProseView, -1)
    code = part(view, CodeView, -1)
    prose.setFocus(Qt.FocusReason.MouseFocusReason)
    assert not prose._focus_bar.isVisible()
    code._text.setFocus(Qt.FocusReason.TabFocusReason)
    assert code.property("active") is True
    prose.setFocus(Qt.FocusReason.BacktabFocusReason)
    assert prose._focus_bar.isVisible()
    assert code.property("active") is False
    program.window.chat.composer.field.setFocus()
    assert not prose._focus_bar.isVisible()


def top_of(view: TranscriptView, card: QWidget) -> int:
    return card.mapTo(view.viewport(), QPoint(0, 0)).y()


def test_a_reader_stays_while_older_messages_come(
    program: Application, node: FakeNode, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as held:
        held.setattr(TranscriptView, "_draw_earlier", lambda view: None)
        view = open_talk(program, node, until, 90)
        QTest.qWait(100)
    assert len(view.cards) < 30
    bar = view.verticalScrollBar()
    bar.setValue(bar.maximum() - 700)
    read = next(card for card in view.cards if top_of(view, card) > 0)
    place = top_of(view, read)
    view._draw_earlier()
    until(lambda: len(view.cards) == 90)
    QTest.qWait(100)
    assert abs(top_of(view, read) - place) <= 1
    assert not view.following


@pytest.mark.parametrize("size", [(820, 700), (1500, 900)])
def test_a_reader_stays_when_the_window_changes(
    program: Application, node: FakeNode, until: Until, size: tuple[int, int]
) -> None:
    view = open_talk(program, node, until, 24)
    until(lambda: len(view.cards) == 24)
    QTest.qWait(100)
    bar = view.verticalScrollBar()
    bar.setValue(bar.maximum() // 2)
    read = next(card for card in view.cards if top_of(view, card) + card.height() > 0)
    part_above = -top_of(view, read) / read.height()
    program.window.resize(*size)
    QTest.qWait(150)
    assert abs(-top_of(view, read) / read.height() - part_above) < 0.05
    assert not view.following
    program.window.resize(1120, 760)
    QTest.qWait(150)
    assert abs(-top_of(view, read) / read.height() - part_above) < 0.05


def test_one_who_is_at_the_end_stays_at_the_end(
    program: Application, node: FakeNode, until: Until
) -> None:
    view = open_talk(program, node, until, 24)
    until(lambda: len(view.cards) == 24)
    bar = view.verticalScrollBar()
    for size in ((800, 560), (1400, 900)):
        program.window.resize(*size)
        QTest.qWait(100)
        assert bar.value() == bar.maximum()
        assert view.following
