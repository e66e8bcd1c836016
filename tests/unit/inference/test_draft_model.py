"""A small model's guesses are those of its whole text, however it came to read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from superbloom.domain.model_card import Precision
from superbloom.domain.sampling import SamplingSettings
from superbloom.domain.span import Span
from superbloom.inference import draft_model as draft_module
from superbloom.inference.device import CPU
from superbloom.inference.draft_model import DraftModel, DraftText
from superbloom.inference.ends import ClientEnds
from superbloom.inference.foresight import Foresight, Guess
from superbloom.inference.stage import Stage

VOCABULARY = 128
GREEDY = Foresight(SamplingSettings(temperature=0), seed=0)
BLOCKS = 4


@pytest.fixture(scope="module")
def exact(llama_folder: Path) -> DraftModel:
    """The tiny llama in fp32, whose guesses transformers can repeat."""
    stage = Stage.load(llama_folder, Span(0, BLOCKS), precision=Precision.FP32, device=CPU)
    ends = ClientEnds.load(llama_folder, precision=Precision.FP32, device=CPU)
    return DraftModel(stage, ends, context_tokens=2048)


def likeliest(scores: Tensor) -> Guess:
    return GREEDY.choose(scores, 0)


def asked(text: DraftText, *assumed: int) -> Guess:
    """The guess, once everything is read."""
    for _ in range(100):
        guess = text.guess(assumed, likeliest)
        if guess is not None:
            return guess
    raise AssertionError("it never comes to an end")


def fresh(model: DraftModel, tokens: list[int]) -> Guess:
    text = model.text(VOCABULARY)
    text.extend(tokens)
    return asked(text)


def test_it_guesses_the_likeliest_token_with_its_probability(
    exact: DraftModel, tiny_model: Callable[[str], PreTrainedModel]
) -> None:
    tokens = [5, 17, 3, 44, 9]
    with torch.inference_mode():
        scores = tiny_model("llama")(torch.tensor([tokens])).logits[0, -1].float()
    guess = fresh(exact, tokens)
    assert guess.token == int(scores.argmax())
    assert guess.belief == pytest.approx(float(scores.softmax(0).max()), rel=1e-3)


def test_guesses_follow_each_other_as_the_model_would_write(
    exact: DraftModel, tiny_model: Callable[[str], PreTrainedModel]
) -> None:
    prompt = [5, 17, 3, 44, 9]
    with torch.inference_mode():
        written = tiny_model("llama").generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=0
        )
    text, assumed = exact.text(VOCABULARY), list[int]()
    text.extend(prompt)
    for _ in range(12):
        assumed.append(asked(text, *assumed).token)
    assert assumed == written[0, len(prompt) :].tolist()


TOKENS = st.lists(st.integers(0, VOCABULARY - 1), max_size=6)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=6))
def test_going_back_leaves_nothing_of_what_was_wrong(
    exact: DraftModel, steps: list[tuple[list[int], list[int]]]
) -> None:
    text, certain = exact.text(VOCABULARY), list[int]()
    for grown, assumed in steps:
        text.extend(grown)
        certain += grown
        if not certain and not assumed:
            assert text.guess((), likeliest) is None
            continue
        found, expected = asked(text, *assumed), fresh(exact, [*certain, *assumed])
        assert found.token == expected.token
        assert found.belief == pytest.approx(expected.belief, rel=1e-3)


def test_much_is_read_in_parts(exact: DraftModel, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [n * 7 % VOCABULARY for n in range(50)]
    expected = fresh(exact, tokens)
    monkeypatch.setattr(draft_module, "CHUNK_TOKENS", 16)
    text = exact.text(VOCABULARY)
    text.extend(tokens)
    assert [text.guess((), likeliest) for _ in range(3)] == [None, None, None]
    found = text.guess((), likeliest)
    assert found
    assert found.token == expected.token
    assert text.guess((), likeliest) == found  # nothing is read twice


def test_of_a_long_text_only_the_end_is_read(
    exact: DraftModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft_module, "READ_TOKENS", 20)
    monkeypatch.setattr(draft_module, "HELD_TOKENS", 60)
    tokens = [n * 11 % VOCABULARY for n in range(200)]
    text = exact.text(VOCABULARY)
    text.extend(tokens[:100])
    assert asked(text).token == fresh(exact, tokens[80:100]).token
    for n in range(100, 200):  # it grows beyond what is held, and begins anew
        text.extend(tokens[n : n + 1])
        assert asked(text, 1, 2).belief > 0
        assert len(text._held) <= 60


def test_it_guesses_no_token_that_the_large_model_lacks(exact: DraftModel) -> None:
    tokens = [5, 17, 3, 44, 9]
    best = fresh(exact, tokens).token
    text = exact.text(best)
    text.extend(tokens)
    assert asked(text).token < best


def test_a_token_that_the_small_model_lacks_is_read_as_another(exact: DraftModel) -> None:
    text = exact.text(1000)
    text.extend([5, 17, 999, 3])
    assert 0 <= asked(text).token < VOCABULARY


def test_it_is_loaded_in_8_bits_and_guesses_much_the_same(
    llama_folder: Path, exact: DraftModel
) -> None:
    model = DraftModel.load(llama_folder)
    assert model.vocabulary == VOCABULARY
    tokens = [5, 17, 3, 44, 9]
    assert fresh(model, tokens).belief == pytest.approx(fresh(exact, tokens).belief, rel=0.2)
    assert model.threads(8) == 1


def test_what_cannot_be_held_in_8_bits_is_held_otherwise(
    tiny_model: Callable[[str], PreTrainedModel],
) -> None:
    model = DraftModel.load(Path(tiny_model("gpt-oss").name_or_path))
    assert fresh(model, [5, 17, 3]).belief > 0
