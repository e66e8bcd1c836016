"""The chat page against a node: asking, streaming, stopping, losing the node."""

from __future__ import annotations

import time

from fake_node import FakeNode, Until
from PySide6.QtCore import QObject, Qt, QUrl, Slot
from PySide6.QtGui import QDesktopServices, QGuiApplication
from PySide6.QtWidgets import QMessageBox
from pytestqt.qtbot import QtBot

from superbloom.control.messages import (
    DeleteConversation,
    NewConversation,
    SendMessage,
    StopAnswer,
)
from superbloom.domain.conversation import Role
from superbloom.domain.errors import InputRejected
from superbloom.domain.generation import ChatPhase
from superbloom.domain.sampling import EndReason
from superbloom.window.application import Application
from superbloom.window.chat.code_view import CodeView
from superbloom.window.chat.message_card import AnswerCard
from superbloom.window.chat.prose_view import ProseView


def last_card(program: Application) -> AnswerCard:
    card = program.window.chat.transcript.cards[-1]
    assert isinstance(card, AnswerCard)
    return card


def ask(program: Application, qtbot: QtBot, text: str) -> None:
    program.window.chat.composer.write(text)
    qtbot.keyClick(program.window.chat.composer.field, Qt.Key.Key_Return)


def test_the_first_question_makes_a_conversation_and_streams_its_answer(
    program: Application, node: FakeNode, qtbot: QtBot, until: Until
) -> None:
    chat = program.window.chat
    assert chat.welcome.isVisible()
    ask(program, qtbot, "Why?")
    until(lambda: len(chat.transcript.cards) == 2)
    assert chat.transcript.isVisible()
    assert len(node.asked(NewConversation)) == 1
    name = node.asked(SendMessage)[0].conversation
    node.notice(name, ChatPhase.READING, "Reading the question")
    until(lambda: "Reading the question" in chat.state_line.state.text())
    node.write(name, "Because")
    node.write(name, " of **light**.", tokens=4, speed=31.4)
    until(lambda: last_card(program).text == "Because of **light**.")
    until(lambda: "31.4 tokens/s" in chat.state_line.state.text())
    node.notice(name, ChatPhase.WRITING, "Through anna.", "anna")
    until(lambda: chat.state_line.state.text().endswith("through anna"))
    assert chat.state_line.state.text().startswith("Writing")
    assert chat.composer.stop_button.isVisible()
    node.finish(name)
    until(chat.composer.send_button.isVisible)
    assert program.store.answers == {}


def test_an_example_is_put_into_the_composer(program: Application) -> None:
    program.window.chat.welcome.chosen.emit("An example")
    assert program.window.chat.composer.text == "An example"


def test_a_refused_question_comes_back(
    program: Application, node: FakeNode, qtbot: QtBot, until: Until
) -> None:
    node.script[SendMessage] = lambda request: InputRejected("Not now.", "Wait.")
    ask(program, qtbot, "Why?")
    until(lambda: program.window.chat.composer.text == "Why?")
    assert program.board.newest is not None
    assert program.board.newest.sentence == "Not now."
    assert program.window.messages.isVisible()


def test_a_thousand_pieces_are_drawn_in_few_frames(
    program: Application, node: FakeNode, talk: str, until: Until
) -> None:
    card = last_card(program)
    drawn = []
    show_text = card.show_text
    card.show_text = lambda text: drawn.append(1) or show_text(text)  # type: ignore[method-assign]
    for number in range(1000):
        node.write(talk, f"word{number} " + ("\n\n" if number % 50 == 49 else ""))
    until(lambda: "word999" in card.text)
    assert card.text.count("word") == 1000
    assert len(drawn) < 200


