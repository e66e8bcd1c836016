"""The store: what replies and events make of it."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from fake_node import MODEL, model
from PySide6.QtWidgets import QApplication

from superbloom.control.messages import (
    Answering,
    ChatDelta,
    ChatFinished,
    ConversationChanged,
    ConversationList,
    ModelProgress,
    ModelsChanged,
    Notice,
    Transcript,
)
from superbloom.domain.conversation import Conversation, Message, Role
from superbloom.domain.sampling import EndReason
from superbloom.window.store import WENT_AWAY, Store


@pytest.fixture
def store(qapp: QApplication) -> Store:
    return Store()


def head(name: str, age: float = 0) -> Conversation:
    now = time.time() - age
    return Conversation(id=name, title=name, model=MODEL, created_at=now, updated_at=now)


def message(name: str, role: Role, text: str = "", end: EndReason | None = None) -> Message:
    return Message(
        id=name, conversation="c", parent=None, role=role, text=text, created_at=0.0, end=end
    )


QUESTION = message("q", Role.USER, "Why?")
ANSWER = message("a", Role.ASSISTANT)


def delta(text: str) -> ChatDelta:
    return ChatDelta(conversation="c", message="a", text=text, tokens=1, tokens_per_second=1.0)


def test_conversations_stand_newest_first(store: Store) -> None:
    store.take_conversations(ConversationList(conversations=(head("old", 60), head("new"))))
    assert list(store.conversations) == ["new", "old"]
    store.take_conversation(replace(head("old"), updated_at=time.time() + 5))
    assert list(store.conversations) == ["old", "new"]


def test_a_deleted_conversation_is_no_longer_shown(store: Store) -> None:
    store.take_conversations(ConversationList(conversations=(head("c"),)))
    store.show("c")
    store.take_event(ConversationChanged(conversation=head("c"), deleted=True))
    assert store.current == ""
    assert store.conversations == {}


def test_an_answer_grows_and_ends_as_stored(store: Store) -> None:
    store.transcripts["c"] = ()
    store.take_answering(Answering(question=QUESTION, answer=ANSWER))
    store.take_event(delta("Be"))
    store.take_event(delta("cause"))
    assert store.answers["c"].text == "Because"
    stored = replace(ANSWER, text="Because.", end=EndReason.END_OF_TEXT)
    store.take_event(ChatFinished(conversation="c", answer=stored))
    assert store.answers == {}
    assert store.transcripts["c"][-1] == stored


def test_text_may_come_before_the_reply(store: Store) -> None:
    store.take_event(delta("Be"))
    store.take_answering(Answering(question=QUESTION, answer=ANSWER))
    store.take_event(delta("cause"))
    assert store.answers["c"].text == "Because"


def test_even_the_end_may_come_before_the_reply(store: Store) -> None:
    stored = replace(ANSWER, text="x", end=EndReason.FAILED)
    store.take_event(ChatFinished(conversation="c", answer=stored, error="No.", next_step="Try."))
    store.take_answering(Answering(question=QUESTION, answer=ANSWER))
    assert store.answers == {}
    assert store.transcripts["c"] == (QUESTION, stored)
    assert store.failures["a"] == ("No.", "Try.")


def test_a_transcript_older_than_the_stream_does_not_shorten_it(store: Store) -> None:
    store.take_event(delta("a long text"))
    older = replace(ANSWER, text="a")
    store.take_transcript(Transcript(conversation=head("c"), messages=(QUESTION, older)))
    assert store.answers["c"].text == "a long text"


def test_an_answer_of_an_unknown_message_asks_for_the_transcript(store: Store) -> None:
    wanted: list[str] = []
    store.transcript_wanted.connect(wanted.append)
    store.take_event(delta("not open here"))
    assert wanted == []
    store.answers.clear()
    store.transcripts["c"] = (QUESTION,)
    store.take_event(delta("open here"))
    assert wanted == ["c"]


def test_an_answer_that_goes_on_has_not_failed(store: Store) -> None:
    store.transcripts["c"] = ()
    store.take_answering(Answering(question=QUESTION, answer=ANSWER))
    store.forget_answers()
    assert store.failures == {"a": WENT_AWAY}
    store.take_event(delta("on"))
    assert store.failures == {}
    store.forget_answers()
    stored = replace(ANSWER, text="on", end=EndReason.END_OF_TEXT)
    store.take_event(ChatFinished(conversation="c", answer=stored))
    assert store.failures == {}
    store.failures["a"] = WENT_AWAY
    store.take_transcript(Transcript(conversation=head("c"), messages=(QUESTION, stored)))
    assert store.failures == {}


def test_a_transcript_says_which_answer_runs(store: Store) -> None:
    changed: list[str] = []
    store.answer_changed.connect(changed.append)
    live = replace(ANSWER, text="Because of")
    store.take_event(delta("of"))
    changed.clear()
    said = Transcript(conversation=head("c"), messages=(QUESTION, live), answering="a")
    store.take_transcript(said)
    assert store.answers["c"].text == "Because of"
    assert changed == []
    store.answers.clear()
    store.take_transcript(said)
    assert store.answers["c"].text == "Because of"
    assert changed == ["c"]


def test_a_cancelled_download_is_no_failure(store: Store) -> None:
    said: list[Notice] = []
    store.noticed.connect(said.append)
    step = ModelProgress(model=MODEL, done_bytes=1, total_bytes=2, words="Fetching")
    store.take_event(step)
    store.take_event(replace(step, finished=True, error="Cancelled.", cancelled=True))
    assert said == []
    assert store.progress == {}


def test_a_lost_node_keeps_the_text(store: Store) -> None:
    store.transcripts["c"] = ()
    store.take_answering(Answering(question=QUESTION, answer=ANSWER))
    store.take_event(delta("Half"))
    store.forget_answers()
    assert store.transcripts["c"][-1].text == "Half"
    assert "went away" in store.failures["a"][0]


def test_progress_ends_with_its_download(store: Store) -> None:
    store.take_event(ModelsChanged(models=(model(),), model=MODEL))
    step = ModelProgress(model=MODEL, done_bytes=1, total_bytes=2, words="Fetching")
    store.take_event(step)
    assert store.progress == {MODEL: step}
    store.take_event(replace(step, finished=True))
    assert store.progress == {}
    info = store.model_info()
    assert info is not None
    assert info.id == MODEL


def test_a_download_that_fails_says_why(store: Store) -> None:
    said: list[Notice] = []
    store.noticed.connect(said.append)
    step = ModelProgress(model=MODEL, done_bytes=1, total_bytes=2, words="Fetching")
    store.take_event(
        replace(step, finished=True, error="The disk is full.", next_step="Free some.")
    )
    assert [(notice.message, notice.next_step) for notice in said] == [
        ("The disk is full.", "Free some.")
    ]
