"""Markdown cut into parts that can be drawn one by one: prose in pieces, and code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

PIECE_CHARACTERS = 3000
"""Prose is cut at the first harmless place after as many characters."""

LONGEST_PIECE = 12_000
"""... and at any line after as many, even in the middle of a list."""

_FENCE = re.compile(r"( {0,3})(`{3,}|~{3,})[ \t]*([^\s`]*)[^`]*$")
_CONTINUES = re.compile(r"\s|[-+*>|]|\d{1,9}[.)]|[=-]{2,}\s*$")
"""A line that may belong to the list, quote or table before it."""

_SPECIAL = re.compile(r"#|<|\[[^\]]*\]:|.*\|")
"""A line that means more than its words: a heading, a table row, a link's definition."""

LINE_SEPARATOR = "\u2028"
"""Breaks the line and not the paragraph."""


class PartKind(StrEnum):
    """How a part is drawn."""

    PROSE = "prose"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the source that begins at `start`; `text` of code is without its fences."""

    kind: PartKind
    start: int
    text: str
    language: str = ""


def split_markdown(source: str) -> tuple[Part, ...]:
    """The parts of `source` in order.

    Growing text changes only the last part and adds new ones: cutting again from the last part's
    start gives the same as cutting the whole.
    """
    parts: list[Part] = []
    lines = source.splitlines(keepends=True)
    number = offset = 0
    while number < len(lines):
        end = _code_end(lines, number)
        if end is None:
            end = _prose_end(lines, number)
            text = "".join(lines[number:end])
            parts.append(Part(PartKind.PROSE, offset, text))
        else:
            text = "".join(lines[number:end])
            parts.append(_code_part(lines[number:end], offset))
        offset += len(text)
        number = end
    return tuple(parts)


def keep_line_breaks(prose: str) -> str:
    """Prose whose line breaks stay where they stand, as poems and addresses mean them.

    Markdown would join the lines of a paragraph.
    """
    lines = prose.split("\n")
    kept = [lines[0]]
    for before, line in pairwise(lines):
        joined = _is_plain(before) and _is_plain(line)
        kept.append(LINE_SEPARATOR if joined else "\n")
        kept.append(line)
    return "".join(kept)


def _is_plain(line: str) -> bool:
    return bool(line.strip()) and not _CONTINUES.match(line) and not _SPECIAL.match(line)


def _code_end(lines: list[str], first: int) -> int | None:
    """The line after the code block that begins at `first`; None if none begins there."""
    opening = _FENCE.match(lines[first])
    if opening is None:
        return None
    for number in range(first + 1, len(lines)):
        if _closes(lines[number], opening[2]):
            return number + 1
    return len(lines)


def _closes(line: str, fence: str) -> bool:
    bare = line.strip()
    return len(bare) >= len(fence) and set(bare) == {fence[0]} and not line.startswith("    ")


def _prose_end(lines: list[str], first: int) -> int:
    length = len(lines[first])
    for number in range(first + 1, len(lines)):
        line = lines[number]
        if _FENCE.match(line) or length >= LONGEST_PIECE:
            return number
        after_gap = not lines[number - 1].strip()
        if length >= PIECE_CHARACTERS and after_gap and not _CONTINUES.match(line):
            return number
        length += len(line)
    return len(lines)


def _code_part(lines: list[str], offset: int) -> Part:
    opening = _FENCE.match(lines[0])
    assert opening is not None
    closed = len(lines) > 1 and _closes(lines[-1], opening[2])
    indent = len(opening[1])
    inside = "".join(_outdent(line, indent) for line in (lines[1:-1] if closed else lines[1:]))
    return Part(PartKind.CODE, offset, inside.removesuffix("\n"), opening[3])


def _outdent(line: str, indent: int) -> str:
    """Code in a list is indented with its fence; what goes beyond is the code's own."""
    return line[:indent].lstrip(" ") + line[indent:]
