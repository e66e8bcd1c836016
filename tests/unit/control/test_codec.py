"""Every message survives the wire; what is odd is refused."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superbloom.control.codec import (
    CONTROL,
    MAX_LINE_BYTES,
    MAX_REQUEST_BYTES,
    Message,
    decode,
    encode,
)
from superbloom.control.messages import (
    ChatDelta,
    Done,
    GetStatus,
    GetTranscript,
    Notice,
    NoticeLevel,
    SendMessage,
    StartShare,
)
from superbloom.domain.errors import (
    ControlRefused,
    InputRejected,
    SuperbloomError,
    error_classes,
)
from superbloom.domain.sampling import SamplingSettings
from superbloom.domain.sharing import ShareRequest
from superbloom.domain.span import Span

CLASSES = get_args(Message)

numbers = st.floats(allow_nan=False, allow_infinity=False)
st.register_type_strategy(float, numbers)
spans = st.builds(lambda start, length: Span(start, start + length), st.integers(0), st.integers(1))
st.register_type_strategy(Span, spans)
st.register_type_strategy(
    SamplingSettings,
    st.builds(
        SamplingSettings,
        temperature=st.floats(0, 5),
        top_k=st.integers(0),
        top_p=st.floats(0.001, 1),
        min_p=st.floats(0, 0.99),
        repetition_penalty=st.floats(0.1, 10),
        seed=st.none() | st.integers(),
        stop=st.lists(st.text(min_size=1)).map(tuple),
        max_tokens=st.integers(1),
    ),
)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_message_comes_back_as_it_was(kind: type) -> None:
    @settings(max_examples=15, deadline=None)
    @given(st.from_type(kind), st.none() | st.integers(0))
    def round_trip(message: Any, number: int | None) -> None:
        wire = encode(message, number)
        assert wire.endswith(b"\n")
        assert wire.count(b"\n") == 1
        line = decode(wire)
        assert line.message == message
        assert line.id == number
        assert type(line.message) is kind

    round_trip()


def test_names_are_unique() -> None:
    assert len({kind.__name__ for kind in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("kind", error_classes().values(), ids=lambda kind: kind.__name__)
def test_errors_come_back_with_their_class(kind: type[SuperbloomError]) -> None:
    line = decode(encode(kind("It broke.", "Mend it."), 3))
    assert line.id == 3
    assert type(line.message) is kind
    assert (line.message.message, line.message.next_step) == ("It broke.", "Mend it.")


def test_an_unknown_error_code_becomes_the_root_error() -> None:
    body = {"code": "from_the_future", "message": "m", "next_step": "n"}
    line = decode(json.dumps({"type": "error", "body": body}).encode())
    assert type(line.message) is SuperbloomError


def wire(type: str, body: object, **more: object) -> bytes:
    return json.dumps({"type": type, "body": body, **more}).encode()


DELTA = {"conversation": "c", "message": "m", "text": "t", "tokens": 1, "tokens_per_second": 1.5}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"GetStatus"',
        b"\xff\xfe\n",
        b"[" * 200_000,
        b'{"type": "Done"}',
        b'{"type": "Done", "body": {}, "more": 1}',
        b'{"type": ["Done"], "body": {}}',
        wire("Done", {}, id="1"),
        wire("Done", {}, id=1.0),
        wire("Done", {}, id=True),
        wire("Nothing", {}),
        wire("Span", {"start": 0, "end": 1}),
        wire("Done", None),
        wire("Done", []),
        wire("Done", {"a": 1}),
        wire("GetTranscript", {}),
        wire("GetTranscript", {"conversation": 5}),
        wire("GetTranscript", {"conversation": None}),
        wire("GetTranscript", {"conversation": "\ud800"}),
        wire("ChatDelta", DELTA | {"tokens": 1.0}),
        wire("ChatDelta", DELTA | {"tokens": True}),
        wire("ChatDelta", DELTA | {"tokens": "1"}),
        wire("ChatDelta", DELTA | {"tokens_per_second": "1"}),
        wire("ChatDelta", DELTA | {"tokens_per_second": False}),
        wire("ChatDelta", DELTA | {"tokens_per_second": float("nan")}),
        wire("ChatDelta", DELTA | {"tokens_per_second": float("inf")}),
        wire("ChatDelta", DELTA | {"tokens_per_second": 10**400}),
        wire("ChatDelta", DELTA).replace(b"1.5", b"1e999"),
        wire("StopShare", {"drain": 1}),
        wire("StartShare", {"request": {"model": "m", "span": {"start": 3, "end": 3}}}),
        wire("StartShare", {"request": {"model": "m", "span": [0, 3]}}),
        wire("StartShare", {"request": {"model": "m", "precision": "fp1"}}),
        wire("StartShare", {"request": {"model": "m", "precision": ["fp32"]}}),
        wire("ConversationList", {"conversations": {}}),
        wire("error", {"code": "x"}),
        wire("error", {"code": 1, "message": "m", "next_step": "n"}),
        b" " * (MAX_LINE_BYTES + 1),
    ],
    ids=lambda line: line[:60].decode(errors="replace"),
)
def test_odd_lines_are_refused(line: bytes) -> None:
    with pytest.raises(ControlRefused):
        decode(line)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(line: bytes) -> None:
    with pytest.raises(ControlRefused):
        decode(line)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.sampled_from([kind.__name__ for kind in CLASSES]), json_values, st.data())
def test_random_bodies_are_refused_or_read(name: str, body: object, data: st.DataObject) -> None:
    kind = next(kind for kind in CLASSES if kind.__name__ == name)
    if data.draw(st.booleans()):
        body = {field: data.draw(json_values) for field in kind.__dataclass_fields__}
    try:
        message = CONTROL.decode(json.dumps({"type": name, "body": body}).encode()).message
    except (ControlRefused, InputRejected):
        return
    assert type(message) is kind


def test_absent_fields_take_their_default() -> None:
    line = decode(wire("SendMessage", {"conversation": "c", "text": "t"}))
    assert line.message == SendMessage(conversation="c", text="t")


def test_a_setting_out_of_range_is_refused_in_its_own_words() -> None:
    body = {"conversation": "c", "text": "t", "sampling": {"temperature": 9}}
    with pytest.raises(InputRejected, match="temperature"):
        decode(wire("SendMessage", body))


def test_a_whole_number_serves_as_a_float() -> None:
    message = decode(wire("ChatDelta", DELTA | {"tokens_per_second": 2})).message
    assert isinstance(message.tokens_per_second, float)


def test_what_cannot_be_written_is_refused() -> None:
    for message in (
        Span(0, 1),
        "text",
        GetTranscript(conversation="\udc80"),
        GetTranscript(conversation="x" * MAX_REQUEST_BYTES),
        Notice(level=NoticeLevel.INFO, message="x" * MAX_LINE_BYTES),
        ChatDelta(conversation="c", message="m", text="", tokens=0, tokens_per_second=float("nan")),
    ):
        with pytest.raises(ControlRefused):
            encode(message)


def test_the_form_on_the_wire() -> None:
    message = StartShare(request=ShareRequest(model="é", span=Span(2, 5)))
    assert json.loads(encode(message, 7)) == {
        "id": 7,
        "type": "StartShare",
        "body": {
            "request": {
                "model": "é",
                "span": {"start": 2, "end": 5},
                "memory_bytes": None,
                "precision": None,
                "device": None,
                "threads": None,
            }
        },
    }
    assert json.loads(encode(Done())) == {"type": "Done", "body": {}}
    assert decode(encode(GetStatus(), 0)).id == 0
