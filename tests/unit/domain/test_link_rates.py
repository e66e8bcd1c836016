"""What is known of links, and when a prompt waits for one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from superbloom.domain.link_rates import (
    FELT_SECONDS,
    KNOWN_SECONDS,
    MOST_PEERS,
    LinkRates,
    is_bottleneck,
)

RATES = st.floats(1, 1e12)


def test_nothing_is_known_at_first() -> None:
    assert LinkRates().bytes_per_second("a", 0.0) is None


def test_each_peer_has_its_own_link() -> None:
    rates = LinkRates()
    rates.note("a", 10.0, 1.0)
    rates.note("b", 20.0, 1.0)
    assert (rates.bytes_per_second("a", 1.0), rates.bytes_per_second("b", 1.0)) == (10.0, 20.0)


@given(RATES, st.floats(0, 2 * KNOWN_SECONDS))
def test_a_link_is_forgotten_after_a_while(rate: float, later: float) -> None:
    rates = LinkRates()
    rates.note("a", rate, 0.0)
    known = rates.bytes_per_second("a", later)
    assert known == (rate if later <= KNOWN_SECONDS else None)


def test_what_was_forgotten_does_not_count_with_what_comes_later() -> None:
    rates = LinkRates()
    rates.note("a", 1e9, 0.0)
    rates.note("a", 1e9, 0.0)
    rates.note("a", 5.0, KNOWN_SECONDS + 1)
    assert rates.bytes_per_second("a", KNOWN_SECONDS + 1) == 5.0


@given(st.lists(RATES, max_size=5), RATES, st.floats(0.001, 0.1), st.booleans())
def test_one_hiccup_among_three_counts_nothing(
    before: list[float], rate: float, hiccup: float, first: bool
) -> None:
    rates = LinkRates()
    latest = [rate * hiccup, rate, rate] if first else [rate, rate, rate * hiccup]
    for noted in (*before, *latest):
        rates.note("a", noted, 0.0)
    assert rates.bytes_per_second("a", 0.0) == rate


def test_a_peer_that_was_slow_once_is_trusted_again_at_the_next_step() -> None:
    rates = LinkRates()
    rates.note("a", 10.0, 0.0)
    rates.note("a", 1e9, 0.0)
    assert rates.bytes_per_second("a", 0.0) == 1e9


def test_strangers_do_not_fill_the_memory() -> None:
    rates = LinkRates()
    for number in range(MOST_PEERS + 10):
        rates.note(str(number), 1.0, 0.0)
    assert rates.bytes_per_second("0", 0.0) is None
    assert rates.bytes_per_second(str(MOST_PEERS + 9), 0.0) == 1.0


@given(RATES, st.integers(1, 2**26), st.floats(0, 100))
def test_a_link_holds_up_a_prompt_only_if_it_takes_longer_than_computing(
    rate: float, nbytes: int, computing: float
) -> None:
    if is_bottleneck(rate, nbytes, computing):
        assert nbytes / rate >= computing * (1 - 1e-9)
        assert nbytes / rate >= FELT_SECONDS * (1 - 1e-9)
        assert is_bottleneck(rate / 2, nbytes, computing)
        assert is_bottleneck(rate, 2 * nbytes, computing)


def test_home_lines_and_loopback() -> None:
    chunk = 256 * 4096 * 2
    assert is_bottleneck(10e6 / 8, chunk, computing_seconds=0.5)
    assert not is_bottleneck(10e6 / 8, chunk, computing_seconds=5.0)
    assert not is_bottleneck(1e9 / 8, chunk, computing_seconds=0.01)