def test_only_the_tail_of_a_growing_answer_is_drawn_again(
    program: Application, node: FakeNode, talk: str, until: Until
) -> None:
    node.write(talk, "Look:\n\n```python\nprint(1)\n```\n\nThen")
    card = last_card(program)
    until(lambda: len(card.findChildren(ProseView)) == 2)
    views = card.findChildren(ProseView)
    code = card.findChild(CodeView)
    first = views[0].document().revision()
    node.write(talk, " more **words**\n\n```\nx\n")
    until(lambda: len(card.findChildren(CodeView)) == 2)
    assert card.findChildren(ProseView)[:2] == views
    assert card.findChild(CodeView) is code
    assert views[0].document().revision() == first
    assert "more words" in views[1].toPlainText()


def test_a_fence_that_grows_letter_by_letter_ends_up_as_code(
    program: Application, node: FakeNode, talk: str, until: Until
) -> None:
    card = last_card(program)
    sent = ""
    for letter in "```py\na = 1\n```\ndone":
        node.write(talk, letter)
        sent += letter
        until(lambda sent=sent: card.text == sent)
    code = [one for one in card.findChildren(CodeView) if not one.isHidden()]
    assert [one.code for one in code] == ["a = 1"]


def test_code_is_copied(program: Application, node: FakeNode, talk: str, until: Until) -> None:
    node.write(talk, "```py\na = 1\n```\n")
    card = last_card(program)
    until(lambda: bool(card.findChildren(CodeView)))
    code = card.findChildren(CodeView)[0]
    code._copy.click()
    assert QGuiApplication.clipboard().text() == "a = 1"
    assert code._copy.accessibleName() == "Copied"


def test_stop_and_escape_stop_the_answer(
    program: Application, node: FakeNode, talk: str, qtbot: QtBot, until: Until
) -> None:
    held = []
    node.script[StopAnswer] = held.append
    node.write(talk, "Some text")
    until(program.window.chat.composer.stop_button.isVisible)
    program.window.activateWindow()
    program.window.chat.composer.field.setFocus()
    qtbot.keyClick(program.window.chat.composer.field, Qt.Key.Key_Escape)
    until(lambda: len(held) == 1)
    assert "Stopping" in program.window.chat.state_line.state.text()
    assert not program.window.chat.composer.stop_button.isEnabled()
    node.finish(talk, EndReason.STOPPED)
    until(program.window.chat.composer.send_button.isVisible)
    assert "stopped" in last_card(program)._figures.text()


