"""`superbloom chat` on a scripted node."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from scripted_node import ScriptedNode

from superbloom.control.address import NodeAddress, write_address
from superbloom.control.messages import NewConversation, SendMessage, StopAnswer
from superbloom.domain.generation import ChainHop, ChatPhase
from superbloom.domain.sampling import EndReason, SamplingSettings
from superbloom.domain.span import Span

Start = Callable[..., "subprocess.Popen[str]"]


def test_once_prints_the_answer_alone(node: ScriptedNode, run) -> None:
    ran = run("chat", "--once", "Hi?")
    assert (ran.code, ran.out, ran.err) == (0, "Hello world\n", "")
    assert node.asked_for(SendMessage).text == "Hi?"
    assert node.asked_for(SendMessage).sampling == SamplingSettings()


def test_options_become_sampling_settings(node: ScriptedNode, run) -> None:
    ran = run(
        *("chat", "--once", "Hi", "--temperature", "0", "--top-k", "5", "--top-p", "0.5"),
        *("--min-p", "0.1", "--repetition-penalty", "1.1", "--seed", "7", "--max-tokens", "9"),
        *("--stop", "a", "--stop", "b", "--model", "tiny", "--system", "Be brief."),
    )
    assert ran.code == 0
    assert node.asked_for(SendMessage).sampling == SamplingSettings(
        temperature=0, top_k=5, top_p=0.5, min_p=0.1, repetition_penalty=1.1, seed=7,
        max_tokens=9, stop=("a", "b"),
    )  # fmt: skip
    assert node.asked_for(NewConversation) == NewConversation(model="tiny", system="Be brief.")


def test_an_exact_answer_may_be_asked_for(node: ScriptedNode, run) -> None:
    assert run("chat", "--once", "Hi", "--exact").code == 0
    assert node.asked_for(SendMessage).sampling == SamplingSettings(exact=True)


@pytest.mark.parametrize(
    "words",
    [
        ("--temperature", "hot"),
        ("--temperature", "9"),
        ("--temperature", "nan"),
        ("--top-p", "0"),
        ("--max-tokens", "0"),
        ("--seed", "x"),
        ("--stop", ""),
        ("--once", " "),
        ("--once", "\udcff"),
        ("--nonsense",),
    ],
)
def test_wrong_values_are_wrong_usage(node: ScriptedNode, run, words: tuple[str, ...]) -> None:
    ran = run("chat", "--once", "Hi", *words)
    assert ran.code == 2
    assert ran.err.startswith("superbloom: ")
    assert ran.err.splitlines()[1].startswith("  ")
    assert node.asked == []


def test_json_goes_with_once(run) -> None:
    assert run("chat", "--json").code == 2


def test_json_tells_everything(node: ScriptedNode, run) -> None:
    node.notices = ((ChatPhase.READING, "Through ada and bob."),)
    node.end = EndReason.LENGTH
    node.hops = (ChainHop(name="ada", blocks=Span(0, 2), seconds=0.01),)
    ran = run("chat", "--once", "Hi", "--json")
    assert ran.code == 0
    assert ran.json == {
        "text": "Hello world",
        "reason": "length",
        "tokens": 3,
        "tokens_per_second": 5.0,
        "first_token_seconds": 0.5,
        "chain": ["ada", "bob"],
        "hops": [{"name": "ada", "blocks": {"start": 0, "end": 2}, "seconds": 0.01}],
        "conversation": "c1",
        "message": "assistant",
    }


def test_verbose_says_what_goes_on(node: ScriptedNode, run) -> None:
    node.notices = ((ChatPhase.WAITING, "The server is loading."), (ChatPhase.READING, "Reading."))
    ran = run("chat", "--once", "Hi", "--verbose")
    assert ran.out == "Hello world\n"
    assert ran.err.splitlines()[-2:] == ["The server is loading.", "Reading."]


def test_a_failed_answer_keeps_its_text_and_says_why(node: ScriptedNode, run) -> None:
    node.end, node.error = EndReason.FAILED, ("Blocks are missing.", "Wait.")
    ran = run("chat", "--once", "Hi")
    assert ran.code == 1
    assert ran.out == "Hello world\n"
    assert ran.err == "superbloom: Blocks are missing.\n  Wait.\n"


def test_an_answer_that_somebody_else_stopped_is_not_whole(node: ScriptedNode, run) -> None:
    node.end = EndReason.STOPPED
    ran = run("chat", "--once", "Hi")
    assert ran.code == 1
    assert "stopped" in ran.err


def test_an_unknown_model(node: ScriptedNode, run) -> None:
    ran = run("chat", "--once", "Hi", "--model", "none")
    assert ran.code == 1
    assert "superbloom model list" in ran.err


@pytest.mark.parametrize("pieces", [0, 2])
def test_a_node_that_dies_in_mid_answer(node: ScriptedNode, run, pieces: int) -> None:
    node.dies_after = pieces
    ran = run("chat", "--once", "Hi")
    assert ran.code == 1
    assert ran.out == ("Hello wor\n" if pieces else "")
    assert ran.err.startswith("superbloom: The node ended or broke off.\n  ")


def test_no_text_for_too_long(node: ScriptedNode, run) -> None:
    node.waits, node.pieces = True, ()
    ran = run("chat", "--once", "Hi", "--timeout", "0.1")
    assert ran.code == 1
    assert "--timeout" in ran.err
    assert node.asked_for(StopAnswer).conversation == "c1"


def test_lines_from_a_pipe_are_questions(
    node: ScriptedNode, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("One?\n\nTwo?\n/new\nThree?\n/quit\nFour?\n"))
    ran = run("chat")
    assert (ran.code, ran.out) == (0, "Hello world\n" * 3)
    sent = [one for one in node.asked if isinstance(one, SendMessage)]
    assert [(one.conversation, one.text) for one in sent] == [
        ("c1", "One?"), ("c1", "Two?"), ("c2", "Three?")
    ]  # fmt: skip


def test_a_failed_answer_does_not_end_the_conversation(
    node: ScriptedNode, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.end, node.error = EndReason.FAILED, ("Blocks are missing.", "Wait.")
    monkeypatch.setattr(sys, "stdin", io.StringIO("One?\nTwo?\n"))
    ran = run("chat")
    assert ran.code == 1
    assert ran.err.count("superbloom: Blocks are missing.") == 2


# --- as a process -----------------------------------------------------------------------------


def test_ctrl_c_stops_the_answer_on_the_node(node: ScriptedNode, start: Start) -> None:
    node.waits = True
    chat = start("chat", "--once", "Hi")
    assert node.answering.wait(60)
    chat.send_signal(signal.SIGINT)
    out, err = chat.communicate(timeout=60)
    assert (chat.returncode, out, err) == (130, "Hello world\n", "")
    assert node.asked_for(StopAnswer).conversation == "c1"


def test_a_second_ctrl_c_does_not_wait_for_the_node(node: ScriptedNode, start: Start) -> None:
    node.waits, node.stop_ends = True, False
    chat = start("chat", "--once", "Hi")
    assert node.answering.wait(60)
    chat.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 60
    while not any(isinstance(one, StopAnswer) for one in node.asked):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    chat.send_signal(signal.SIGINT)
    out, err = chat.communicate(timeout=60)
    assert (chat.returncode, out) == (130, "Hello world\n")
    assert "Traceback" not in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_system_ends_it_at_once(
    node: ScriptedNode, start: Start, number: signal.Signals, code: int
) -> None:
    node.waits = True
    chat = start("chat", "--once", "Hi")
    assert node.answering.wait(60)
    chat.send_signal(number)
    _, err = chat.communicate(timeout=60)
    assert (chat.returncode, err) == (code, "")
    assert node.asked_for(StopAnswer).conversation == "c1"


def test_a_line_in_another_encoding_is_asked_all_the_same(
    node: ScriptedNode, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")
    chat = start("chat")
    assert chat.stdin is not None
    chat.stdin.buffer.write(b"Gr\xfc\xdfe?\n")
    out, err = chat.communicate(timeout=60)
    assert (chat.returncode, out, err) == (0, "Hello world\n", "")
    assert node.asked_for(SendMessage).text == "Gr\ufffd\ufffde?"


def test_a_reader_that_went_away(node: ScriptedNode, start: Start) -> None:
    node.pieces = ("word " * 1000,) * 50
    chat = start("chat", "--once", "Hi")
    assert chat.stdout is not None
    chat.stdout.read(5)
    chat.stdout.close()
    assert chat.wait(60) == 1
    assert chat.stderr is not None
    assert "Traceback" not in chat.stderr.read()


class Terminal:
    """A chat on a terminal of its own."""

    def __init__(self, start: Start) -> None:
        self._ours, theirs = pty.openpty()
        self.process = start("chat", stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self.said = ""

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def interrupt_prompt(self) -> None:
        """Ctrl-C, and again where it fell between the prompt and the wait for a key.

        readline notices a signal of that instant only with the next one.
        """
        for _ in range(30):
            self.process.send_signal(signal.SIGINT)
            if select.select([self._ours], [], [], 2.0)[0] or self.process.poll() is not None:
                return

    def hears(self, words: str) -> str:
        """Wait until `words` were said; everything up to and with them, which is then used up."""
        deadline = time.monotonic() + 60
        while words not in self.said:
            ready, _, _ = select.select([self._ours], [], [], 1.0)
            assert time.monotonic() < deadline, self.said
            if ready:
                self.said += os.read(self._ours, 4096).decode()
        before, _, self.said = self.said.partition(words)
        return before + words

    def close(self) -> None:
        os.close(self._ours)


@pytest.fixture
def terminal(node: ScriptedNode, start: Start) -> Iterator[Terminal]:
    made = Terminal(start)
    yield made
    made.process.kill()
    made.close()


def test_a_conversation_on_a_terminal(node: ScriptedNode, terminal: Terminal) -> None:
    terminal.hears("> ")
    terminal.type("Hi?\n")
    assert "Hello world" in terminal.hears("3 tokens")
    terminal.hears("> ")
    terminal.type("\x04")
    assert terminal.process.wait(60) == 0


def test_ctrl_c_stops_an_answer_and_keeps_the_chat(node: ScriptedNode, terminal: Terminal) -> None:
    node.waits = True
    terminal.hears("> ")
    terminal.type("Hi?\n")
    assert node.answering.wait(60)
    terminal.hears("Hello world")
    terminal.process.send_signal(signal.SIGINT)
    terminal.hears("stopped")
    terminal.hears("> ")
    node.waits = False
    terminal.type("More?\n")
    terminal.hears("3 tokens")
    terminal.hears("> ")
    assert terminal.process.poll() is None
    terminal.interrupt_prompt()
    terminal.hears("once more")
    terminal.hears("> ")
    terminal.interrupt_prompt()
    assert terminal.process.wait(60) == 130


def test_the_model_does_not_steer_the_terminal(node: ScriptedNode, terminal: Terminal) -> None:
    node.pieces = ("a\x1b]0;owned\x07b\x9b31m",)
    terminal.hears("> ")
    terminal.type("Hi?\n")
    assert "a]0;ownedb31m" in terminal.hears("1 tokens")


# --- the node itself --------------------------------------------------------------------------


def test_a_wrong_token_is_no_node_of_ours(node: ScriptedNode, run) -> None:
    stranger = NodeAddress(port=node.address.port, token="wrong", pid=1, version="1")
    write_address(node.file, stranger)
    ran = run("status")
    assert ran.code == 1
    assert ran.err.startswith("superbloom: No node is running on ")
    assert node.asked == []
