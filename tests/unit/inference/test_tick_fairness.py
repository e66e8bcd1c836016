"""Whatever some clients have open on a server, each gets its turns, and no tick is long."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superbloom.domain.span import Span
from superbloom.inference.executor_figures import MEASURED_CHUNK, Figures
from superbloom.inference.roster import Roster
from superbloom.inference.step_queue import SHORT_TOKENS, Job, Session, Turn, add_job, by_blocks
from superbloom.inference.tick import CHUNK_SECONDS, CHUNK_TOKENS, choose_turns

BLOCKS = 6
WHOLE = Span(0, BLOCKS)
SPANS = [Span(*ends) for ends in itertools.combinations(range(BLOCKS + 1), 2)]
STEP_SECONDS = 0.1
TOKENS_PER_SECOND = 400.0
MOST_TOKENS = int(STEP_SECONDS * TOKENS_PER_SECOND)
"""Of one owner in a tick, while others wait."""


def session(owner: str, blocks: Span = WHOLE) -> Session:
    return Session(SimpleNamespace(blocks=blocks), 10**6, 0, owner)  # type: ignore[arg-type]


def job(tokens: int) -> Job:
    return Job(0, torch.zeros(1, 1).expand(tokens, 1), Future())


class Server:
    """Sessions and the ticks that compute them, in a time made up: a second a tick."""

    def __init__(self) -> None:
        self.roster = Roster()
        self.figures = Figures(BLOCKS)
        self.now = 1000.0
        self._names = itertools.count()
        some = session("")
        for tokens, seconds in (
            (MEASURED_CHUNK, MEASURED_CHUNK / TOKENS_PER_SECOND),
            *[(1, STEP_SECONDS)] * 3,
        ):
            self.figures.note([Turn(some, job(tokens), tokens)], seconds, self.now)

    def open(self, owner: str, blocks: Span = WHOLE, *tokens: int) -> Session:
        """A session that has steps of so many tokens waiting."""
        made = session(owner, blocks)
        self.roster.add(next(self._names).to_bytes(4), made)
        self.ask(made, *tokens)
        return made

    def ask(self, who: Session, *tokens: int) -> None:
        for count in tokens:
            add_job(who, job(count), self.now)

    def tick(self) -> list[Turn]:
        """The next tick's turns; then they are computed, as the executor does it."""
        self.now += 1
        turns = choose_turns(self.roster, self.figures, self.now)
        for turn in turns:
            turn.job.done += turn.tokens
            turn.session.decodes = not turn.job.is_prompt
            if not turn.job.left:
                turn.session.jobs.popleft()
                turn.session.finished_at = self.now + 1
        return turns

    def ticks_until(self, who: Session, most: int) -> int:
        """How many ticks come before the one with a turn of `who`; they must be few."""
        for count in range(most + 1):
            if any(turn.session is who for turn in self.tick()):
                return count
        raise AssertionError(f"no turn within {most} ticks")


