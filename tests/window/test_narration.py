"""What is said of an answer while it is written."""

from __future__ import annotations

import pytest
from fake_node import FakeNode, Until

from superbloom.domain.generation import ChatPhase
from superbloom.domain.sampling import EndReason
from superbloom.window.application import Application
from superbloom.window.chat import narration
from superbloom.window.chat.narration import finished, spoken


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(narration, "announce", lambda source, words: words and said.append(words))
    monkeypatch.setattr(narration, "PAUSE_MILLISECONDS", 50)
    return said


@pytest.mark.parametrize(
    ("markdown", "words"),
    [
        ("## Title\n**Bold** and `code`.", " Title\nBold and code."),
        ("Look:\n\n```python\nprint(1)\n```\nDone.", "Look:\n\nCode: python.\nDone."),
        ("```\nx", "Code.\n"),
    ],
)
def test_marks_and_code_are_not_said(markdown: str, words: str) -> None:
    assert spoken(markdown) == words


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("One. Two", "One."),
        ("Version 3.12 is", ""),
        ("A line\nand", "A line\n"),
        ("你好。再", "你好。"),
        ("No end", ""),
    ],
)
def test_only_finished_sentences_are_said(words: str, said: str) -> None:
    assert words[: finished(words)] == said


def test_phases_and_sentences_are_said_once(
    heard: list[str], program: Application, node: FakeNode, talk: str, until: Until
) -> None:
    node.notice(talk, ChatPhase.READING, "Reading the question")
    node.notice(talk, ChatPhase.READING, "Reading the question, half")
    until(lambda: heard == ["Reading the question"])
    node.write(talk, "Because of light. It")
    until(lambda: heard[1:] == ["Because of light."])
    node.write(talk, " is **scattered**. And so")
    until(lambda: heard[2:] == ["It is scattered."])
    node.notice(talk, ChatPhase.RECOVERING, "anna takes over")
    until(lambda: heard[3:] == ["anna takes over"])
    node.finish(talk, EndReason.STOPPED)
    until(lambda: len(heard) == 5)
    assert heard[4] == "And so\nEnd of the answer. stopped"


def test_text_that_came_fast_is_said_together(
    heard: list[str], program: Application, node: FakeNode, talk: str, until: Until
) -> None:
    for number in range(40):
        node.write(talk, f"Sentence {number}. ")
    until(lambda: "Sentence 38." in " ".join(heard))
    assert len(heard) < 10


def test_a_talk_that_is_opened_is_not_read_out(
    heard: list[str], program: Application, node: FakeNode, talk: str, until: Until
) -> None:
    node.write(talk, "Long ago. ")
    until(lambda: "Long ago." in heard)
    program.actions.open_conversation("")
    program.actions.open_conversation(talk)
    heard.clear()
    node.write(talk, "And now. Then")
    until(lambda: bool(heard))
    assert heard == ["And now."]


def test_a_failure_is_said(
    heard: list[str], program: Application, node: FakeNode, talk: str, until: Until
) -> None:
    node.write(talk, "Half of")
    until(lambda: talk in program.store.answers)
    node.finish(talk, EndReason.FAILED, "A server was lost.", "Try again.")
    until(lambda: bool(heard))
    assert heard == ["Half of\nA server was lost. Try again."]
