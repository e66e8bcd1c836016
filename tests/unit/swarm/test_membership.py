"""Proofs of belonging to a swarm."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from superbloom.swarm.membership import TAG_BYTES, Membership

OURS = Membership("ours", b"k" * 32)


@given(st.lists(st.binary(max_size=20), max_size=4), st.lists(st.binary(max_size=20), max_size=4))
def test_a_tag_proves_exactly_these_parts(parts: list[bytes], others: list[bytes]) -> None:
    tag = OURS.tag(*parts)
    assert len(tag) == TAG_BYTES
    assert OURS.check(tag, *parts)
    assert OURS.check(tag, *others) == (parts == others)


def test_swarms_have_nothing_in_common() -> None:
    others = (Membership("ours", b"other" * 8), Membership("theirs", OURS.secret))
    for other in others:
        assert not other.check(OURS.tag(b"x"), b"x")
        assert other.key_of("m") != OURS.key_of("m")
        assert other.key_of_models() != OURS.key_of_models()
    assert OURS.key_of("m") not in (OURS.key_of("n"), OURS.key_of_models())
    assert OURS.key_of("m") == Membership("ours", b"k" * 32).key_of("m")


def test_the_secret_is_not_shown() -> None:
    assert "kkk" not in repr(OURS)


def test_random_tags_are_refused() -> None:
    assert not OURS.check(b"", b"x")
    assert not OURS.check(bytes(TAG_BYTES), b"x")