def test_sessions_of_a_client_that_is_alone_share_one_tick() -> None:
    server = Server()
    made = [server.open("one", WHOLE, SHORT_TOKENS) for _ in range(CHUNK_TOKENS // SHORT_TOKENS)]
    assert {id(turn.session) for turn in server.tick()} == set(map(id, made))


def test_a_tick_has_the_short_steps_of_all_clients() -> None:
    server = Server()
    made = [server.open(f"client {n}", WHOLE, 1) for n in range(50)]
    turns = server.tick()
    assert {id(turn.session) for turn in turns} == set(map(id, made))
    assert len(by_blocks(turns)) == 1


def test_other_blocks_of_a_client_wait_for_the_next_tick() -> None:
    server = Server()
    for blocks in SPANS:
        for _ in range(2):
            server.open("greedy", blocks, 1)
    for _ in SPANS:
        turns = server.tick()
        assert len(turns) == 2
        assert len(by_blocks(turns)) == 1
    assert not server.tick()


def test_a_client_goes_along_on_blocks_that_another_asks_for() -> None:
    server = Server()
    for blocks in (Span(0, 2), Span(2, 4), Span(4, 6)):
        server.open("one", blocks, 1)
    server.open("other", Span(4, 6), 1)
    assert [len(group) for group in by_blocks(server.tick())] == [2, 1]
    assert [len(group) for group in by_blocks(server.tick())] == [1]


def test_who_has_little_to_do_comes_first_and_a_prompt_last() -> None:
    server = Server()
    for _ in range(3):
        server.open("greedy", Span(0, 3), 1)
    server.open("reader", Span(0, 3), 500)
    server.open("modest", Span(2, 4), 1)
    owners = [[turn.session.owner for turn in group] for group in by_blocks(server.tick())]
    assert owners == [["modest"], ["greedy"] * 3 + ["reader"]]


def test_beside_others_a_client_gets_so_many_tokens_as_take_a_step() -> None:
    server = Server()
    greedy = [server.open("greedy", WHOLE, 8, 8, 8, 8) for _ in range(64)]
    modest = server.open("modest", WHOLE, 1, 1, 1, 1)
    for _ in range(4):
        turns = server.tick()
        assert sum(turn.tokens for turn in turns if turn.session in greedy) == MOST_TOKENS
        assert any(turn.session is modest for turn in turns)


def test_who_will_soon_be_back_counts_as_one_who_waits() -> None:
    server = Server()
    modest = server.open("modest", WHOLE, 1)
    server.tick()
    server.now += 3
    server.ask(modest, 1)
    server.tick()
    for _ in range(64):
        server.open("greedy", WHOLE, 8)
    assert sum(turn.tokens for turn in server.tick()) == MOST_TOKENS
    server.now += 100
    assert sum(turn.tokens for turn in server.tick()) == 64 * 8 - MOST_TOKENS


def test_prompts_go_by_client_and_then_by_session() -> None:
    server = Server()
    greedy = [server.open("greedy", WHOLE, 2000) for _ in range(10)]
    modest = server.open("modest", WHOLE, 2000)
    turns = [turn.session for _ in range(12) for turn in server.tick()]
    assert turns[:8:2] + turns[8:] == greedy[:8]
    assert turns[1:8:2] == [modest] * 4


def test_nobody_goes_first_by_coming_anew() -> None:
    server = Server()
    modest = server.open("modest", WHOLE, 5000)
    for number in range(5):
        name = b"anew%d" % number
        server.roster.add(name, again := session("greedy"))
        server.ask(again, 400)
        assert server.ticks_until(modest, 1) <= 1
        server.roster.remove(name)


def test_own_steps_are_no_wait_for_others() -> None:
    server = Server()
    for blocks in SPANS:
        server.open("greedy", blocks, 1)
    for _ in SPANS:
        server.tick()
    assert server.figures.waiting_seconds(server.now) == pytest.approx(1)
    assert len(server.figures._waits) == 1


spans = st.sampled_from(SPANS)
lengths = st.one_of(st.integers(1, SHORT_TOKENS), st.integers(SHORT_TOKENS + 1, 3000))
opened = st.tuples(st.sampled_from(["x", "y", "z"]), spans, st.lists(lengths, max_size=4))
OWNERS = 4


def bounded(turns: list[Turn]) -> None:
    """Raises unless the tick is as short as it must be."""
    short = [turn for turn in turns if not turn.job.is_prompt]
    prompts = [turn for turn in turns if turn.job.is_prompt]
    owners = {turn.session.owner for turn in short}
    assert len(prompts) <= 1
    assert len(by_blocks(turns)) <= len(owners) + len(prompts)
    assert len({id(turn.session) for turn in turns}) == len(turns)
    for owner in owners:
        tokens = sum(turn.tokens for turn in short if turn.session.owner == owner)
        assert tokens <= (MOST_TOKENS if len(owners) > 1 else CHUNK_TOKENS)
    if short:
        assert all(turn.tokens <= CHUNK_SECONDS * TOKENS_PER_SECOND for turn in prompts)
    assert all(turn.tokens <= CHUNK_TOKENS for turn in prompts)


def crowded(server: Server, others: list[tuple[str, Span, list[int]]]) -> Iterator[list[Turn]]:
    """Ticks, before each of which what others have had computed is asked for again."""
    made = [(server.open(owner, blocks, *tokens), tokens) for owner, blocks, tokens in others]
    while True:
        for who, tokens in made:
            if tokens and len(who.jobs) < len(tokens):
                server.ask(who, tokens[len(who.jobs)])
        yield server.tick()


@settings(deadline=None)
@given(st.lists(opened, max_size=30), spans)
def test_a_short_step_is_in_the_next_tick_whatever_others_do(
    others: list[tuple[str, Span, list[int]]], blocks: Span
) -> None:
    server = Server()
    modest = server.open("modest", blocks)
    ticks = crowded(server, others)
    for _ in range(5):
        bounded(next(ticks))
        server.ask(modest, 1)
        turns = next(ticks)
        bounded(turns)
        assert modest in [turn.session for turn in turns]


@settings(deadline=None)
@given(st.lists(opened, max_size=30), spans)
def test_a_prompt_waits_for_a_chunk_of_each_other_client_at_most(
    others: list[tuple[str, Span, list[int]]], blocks: Span
) -> None:
    server = Server()
    modest = server.open("modest", blocks, 2000)
    ticks = crowded(server, others)
    waited = 0
    for _ in range(OWNERS * 21):
        turns = next(ticks)
        bounded(turns)
        waited = 0 if any(turn.session is modest for turn in turns) else waited + 1
        assert not modest.jobs or waited < OWNERS
    assert not modest.jobs


@settings(deadline=None)
@given(st.lists(opened, min_size=1, max_size=20))
def test_each_session_waits_for_those_of_its_own_client_at_most(
    others: list[tuple[str, Span, list[int]]],
) -> None:
    server = Server()
    ticks = crowded(server, others)
    waits: dict[Session, int] = {}
    for _ in range(60):
        turns = next(ticks)
        taken = {turn.session for turn in turns}
        for line in server.roster.lines:
            for who in line.sessions:
                waits[who] = 0 if who in taken or not who.jobs else waits.get(who, 0) + 1
                bound = len(line.sessions) * len(server.roster.lines)
                assert waits[who] <= bound


@settings(deadline=None)
@given(st.lists(opened, max_size=20))
def test_nothing_is_left_undone(others: list[tuple[str, Span, list[int]]]) -> None:
    server = Server()
    made = [server.open(owner, blocks, *tokens) for owner, blocks, tokens in others]
    left = sum(len(tokens) for _, _, tokens in others)
    for _ in range(100 * left):
        if not any(who.jobs for who in made):
            break
        assert server.tick()
    assert not any(who.jobs for who in made)
    assert not server.tick()