def test_the_view_follows_until_the_reader_scrolls(
    program: Application, node: FakeNode, talk: str, qtbot: QtBot, until: Until
) -> None:
    view = program.window.chat.transcript
    bar = view.verticalScrollBar()
    node.write(talk, "A paragraph of some words.\n\n" * 60)
    until(lambda: bar.maximum() > 200 and bar.value() == bar.maximum())
    bar.setValue(bar.maximum() // 2)
    place = bar.value()
    assert view._jump.isVisible()
    most = bar.maximum()
    node.write(talk, "Another paragraph.\n\n" * 30)
    until(lambda: bar.maximum() > most)
    assert bar.value() == place
    view._jump.click()
    assert bar.value() == bar.maximum()
    assert not view._jump.isVisible()


def test_a_hundred_thousand_characters_do_not_freeze_the_window(
    program: Application, node: FakeNode, until: Until
) -> None:
    text = "\n\n".join(f"Paragraph {n} with **bold** words and `code`. " * 4 for n in range(550))
    assert len(text) > 100_000
    head = node.add_conversation(
        "Long", node.message(Role.USER, text), node.message(Role.ASSISTANT, text)
    )
    program.actions.refresh()
    longest, before = 0.0, time.perf_counter()

    def drawn() -> bool:
        nonlocal longest, before
        now = time.perf_counter()
        longest, before = max(longest, now - before), now
        cards = program.window.chat.transcript.cards
        return len(cards) == 2 and "Paragraph 549" in _text(cards[-1])

    program.actions.open_conversation(head.id)
    until(drawn)
    assert longest < 2.0


def _text(card: object) -> str:
    assert isinstance(card, AnswerCard)
    views = card.findChildren(ProseView)
    return views[-1].toPlainText() if views else ""


def test_a_long_talk_is_drawn_from_its_end(
    program: Application, node: FakeNode, until: Until
) -> None:
    messages = [
        node.message(Role.USER if n % 2 == 0 else Role.ASSISTANT, f"message {n}") for n in range(90)
    ]
    head = node.add_conversation("Many", *messages)
    program.actions.refresh()
    program.actions.open_conversation(head.id)
    view = program.window.chat.transcript
    until(lambda: len(view.cards) == 90)
    assert [card.message.text for card in view.cards] == [one.text for one in messages]
    bar = view.verticalScrollBar()
    until(lambda: bar.maximum() > 0 and bar.value() == bar.maximum())


def test_the_node_dies_in_the_middle_of_an_answer_and_comes_back(
    program: Application, node: FakeNode, talk: str, until: Until
) -> None:
    node.write(talk, "Half of")
    until(lambda: last_card(program).text == "Half of")
    node.die()
    until(program.window.banner.isVisible)
    assert "node has ended" in program.window.banner.words.text()
    card = last_card(program)
    assert card.text == "Half of"
    assert "went away" in card._trouble.text()
    assert not program.window.chat.composer.send_button.isEnabled()
    program.window.chat.composer.write("still here")
    node.start()
    until(lambda: not program.window.banner.isVisible())
    until(program.window.chat.composer.send_button.isEnabled)
    assert program.window.chat.composer.text == "still here"


def test_a_failed_answer_says_why(
    program: Application, node: FakeNode, talk: str, until: Until
) -> None:
    node.write(talk, "Some")
    node.finish(talk, EndReason.FAILED, "A server was lost.", "Try again.")
    until(last_card(program)._trouble.isVisible)
    assert last_card(program)._trouble.text() == "A server was lost. Try again."


def test_conversations_are_chosen_renamed_and_deleted(
    program: Application, node: FakeNode, talk: str, qtbot: QtBot, until: Until
) -> None:
    other = node.add_conversation("Other", age=100)
    program.actions.refresh()
    rows = program.window.chat.list.rows
    until(lambda: rows.rowCount() == 2)
    view = program.window.chat.list.view
    view.setCurrentIndex(rows.index(rows.row_of(other.id)))
    assert program.store.current == other.id
    assert rows.setData(rows.index(rows.row_of(other.id)), "Better")
    until(lambda: program.store.conversations[other.id].title == "Better")
    program.window.chat.list.ask_delete(view.currentIndex())
    box = program.window.findChild(QMessageBox)
    assert box is not None
    assert not node.asked(DeleteConversation)
    next(one for one in box.buttons() if one.text() == "Delete").click()
    until(lambda: rows.rowCount() == 1)
    assert program.store.current == ""
    assert program.window.chat.welcome.isVisible()


def test_an_answer_asked_elsewhere_appears(
    program: Application, node: FakeNode, talk: str, until: Until
) -> None:
    node.finish(talk)
    until(lambda: not program.store.answers)
    node._on_SendMessage(SendMessage(conversation=talk, text="From the terminal"))
    node.write(talk, "Yes")
    until(lambda: len(program.window.chat.transcript.cards) == 6)
    until(lambda: last_card(program).text == "Yes")


def test_a_link_opens_in_the_browser_only_on_click(
    program: Application, node: FakeNode, talk: str, until: Until
) -> None:
    opened: list[QUrl] = []
    catcher = _Catcher(opened)
    QDesktopServices.setUrlHandler("https", catcher, "take")
    node.write(talk, "[here](https://example.org/) and ![a](https://example.org/a.png)")
    card = last_card(program)
    until(lambda: "picture not loaded" in _text(card))
    assert opened == []
    card.findChildren(ProseView)[-1].anchorClicked.emit(QUrl("https://example.org/"))
    assert opened == [QUrl("https://example.org/")]
    QDesktopServices.unsetUrlHandler("https")


class _Catcher(QObject):
    def __init__(self, opened: list[QUrl]) -> None:
        super().__init__()
        self._opened = opened

    @Slot(QUrl)
    def take(self, url: QUrl) -> None:
        self._opened.append(url)
