"""What the commands have in common when they write to a terminal."""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from collections.abc import Sequence

from superbloom.domain.errors import InputRejected, SuperbloomError
from superbloom.domain.record import Plain

MIB = 1024**2


class WrongUsage(InputRejected):
    """The command line makes no sense: exit code 2."""


def print_error(error: SuperbloomError) -> None:
    """The sentence and its next step, on stderr."""
    sys.stderr.write(f"superbloom: {printable(error.message)}\n  {printable(error.next_step)}\n")
    sys.stderr.flush()


def print_json(value: Plain) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def printable(text: str) -> str:
    """Without control characters: what a model or a peer says must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(
        char for char in text if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf")
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns below their head line."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def size_in_words(size: float) -> str:
    """Bytes as people say them: 93 MB, 4.2 GB, 1.6 TB."""
    if size < MIB:
        return f"{size / 1024:.0f} kB"
    for unit in ("MB", "GB"):
        size /= 1024 if unit == "GB" else MIB
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 100 or unit == "MB" else f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TB"


def progress_in_words(words: str, done: int, total: int) -> str:
    """`words` and how far it is, in bytes."""
    if total <= 0:
        return words if done <= 0 else f"{words}: {size_in_words(done)}"
    percent = min(100, 100 * done // total)
    return f"{words}: {size_in_words(done)} of {size_in_words(total)} ({percent} %)"


class Progress:
    """What is going on, on stderr: one line that is replaced on a terminal, else new lines.

    Without a terminal it is silent unless `verbose`, and then says a thing at most once in 5 s
    unless it is of another kind.
    """

    QUIET_SECONDS = 5.0

    def __init__(self, *, verbose: bool = False) -> None:
        self._terminal = sys.stderr.isatty()
        self._verbose = verbose
        self._shown = ""
        self._kind = ""
        self._said_at = 0.0

    def say(self, words: str) -> None:
        """Show `words` in place of what was shown last."""
        words = printable(words).replace("\n", " ")
        if words == self._shown:
            return
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{words[:200]}")
        elif self._verbose and self._worth_a_line(words):
            sys.stderr.write(f"{words}\n")
        self._shown = words
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away, so that something else can be written."""
        if self._terminal and self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self._shown = ""

    def note(self, words: str) -> None:
        """Write `words` as a line that stays."""
        self.clear()
        if self._terminal or self._verbose:
            sys.stderr.write(f"{printable(words)}\n")
            sys.stderr.flush()

    def _worth_a_line(self, words: str) -> bool:
        kind, now = words.partition(":")[0], time.monotonic()
        if kind == self._kind and now - self._said_at < self.QUIET_SECONDS:
            return False
        self._kind, self._said_at = kind, now
        return True
