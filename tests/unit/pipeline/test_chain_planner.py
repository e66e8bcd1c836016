"""The planner believes what it saw rather than what servers say, and moves only where it pays."""

from __future__ import annotations

import time

import pytest

from announced import server_info
from superbloom.domain.chain_time import Hop
from superbloom.domain.errors import BlocksMissing
from superbloom.domain.observed import HALF_LIFE_SECONDS
from superbloom.domain.span import Span
from superbloom.domain.swarm_map import ServerInfo
from superbloom.pipeline.chain_planner import AVOID_SECONDS, UNKNOWN_LINK_SECONDS, ChainPlanner
from superbloom.pipeline.served_model import ServedModel
from superbloom.swarm.directory import Directory, _Entry
from superbloom.swarm.membership import Membership
from superbloom.swarm.memory import MemoryNetwork

WHOLE = Span(0, 8)
WAY = 2 * UNKNOWN_LINK_SECONDS
SERVED = ServedModel(id="toy", fingerprint="f", blocks=8, hidden_size=3)


def server(peer: str, seconds: float, span: Span = WHOLE, **changes: object) -> ServerInfo:
    usual: dict[str, object] = {"step_seconds": seconds, "prefill_tokens_per_second": 1000.0}
    return server_info(peer, span, **usual | changes)


@pytest.fixture
def directory() -> Directory:
    return Directory(MemoryNetwork(seed=1).join("client"), Membership("ours", b"k" * 32))


def know(directory: Directory, *servers: ServerInfo) -> ChainPlanner:
    for one in servers:
        directory._entries[one.peer] = _Entry(one, time.monotonic() + 60)
    return ChainPlanner(directory, SERVED)


def hops(*peers: str) -> tuple[Hop, ...]:
    return tuple(Hop(peer, WHOLE) for peer in peers)


async def test_a_server_that_was_seen_to_be_slow_is_not_chosen(directory: Directory) -> None:
    planner = know(directory, server("liar", 0.01), server("honest", 0.05))
    assert planner.choose(WHOLE, 100) == hops("liar")
    assert not planner.observe(hops("liar"), [WAY + 0.03])  # too little to be sure
    assert planner.choose(WHOLE, 100) == hops("liar")
    assert planner.observe(hops("liar"), [WAY + 0.2]) == ("liar",)
    assert planner.choose(WHOLE, 100) == hops("honest")
    planner.forgive(["liar"])
    assert planner.choose(WHOLE, 100) == hops("liar")


async def test_all_sessions_of_this_computer_know_it_until_it_fades(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = know(directory, server("liar", 0.01), server("honest", 0.05))
    planner.observe(hops("liar"), [WAY + 0.2])
    other = ChainPlanner(directory, SERVED)
    assert other.choose(WHOLE, 100) == hops("honest")
    later = time.monotonic() + 3 * HALF_LIFE_SECONDS
    known = server("liar", 0.01), server("honest", 0.05)
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert know(directory, *known).choose(WHOLE, 100) == hops("liar")


async def test_a_server_may_be_slow_for_a_part_of_its_span(directory: Directory) -> None:
    planner = know(directory, server("liar", 0.02), server("other", 0.03, Span(0, 4)))
    assert planner.observe([Hop("liar", Span(4, 8))], [WAY + 0.2]) == ("liar",)
    expected = planner.announced_seconds(hops("liar"))
    assert expected == pytest.approx(0.02 + 0.1)  # what it says, and links nobody has measured
    (liar,) = [s for s in planner._expected() if s.peer == "liar"]
    assert liar.step_seconds == pytest.approx(0.4)


async def test_the_way_to_the_next_server_is_not_held_against_one(directory: Directory) -> None:
    planner = know(directory, server("a", 0.02, Span(0, 4)), server("b", 0.02, Span(4, 8)))
    chain = (Hop("a", Span(0, 4)), Hop("b", Span(4, 8)))
    between, back = UNKNOWN_LINK_SECONDS, 2 * UNKNOWN_LINK_SECONDS
    assert planner.observe(chain, [between + 0.03, back + 0.03]) == ()
    assert planner.observe(chain, [between + 0.03, back + 0.3]) == ("b",)


async def test_a_chain_is_shown_with_what_is_expected_of_it(directory: Directory) -> None:
    planner = know(directory, server("liar", 0.01), server("b", 0.02, name="berta"))
    planner.observe(hops("liar"), [WAY + 0.5])
    shown = planner.shown([Hop("liar", Span(0, 4)), Hop("b", Span(4, 8)), Hop("gone", WHOLE)])
    words = ["liar (blocks 0-3, 250 ms)", "berta (blocks 4-7, 10 ms)", "gone (blocks 0-7)"]
    assert [str(hop) for hop in shown] == words


async def test_a_chain_is_outrun_where_moving_pays(directory: Directory) -> None:
    planner = know(directory, server("slow", 0.1), server("quick", 0.01))
    assert planner.is_outrun(hops("slow"), 500, 1000)
    assert not planner.is_outrun(hops("quick"), 500, 1000)
    assert not planner.is_outrun(hops("slow"), 50_000, 1000)  # too much to read again
    assert not planner.is_outrun(hops("slow"), 500, 2000)  # no room there
    assert not planner.is_outrun(hops("gone"), 500, 1000)  # nothing is known of it


async def test_a_chain_is_not_left_when_no_other_is_whole(directory: Directory) -> None:
    planner = know(directory, server("a", 9.0, Span(0, 4)))
    assert not planner.is_outrun((Hop("a", Span(0, 4)), Hop("gone", Span(4, 8))), 5, 10)


async def test_a_server_that_became_busy_is_left(directory: Directory) -> None:
    planner = know(directory, server("busy", 0.01), server("idle", 0.02))
    assert not planner.is_outrun(hops("busy"), 500, 1000)
    planner = know(directory, server("busy", 0.01, sessions=8, waiting_seconds=0.3))
    assert planner.is_outrun(hops("busy"), 500, 1000)


async def test_nobody_is_judged_who_is_not_known(directory: Directory) -> None:
    planner = know(directory, server("a", 0.01))
    assert planner.announced_seconds(hops("gone")) is None
    assert not planner.observe(hops("gone"), [WAY + 9.0])


def test_the_only_server_is_asked_again_as_soon_as_it_is_back(directory: Directory) -> None:
    planner = know(directory, server("only", 0.01))
    planner.avoid("only", gone=True)
    with pytest.raises(BlocksMissing):
        planner.choose(WHOLE, 100)
    know(directory, server("only", 0.01))  # its next announcement
    assert [hop.peer for hop in planner.choose(WHOLE, 100)] == ["only"]
    planner.avoid("only")  # it refused
    with pytest.raises(BlocksMissing):
        planner.choose(WHOLE, 100)


def test_one_that_was_lost_is_passed_over_while_there_are_others(directory: Directory) -> None:
    planner = know(directory, server("quick", 0.01), server("slow", 0.05))
    planner.avoid("quick", gone=True)
    know(directory, server("quick", 0.01))
    assert [hop.peer for hop in planner.choose(WHOLE, 100)] == ["slow"]


async def test_one_that_was_faulty_is_chosen_only_if_it_must_be(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = know(directory, server("faulty", 0.01), server("other", 0.05))
    planner.avoid("faulty", last=True)
    assert planner.choose(WHOLE, 100) == hops("other")
    with pytest.raises(BlocksMissing):
        planner.choose(WHOLE, 100, besides={"other"})
    later = time.monotonic() + AVOID_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert planner.choose(WHOLE, 100) == hops("other")
    assert planner.choose(WHOLE, 100, besides={"other"}) == hops("faulty")
