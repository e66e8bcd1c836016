"""Plain values and the classes they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import pytest

from superbloom.domain.record import NotARecord, from_plain, to_plain


class Color(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    sizes: dict[Color, int]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    inner: Inner | None = None
    ratio: float = 1.0


VALUE = Outer(inner=Inner(sizes={Color.RED: 3}, names=("a", "b")), ratio=0.5)
PLAIN = {"inner": {"sizes": {"red": 3}, "names": ["a", "b"]}, "ratio": 0.5}


def test_there_and_back() -> None:
    assert to_plain(VALUE) == PLAIN
    assert from_plain(Outer, PLAIN) == VALUE
    assert from_plain(Outer, {}) == Outer()
    assert from_plain(Outer, {"inner": None}) == Outer()


def test_plain_text_is_plain() -> None:
    assert type(to_plain(Color.RED)) is str


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"inner": {}}, "Outer.inner lacks sizes"),
        ({"inner": {"sizes": {"blue": 1}}}, "Outer.inner.sizes must be one of red"),
        ({"inner": {"sizes": {"red": "1"}}}, "must be a whole number, not str"),
        ({"other": 1}, "Outer has no field 'other'"),
        ({"ratio": None}, "must be a number"),
        ({"inner": {"sizes": {}, "names": "ab"}}, "must be a list"),
        ({"inner": {"sizes": [], "names": []}}, "must be an object"),
        ([], "Outer must be an object"),
    ],
)
def test_the_refusal_says_where(plain: object, words: str) -> None:
    with pytest.raises(NotARecord) as caught:
        from_plain(Outer, plain)
    assert words in str(caught.value)


def test_what_has_no_plain_form() -> None:
    with pytest.raises(TypeError):
        to_plain({1, 2})
    with pytest.raises(TypeError):
        to_plain(b"bytes")
