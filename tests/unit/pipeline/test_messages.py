"""Frames survive their way as bytes, and what is not a frame is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from frames import open_frame, step_frame
from superbloom.domain.errors import ProtocolViolation
from superbloom.domain.speculation import WINDOW_TOKENS
from superbloom.pipeline import messages
from superbloom.pipeline.messages import (
    MAX_STEP_TOKENS,
    NewEpoch,
    NextLost,
    Refused,
    Result,
    Step,
    decode_frame,
    encode_frame,
)
from superbloom.pipeline.tensor_codec import encode_compact, encode_hidden

HIDDEN = 4


@pytest.mark.parametrize(
    "frame",
    [
        open_frame(),
        NewEpoch(epoch=3, position=7, previous="peer"),
        NextLost(epoch=1, peer="é", words="It fell silent."),
        Refused(code="c", message="m", next_step="n"),
        messages.Probe(),
        messages.Close(),
    ],
)
def test_control_frames_round_trip(frame: messages.Frame) -> None:
    assert decode_frame(encode_frame(frame), hidden_size=HIDDEN) == frame


@given(st.integers(0, 9), st.integers(0, 99), st.integers(1, 5), st.booleans())
def test_steps_round_trip(epoch: int, position: int, tokens: int, replay: bool) -> None:
    hidden = torch.randn(tokens, HIDDEN)
    step = step_frame(hidden, epoch=epoch, position=position, replay=replay)
    back = decode_frame(encode_frame(step), hidden_size=HIDDEN)
    assert isinstance(back, Step)
    assert (back.epoch, back.position, back.keep, back.replay) == (epoch, position, 1, replay)
    assert back.end == position + tokens
    assert torch.equal(back.hidden, hidden)


def test_results_round_trip_without_rows() -> None:
    result = Result(epoch=1, position=5, end=9, hidden=torch.zeros(0, HIDDEN))
    back = decode_frame(encode_frame(result), hidden_size=HIDDEN)
    assert isinstance(back, Result)
    assert (back.position, back.end, back.hidden.shape[0]) == (5, 9, 0)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_in_words(data: bytes) -> None:
    try:
        decode_frame(data, hidden_size=HIDDEN)
    except ProtocolViolation as error:
        assert error.message.startswith("A peer sent")


@given(st.data())
def test_a_cut_step_is_refused(data: st.DataObject) -> None:
    whole = encode_frame(step_frame(torch.zeros(2, HIDDEN)))
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ProtocolViolation):
        decode_frame(whole[:cut], hidden_size=HIDDEN)


@pytest.mark.parametrize(
    "change",
    [
        {"start": -1},
        {"start": "0"},
        {"passes_replay": 1},
        {"max_tokens": 2**40},
        {"epoch": 1.5},
        {"extra": 1},
        {"model": None},
        {"model": "\ud800"},
    ],
)
def test_wrong_fields_are_refused(change: dict[str, object]) -> None:
    body = dataclasses.asdict(open_frame()) | change
    with pytest.raises(ProtocolViolation, match="Open"):
        decode_frame(bytes([16]) + json.dumps(body).encode(), hidden_size=HIDDEN)


def test_a_step_longer_than_allowed_is_refused() -> None:
    hidden = torch.zeros(MAX_STEP_TOKENS + 1, HIDDEN)
    frame = encode_frame(step_frame(hidden))
    with pytest.raises(ProtocolViolation, match="tokens"):
        decode_frame(frame, hidden_size=HIDDEN)


def test_deeply_nested_json_is_refused() -> None:
    with pytest.raises(ProtocolViolation):
        decode_frame(bytes([16]) + b"[" * 8000, hidden_size=HIDDEN)


def test_a_compact_step_says_so() -> None:
    hidden = torch.randn(WINDOW_TOKENS + 1, HIDDEN)
    step = Step(epoch=0, position=3, keep=1, replay=True, hidden=hidden, compact=True)
    back = decode_frame(encode_frame(step), hidden_size=HIDDEN)
    assert isinstance(back, Step)
    assert (back.compact, back.position, back.end) == (True, 3, 3 + WINDOW_TOKENS + 1)
    assert torch.allclose(back.hidden, hidden, atol=0.1)


def test_a_compact_step_of_an_answer_is_refused() -> None:
    hidden = torch.randn(WINDOW_TOKENS, HIDDEN)
    step = Step(epoch=0, position=0, keep=1, replay=False, hidden=hidden, compact=True)
    with pytest.raises(ProtocolViolation, match="8 bits"):
        decode_frame(encode_frame(step), hidden_size=HIDDEN)


def test_a_compact_result_is_refused() -> None:
    rows = torch.randn(20, HIDDEN)
    whole = encode_frame(Result(epoch=0, position=0, end=20, hidden=rows))
    exact = encode_hidden(rows)
    assert whole.endswith(exact)
    with pytest.raises(ProtocolViolation, match="unknown type"):
        decode_frame(whole[: -len(exact)] + encode_compact(rows), hidden_size=HIDDEN)
