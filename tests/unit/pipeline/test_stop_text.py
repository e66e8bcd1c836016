"""Text passes until a stop string, and no part of it is shown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from superbloom.pipeline.stop_text import StopText

ALPHABET = st.text("ab\n", max_size=12)


@given(
    st.lists(ALPHABET, max_size=8), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3)
)
def test_it_cuts_where_a_search_in_the_whole_text_would(parts: list[str], stops: list[str]) -> None:
    stop = StopText(stops)
    shown = "".join(stop.push(part) for part in parts) + stop.flush()
    whole = "".join(parts)
    found = [at for at in (whole.find(s) for s in stops) if at >= 0]
    if found:
        assert stop.found
        assert whole.startswith(shown)
        assert not any(s in shown for s in stops)
        assert len(shown) <= max(whole.find(s) for s in stops if s in whole)
    else:
        assert shown == whole


def test_text_that_cannot_begin_a_stop_string_is_shown_at_once() -> None:
    stop = StopText(["</end>"])
    assert stop.push("hello <") == "hello "
    assert stop.push("b>") == "<b>"
    assert stop.push("x</en") == "x"
    assert stop.push("d> more") == ""
    assert stop.found
    assert stop.push("even more") == ""
