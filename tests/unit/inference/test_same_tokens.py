"""Tokenizers are the same by what is in them; one token elsewhere is enough to refuse."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from superbloom.inference.same_tokens import TokenIds

MERGES = [("a", "b"), ("ab", "c")]


def made(
    *,
    letters: str = "abcde",
    merges: Sequence[tuple[str, str]] = MERGES,
    added: Sequence[str] = ("<end>",),
) -> TokenIds:
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    for first, second in merges:
        vocabulary.setdefault(first + second, len(vocabulary))
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, list(merges)))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(list(added))
    return TokenIds.of(backend)


def test_equal_ones_agree() -> None:
    assert made().agree_with(made())


def test_more_control_tokens_change_no_id_of_the_others() -> None:
    assert made().agree_with(made(added=("<end>", "<think>")))
    assert made(added=("<end>", "<think>")).agree_with(made())


@pytest.mark.parametrize(
    "other",
    [
        {"letters": "abced"},
        {"letters": "abcdef"},
        {"merges": [("a", "b"), ("b", "c")]},
        {"merges": [("ab", "c"), ("a", "b")]},
        {"added": ("<stop>",)},
        {"added": ("<think>", "<end>")},
    ],
)
def test_different_ones_do_not(other: dict[str, object]) -> None:
    different = made(**other)  # type: ignore[arg-type]
    assert not made().agree_with(different)
    assert not different.agree_with(made())


@pytest.mark.starter
def test_the_starter_agrees_with_itself(starter_folder: Path) -> None:
    tokens = TokenIds.read(starter_folder)
    assert tokens.agree_with(TokenIds.read(starter_folder))
    assert not tokens.agree_with(made())
