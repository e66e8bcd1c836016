"""Windows are exact, pay where text repeats and cost next to nothing where it does not."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbloom.domain.drafting import Draft, EarlierText, NoDrafts
from superbloom.domain.speculation import MOST_WINDOWS, Speculation

from .simulated_ring import Ring, checked


def speedup(ring: Callable[[], Ring], prompt: Sequence[int], answer: Sequence[int]) -> float:
    plain = ring().seconds(NoDrafts(), prompt, answer)
    return plain / ring().seconds(EarlierText(), prompt, answer)


def code_given_back(changed: float, tokens: int = 800) -> tuple[list[int], list[int]]:
    """A text, and the same with so many of its tokens changed."""
    chance = random.Random(4)
    text = [chance.randrange(400) for _ in range(tokens)]
    return text, [t if chance.random() > changed else chance.randrange(400) for t in text]


def prose(tokens: int = 1500, seed: int = 5) -> tuple[list[int], list[int]]:
    """A text with turns of phrase that recur, and go on differently most of the time."""
    chance = random.Random(seed)
    weights = list(accumulate(1 / (rank + 2) for rank in range(300)))
    phrases = [[chance.randrange(2000) for _ in range(chance.randint(2, 4))] for _ in range(300)]
    text: list[int] = []
    while len(text) < 2 * tokens:
        text += chance.choices(phrases, cum_weights=weights)[0]
    return text[:tokens], text[tokens : 2 * tokens]


LONG_LINKS = [0.025, 0.025, 0.025]


def distant() -> Ring:
    """Two servers 25 ms apart that compute for 40 ms, a little more for more tokens."""
    return Ring(LONG_LINKS, lambda tokens: 0.02 * (1 + 0.05 * (tokens - 1)))


def distant_processors() -> Ring:
    """As `distant`, where each token costs half as much again."""
    return Ring(LONG_LINKS, lambda tokens: 0.02 * (1 + 0.5 * (tokens - 1)))


def one_processor() -> Ring:
    """One server at hand, where two tokens take nearly twice as long as one."""
    return Ring([0.001, 0.001], lambda tokens: 0.08 * (1 + 0.9 * (tokens - 1)))


def accelerator() -> Ring:
    """One server at hand, to which a window is as cheap as a token."""
    return Ring([0.001, 0.001], lambda tokens: 0.02 * (1 + 0.01 * (tokens - 1)))


def jumpy() -> Ring:
    """One server at hand that is quick with single tokens only."""
    return Ring([0.001, 0.001], lambda tokens: 0.02 if tokens == 1 else 0.07)


RINGS = [distant, distant_processors, one_processor, accelerator, jumpy]


@pytest.mark.parametrize(
    ("ring", "least"),
    [(distant, 5.0), (distant_processors, 2.5), (accelerator, 4.0), (jumpy, 1.2)],
)
def test_text_given_back_comes_much_faster(ring: Callable[[], Ring], least: float) -> None:
    assert speedup(ring, *code_given_back(changed=0.03)) >= least


@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize("seed", range(4))
def test_prose_is_hardly_ever_slower(ring: Callable[[], Ring], seed: int) -> None:
    assert speedup(ring, *prose(seed=seed)) >= 0.97


@pytest.mark.parametrize("ring", RINGS)
def test_text_that_never_repeats_costs_nothing(ring: Callable[[], Ring]) -> None:
    text = list(range(1000))
    assert speedup(ring, text[:500], text[500:]) >= 0.999


@pytest.mark.parametrize("ring", RINGS)
def test_matches_that_mislead_are_soon_distrusted(ring: Callable[[], Ring]) -> None:
    text = [token for n in range(300) for token in (1, 2, 3, 10 + n)]
    assert speedup(ring, text[:400], text[400:]) >= 0.97


def test_windows_follow_each_other_where_links_are_long() -> None:
    ring = distant()
    ring.seconds(EarlierText(), *code_given_back(changed=0.0))
    assert ring.most_under_way == MOST_WINDOWS


def test_nothing_is_sent_ahead_for_long_where_the_server_is_the_bottleneck() -> None:
    prompt, answer = code_given_back(changed=0.0, tokens=2000)
    ring, late = accelerator(), 0
    back_at = ring.back_at

    def counted(now: float, tokens: int, slower: float) -> float:
        nonlocal late
        late += ring._free[0] > now
        return back_at(now, tokens, slower)

    ring.back_at = counted  # type: ignore[method-assign]
    ring.seconds(EarlierText(), prompt, answer)
    assert late < 12


class Told:
    """Proposes the truth, or what it is told to instead."""

    growing = False
    at_work = False

    def __init__(self, truth: Sequence[int], wrong_at: frozenset[int]) -> None:
        self._truth = [-t - 1 if n in wrong_at else t for n, t in enumerate(truth)]
        self._known = 0

    def extend(self, token_ids: Sequence[int]) -> None:
        self._known += len(token_ids)

    def propose(self, assumed: Sequence[int], most: int) -> list[Draft]:
        begin = self._known + len(assumed)
        return [Draft(token, 20) for token in self._truth[begin : begin + most]]


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=120),
    st.frozensets(st.integers(0, 120), max_size=8),
)
def test_whatever_is_guessed_every_token_is_sent_once_and_in_order(
    truth: list[int], wrong_at: frozenset[int]
) -> None:
    speculation = Speculation(Told(truth, wrong_at))
    speculation.settle(truth[:1], 0.0)
    held, done, under_way, now = 0, 1, 0, 0.0
    sent: list[int] = []
    while done < len(truth):
        while window := speculation.next_window(len(truth) - done, now):
            assert len(sent) + len(window) < len(truth) or not wrong_at
            assert len(sent) + len(window) <= len(truth) - 1
            sent += window
            under_way += 1
        assert 1 <= under_way <= MOST_WINDOWS
        assert sent[held:done] == truth[held:done]
        now += 1.0
        written = checked(truth[done:], speculation.expected())
        done += len(written)
        under_way -= 1
        if not speculation.settle(written, now):
            del sent[done - 1 :]
            under_way = 0
        held = done - 1
    assert sent[: len(truth) - 1] == truth[:-1]
    assert speculation.accepted <= speculation.drafted
