"""Code that stands in a list is indented with the list, and is copied without that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbloom.window.chat.markdown_parts import Part, PartKind, split_markdown

LINES = st.sampled_from(["   ```python", "   ```", "  x = 1", "    y", "", "1. Do:", " ", "text"])


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("1. Do:\n   ```python\n   def f():\n       return 1\n   ```\n", "def f():\n    return 1"),
        ("- Do:\n  ```\n  a\n b\nc\n  ```\n", "a\nb\nc"),
        ("```\n   kept\n```\n", "   kept"),
        ("   ```\n   a\n\n   b", "a\n\nb"),
        ("  ~~~\n\tkept\n  ~~~", "\tkept"),
    ],
)
def test_the_indentation_of_the_fence_is_taken_off(source: str, code: str) -> None:
    assert [part.text for part in split_markdown(source) if part.kind is PartKind.CODE] == [code]


@given(st.lists(LINES, max_size=12).map("\n".join), st.integers(min_value=0, max_value=200))
def test_growing_text_gives_the_same_parts(source: str, length: int) -> None:
    before = split_markdown(source[:length])
    if before:
        start = before[-1].start
        again = (
            Part(part.kind, part.start + start, part.text, part.language)
            for part in split_markdown(source[start:])
        )
        assert (*before[:-1], *again) == split_markdown(source)
