"""The model that guesses for another is small, here as a whole, of the same tokens, and fits."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models

from superbloom.control.messages import ModelInfo, ModelState
from superbloom.domain.budget import GIB
from superbloom.domain.model_card import Precision
from superbloom.inference.foresight import Guess
from superbloom.node.models.draft_choice import load_draft_for, needed_bytes, small_enough

from ..tiny_model import BLOCKS, write_tiny_model

BILLION = 10**9


def info(id: str, parameters: float, **changes: Any) -> ModelInfo:
    usual: dict[str, Any] = {
        "name": id,
        "licence": "",
        "family": "llama",
        "state": ModelState.READY,
        "blocks": BLOCKS,
        "hidden_size": 32,
        "context_tokens": 256,
        "block_bytes": {Precision.INT8: 10_000, Precision.BF16: 20_000},
        "client_bytes": 20_000,
        "cache_bytes_per_token": 100,
    }
    return ModelInfo(id=id, parameters=int(parameters), **{**usual, **changes})


def with_tokenizer(folder: Path, letters: str = "abcdef") -> Path:
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    tokenizers.Tokenizer(models.BPE(vocabulary, [])).save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def small(tmp_path: Path) -> ModelInfo:
    folder = with_tokenizer(write_tiny_model(tmp_path / "small"))
    return info("small", BILLION, folder=str(folder))


@pytest.fixture
def large(tmp_path: Path) -> ModelInfo:
    (tmp_path / "large").mkdir()
    return info("large", 70 * BILLION, folder=str(with_tokenizer(tmp_path / "large")))


def chosen(large: ModelInfo, *others: ModelInfo, free: int = 16 * GIB) -> str:
    found = load_draft_for(large.id, [large, *others], lambda: free)
    return found.id if found else ""


def test_the_largest_that_is_quick_comes_first_and_then_the_smallest_that_is_not() -> None:
    target = info("target", 70 * BILLION)
    here = [info(str(size), size * BILLION) for size in (0.1, 8, 1, 3, 0.5, 40)]
    order = [model.id for model in small_enough(target, [target, *here])]
    assert order == ["1", "0.5", "0.1", "3", "8"]


@pytest.mark.parametrize("state", [state for state in ModelState if state is not ModelState.READY])
def test_one_that_is_not_here_as_a_whole_is_none(state: ModelState) -> None:
    target = info("target", 70 * BILLION)
    assert not list(small_enough(target, [info("small", BILLION, state=state)]))


def test_one_that_is_large_itself_or_unknown_is_none() -> None:
    target = info("target", 2 * BILLION)
    assert not list(small_enough(target, [info("half", BILLION), info("odd", 0), target]))


def test_it_is_loaded_and_guesses(small: ModelInfo, large: ModelInfo) -> None:
    found = load_draft_for("large", [large, small], lambda: 16 * GIB)
    assert found
    text = found.model.text(200)
    text.extend([1, 2, 3])
    assert text.guess((), lambda scores: Guess(1, 0.5)) == Guess(1, 0.5)


def test_other_tokens_are_refused_and_the_next_one_is_tried(
    small: ModelInfo, large: ModelInfo, tmp_path: Path
) -> None:
    other = write_tiny_model(tmp_path / "other")
    better = info("better", 1.1 * BILLION, folder=str(with_tokenizer(other, "abcfed")))
    assert chosen(large, better) == ""
    assert chosen(large, better, small) == "small"


def test_one_that_is_damaged_is_passed_over_and_that_is_logged(
    small: ModelInfo, large: ModelInfo, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = with_tokenizer(write_tiny_model(tmp_path / "broken"))
    (folder / "model.safetensors").write_bytes(b"nothing")
    broken = info("broken", 1.1 * BILLION, folder=str(folder))
    with caplog.at_level(logging.WARNING):
        assert chosen(large, broken, small) == "small"
    assert "broken cannot guess ahead" in caplog.text


def test_one_that_does_not_fit_into_what_is_free_is_left(
    small: ModelInfo, large: ModelInfo
) -> None:
    assert needed_bytes(small) < GIB
    assert chosen(large, small, free=2 * GIB) == ""


def test_a_model_that_is_gone_has_none(small: ModelInfo) -> None:
    assert load_draft_for("gone", [small], lambda: 16 * GIB) is None
