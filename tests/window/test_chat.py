"""The chat page against a node: asking, streaming, stopping, losing the node."""

from __future__ import annotations

import time
from dataclasses import replace

from fake_node import FakeNode, Until
from PySide6.QtCore import QObject, Qt, QUrl, Slot
from PySide6.QtGui import QDesktopServices, QGuiApplication
from PySide6.QtWidgets import QLineEdit, QMenu, QMessageBox, QWidget
from pytestqt.qtbot import QtBot

from superbloom.control.messages import (
    ConversationChanged,
    DeleteConversation,
    NewConversation,
    RenameConversation,
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
    until(lambda: "anna (blocks 0-0, 12 ms)" in chat.state_line.state.toolTip())
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


def test_a_question_asked_before_the_last_one_is_taken_stays(
    program: Application, node: FakeNode, qtbot: QtBot, until: Until
) -> None:
    node.script[SendMessage] = lambda request: None
    ask(program, qtbot, "One?")
    until(lambda: len(node.asked(SendMessage)) == 1)
    ask(program, qtbot, "Two?")
    assert program.window.chat.composer.text == "Two?"
    qtbot.wait(50)
    assert len(node.asked(SendMessage)) == 1


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


def test_an_answer_that_could_not_be_stopped_can_be_stopped_again(
    program: Application, node: FakeNode, talk: str, until: Until
) -> None:
    node.script[StopAnswer] = lambda request: InputRejected("It does not stop.")
    node.write(talk, "Some text")
    chat = program.window.chat
    until(chat.composer.stop_button.isVisible)
    chat.composer.stop_button.click()
    assert "Stopping" in chat.state_line.state.text()
    until(lambda: program.board.newest is not None)
    assert chat.composer.stop_button.isEnabled()
    assert "Stopping" not in chat.state_line.state.text()


def test_stopping_by_key_leads_to_the_composer(
    program: Application, node: FakeNode, talk: str, qtbot: QtBot, until: Until
) -> None:
    node.script[StopAnswer] = lambda request: None
    composer = program.window.chat.composer
    node.write(talk, "Some text")
    until(composer.stop_button.isVisible)
    program.window.activateWindow()
    composer.stop_button.setFocus()
    node.write(talk, " and more")
    until(lambda: last_card(program).text.endswith("more"))
    assert composer.stop_button.hasFocus()
    been: list[QWidget | None] = []

    def moved(old: QWidget | None, new: QWidget | None) -> None:
        been.append(new)

    program._qt.focusChanged.connect(moved)
    qtbot.keyClick(composer.stop_button, Qt.Key.Key_Space)
    until(lambda: len(node.asked(StopAnswer)) == 1)
    program._qt.focusChanged.disconnect(moved)
    assert been == [composer.field]


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
    assert longest < 0.7  # 0.22 s measured


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


def test_an_answer_that_goes_on_while_the_link_is_down_is_whole_and_without_failure(
    program: Application, node: FakeNode, talk: str, until: Until
) -> None:
    node.write(talk, "One")
    until(lambda: last_card(program).text == "One")
    node.die()
    until(last_card(program)._trouble.isVisible)
    node.write(talk, " two")
    node.start()
    until(lambda: node.is_watched and program.window.chat.composer._reachable)
    node.write(talk, " three")
    until(lambda: last_card(program).text == "One two three")
    assert not last_card(program)._trouble.isVisible()
    assert not last_card(program)._foot.isVisible()
    node.finish(talk)
    until(last_card(program)._foot.isVisible)
    assert not last_card(program)._trouble.isVisible()
    assert program.store.failures == {}


def test_an_answer_that_ended_while_the_link_was_down_has_no_failure(
    program: Application, node: FakeNode, talk: str, until: Until
) -> None:
    node.write(talk, "One")
    until(lambda: last_card(program).text == "One")
    node.die()
    until(last_card(program)._trouble.isVisible)
    node.write(talk, " two")
    node.finish(talk)
    node.start()
    until(lambda: last_card(program).text == "One two")
    assert not last_card(program)._trouble.isVisible()


def test_an_answer_that_waits_is_known_to_run_when_the_window_comes(
    program: Application, node: FakeNode, until: Until
) -> None:
    head = node.add_conversation(
        "Waits",
        node.message(Role.USER, "Why?"),
        node.message(Role.ASSISTANT, "Because", end=None),
    )
    node.answering[head.id] = node.transcripts[head.id][-1].id
    program.actions.refresh()
    program.actions.open_conversation(head.id)
    until(lambda: len(program.window.chat.transcript.cards) == 2)
    assert program.window.chat.composer.stop_button.isVisible()
    assert last_card(program).text == "Because"
    assert not last_card(program)._foot.isVisible()


def test_a_lost_server_is_told_under_the_answer_for_good(
    program: Application, node: FakeNode, talk: str, until: Until
) -> None:
    node.write(talk, "One")
    node.notice(talk, ChatPhase.RECOVERING, "A server was lost; its blocks go to ben.")
    node.notice(talk, ChatPhase.RECOVERING, "A server was lost; its blocks go to anna.")
    until(lambda: "anna" in program.window.chat.state_line.state.text())
    assert not last_card(program)._notes.isVisible()
    node.notice(talk, ChatPhase.WRITING, "Through anna.", "anna")
    node.write(talk, " two")
    node.finish(talk)
    until(last_card(program)._foot.isVisible)
    assert last_card(program)._notes.isVisible()
    assert last_card(program)._notes.text() == "A server was lost; its blocks go to anna."
    other = node.add_conversation("Other", age=100)
    program.actions.refresh()
    program.actions.open_conversation(other.id)
    program.actions.open_conversation(talk)
    until(lambda: len(program.window.chat.transcript.cards) == 4)
    assert last_card(program)._notes.isVisible()


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


def test_the_menu_is_about_the_row_it_was_opened_on(
    program: Application, node: FakeNode, talk: str, until: Until
) -> None:
    other = node.add_conversation("Other", age=100)
    program.actions.refresh()
    chats = program.window.chat.list
    until(lambda: chats.rows.rowCount() == 2)
    row = chats.rows.index(chats.rows.row_of(other.id))
    chats._show_menu(chats.view.visualRect(row).center())
    menu = chats.view.findChild(QMenu)
    assert menu is not None
    third = node.add_conversation("Third")
    node.tell(ConversationChanged(conversation=third))
    until(lambda: chats.rows.row_of(other.id) == 2)
    delete = next(one for one in menu.actions() if one.text() == "Delete")
    delete.trigger()
    box = program.window.findChild(QMessageBox)
    assert box is not None
    assert "Other" in box.text()
    box.reject()
    rename = next(one for one in menu.actions() if one.text() == "Rename")
    rename.trigger()
    editor = chats.view.findChild(QLineEdit)
    assert editor is not None
    assert editor.text() == "Other"
    menu.close()


def test_a_title_that_is_being_typed_survives_what_happens_elsewhere(
    program: Application, node: FakeNode, talk: str, qtbot: QtBot, until: Until
) -> None:
    other = node.add_conversation("Other", age=100)
    third = node.add_conversation("Third", age=200)
    program.actions.refresh()
    chats = program.window.chat.list
    until(lambda: chats.rows.rowCount() == 3)
    program.actions.open_conversation(other.id)
    program.window.activateWindow()
    chats.view.edit(chats.rows.index(chats.rows.row_of(other.id)))
    editor = chats.view.findChild(QLineEdit)
    assert editor is not None
    editor.selectAll()
    qtbot.keyClicks(editor, "Bett")
    now = time.time() + 5
    node.tell(ConversationChanged(conversation=replace(third, updated_at=now)))
    until(lambda: chats.rows.row_of(third.id) == 0)
    node.tell(ConversationChanged(conversation=replace(other, updated_at=now + 1)))
    until(lambda: chats.rows.row_of(other.id) == 0)
    new = node.add_conversation("New", age=-60)
    node.tell(ConversationChanged(conversation=new))
    until(lambda: chats.rows.row_of(new.id) == 0)
    node._on_DeleteConversation(DeleteConversation(conversation=third.id))
    until(lambda: chats.rows.rowCount() == 3)
    assert chats.view.findChild(QLineEdit) is editor
    assert editor.isVisible()
    qtbot.keyClicks(editor, "er")
    qtbot.keyClick(editor, Qt.Key.Key_Return)
    until(lambda: bool(node.asked(RenameConversation)))
    assert node.asked(RenameConversation) == [
        RenameConversation(conversation=other.id, title="Better")
    ]
    assert program.store.current == other.id


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
