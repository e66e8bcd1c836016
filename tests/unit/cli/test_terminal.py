"""What commands have in common on a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from superbloom.cli.terminal import Progress, printable, progress_in_words, size_in_words, table


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 kB"),
        (2048, "2 kB"),
        (93 * 1024**2, "93 MB"),
        (int(1.5 * 1024**3), "1.5 GB"),
        (140 * 1024**3, "140 GB"),
        (int(1.6 * 1024**4), "1.6 TB"),
    ],
)
def test_sizes(size: int, words: str) -> None:
    assert size_in_words(size) == words


def test_progress_in_words() -> None:
    assert progress_in_words("Fetching", 0, 0) == "Fetching"
    assert progress_in_words("Fetching", 3 << 20, 0) == "Fetching: 3 MB"
    assert progress_in_words("Fetching", 1 << 20, 4 << 20) == "Fetching: 1 MB of 4 MB (25 %)"


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[31mb\r\x00\x9b\u202ec\n\td é🌸") == "a[31mbc\n\td é🌸"


def test_columns_line_up() -> None:
    assert table(("A", "LONG"), [("aaa", "b"), ("c", "d")]) == "A    LONG\naaa  b\nc    d"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_one_line_is_replaced_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    progress = Progress()
    progress.say("one")
    progress.say("one")
    progress.say("two")
    progress.clear()
    progress.clear()
    assert screen.getvalue() == "\r\x1b[Kone\r\x1b[Ktwo\r\x1b[K"


def test_without_a_terminal_only_the_verbose_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    quiet = Progress()
    quiet.say("one")
    quiet.note("two")
    assert said.getvalue() == ""
    loud = Progress(verbose=True)
    for words in ("Fetching: 1", "Fetching: 2", "Reading"):
        loud.say(words)
    assert said.getvalue() == "Fetching: 1\nReading\n"
