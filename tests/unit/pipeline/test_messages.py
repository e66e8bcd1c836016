"""Frames survive their way as bytes, and what is not a frame is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from superbloom.domain.errors import ProtocolViolation
from superbloom.pipeline import messages
from superbloom.pipeline.messages import (
    MAX_STEP_TOKENS,
    NewEpoch,
    NextLost,
    Open,
    Refused,
    Result,
    Step,
    decode_frame,
    encode_frame,
)

HIDDEN = 4
OPEN = Open(
    session="ab" * 16,
    model="m",
    fingerprint="f",
    start=0,
    end=3,
    max_tokens=10,
    epoch=0,
    next="",
    next_session="",
    previous="",
    passes_replay=False,
    tag="00",
)


@pytest.mark.parametrize(
    "frame",
    [
        OPEN,
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
    step = Step(epoch=epoch, position=position, keep=1, replay=replay, hidden=hidden)
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
    whole = encode_frame(
        Step(epoch=0, position=0, keep=0, replay=False, hidden=torch.zeros(2, HIDDEN))
    )
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
    body = dataclasses.asdict(OPEN) | change
    with pytest.raises(ProtocolViolation, match="Open"):
        decode_frame(bytes([16]) + json.dumps(body).encode(), hidden_size=HIDDEN)


def test_a_step_longer_than_allowed_is_refused() -> None:
    hidden = torch.zeros(MAX_STEP_TOKENS + 1, HIDDEN)
    frame = encode_frame(Step(epoch=0, position=0, keep=0, replay=False, hidden=hidden))
    with pytest.raises(ProtocolViolation, match="tokens"):
        decode_frame(frame, hidden_size=HIDDEN)


def test_deeply_nested_json_is_refused() -> None:
    with pytest.raises(ProtocolViolation):
        decode_frame(bytes([16]) + b"[" * 8000, hidden_size=HIDDEN)
