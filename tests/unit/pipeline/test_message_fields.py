"""Fields of a message survive their way as JSON, and nothing else is taken for them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbloom.domain.errors import ProtocolViolation
from superbloom.pipeline.message_fields import decode_fields, encode_fields


@dataclass(frozen=True)
class Greeting:
    words: str
    times: int
    loud: bool


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
GREETINGS = st.builds(Greeting, words=WORDS, times=st.integers(0, 2**32 - 1), loud=st.booleans())


@given(GREETINGS)
def test_round_trip(greeting: Greeting) -> None:
    assert decode_fields(Greeting, encode_fields(greeting)) == greeting


@given(GREETINGS, st.sampled_from(["words", "times", "loud"]))
def test_a_field_that_lacks_or_is_of_another_type_is_refused(greeting: Greeting, name: str) -> None:
    for fields in (
        {key: value for key, value in asdict(greeting).items() if key != name},
        asdict(greeting) | {name: None},
        asdict(greeting) | {name: 1.5},
        asdict(greeting) | {"more": 1},
    ):
        with pytest.raises(ProtocolViolation, match="Greeting"):
            decode_fields(Greeting, json.dumps(fields).encode())


@given(st.binary(max_size=60))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="Greeting"):
        decode_fields(Greeting, data)


def test_what_is_too_long_is_refused() -> None:
    with pytest.raises(ProtocolViolation, match="too long"):
        decode_fields(Greeting, encode_fields(Greeting("x" * 2**14, 1, True)))
