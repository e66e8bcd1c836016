"""Cutting Markdown into parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbloom.window.chat.markdown_parts import (
    PIECE_CHARACTERS,
    Part,
    PartKind,
    keep_line_breaks,
    split_markdown,
)

LINES = st.sampled_from(
    [
        "```",
        "```python",
        "~~~",
        "````",
        "- item",
        "1. one",
        "text",
        "",
        "    indented",
        "> quote",
        "| a | b |",
        "``",
        "word " * 700,
        "# title",
    ]
)
SOURCES = st.lists(LINES, max_size=14).map("\n".join)


def test_prose_and_code_are_told_apart() -> None:
    parts = split_markdown("Look:\n\n```python\nprint(1)\n```\nDone.\n")
    assert [part.kind for part in parts] == [PartKind.PROSE, PartKind.CODE, PartKind.PROSE]
    assert parts[1].text == "print(1)"
    assert parts[1].language == "python"


def test_code_without_an_end_goes_on_to_the_end() -> None:
    parts = split_markdown("```\na\n\nb")
    assert parts == (Part(PartKind.CODE, 0, "a\n\nb"),)


def test_a_longer_fence_holds_shorter_ones() -> None:
    parts = split_markdown("````\n```\ninside\n```\n````\n")
    assert [part.text for part in parts] == ["```\ninside\n```"]


def test_long_prose_is_cut_between_paragraphs_and_not_inside_a_list() -> None:
    paragraph = "word " * 500
    listed = f"{paragraph}\n\n{paragraph}\n\n- one\n\n- two\n\n{paragraph}"
    parts = split_markdown(listed)
    assert len(parts) == 2
    assert parts[1].text.startswith("word")
    assert parts[0].text.rstrip().endswith("- two")
    assert len(parts[0].text) > PIECE_CHARACTERS


@given(SOURCES)
def test_nothing_is_lost_and_parts_follow_each_other(source: str) -> None:
    parts = split_markdown(source)
    starts = [part.start for part in parts]
    assert starts == sorted(set(starts))
    prose = "".join(part.text for part in parts if part.kind is PartKind.PROSE)
    assert all(part.text in source for part in parts)
    assert len(prose) <= len(source)


@given(SOURCES, st.integers(min_value=0, max_value=400))
def test_cutting_on_from_the_last_part_gives_the_same(source: str, length: int) -> None:
    before = split_markdown(source[:length])
    whole = split_markdown(source)
    if not before:
        return
    start = before[-1].start
    again = [
        Part(part.kind, part.start + start, part.text, part.language)
        for part in split_markdown(source[start:])
    ]
    assert (*before[:-1], *again) == whole


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("roses are red\nviolets are blue", "roses are red\u2028violets are blue"),
        ("one\n\ntwo", "one\n\ntwo"),
        ("- a\n- b", "- a\n- b"),
        ("| a | b |\n|---|---|", "| a | b |\n|---|---|"),
        ("Title\n=====", "Title\n====="),
        ("# Title\ntext", "# Title\ntext"),
        ("text\n> quote", "text\n> quote"),
    ],
)
def test_line_breaks_of_plain_paragraphs_are_kept(source: str, kept: str) -> None:
    assert keep_line_breaks(source) == kept
