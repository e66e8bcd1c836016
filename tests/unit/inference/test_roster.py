"""Sessions keep to their owner's line, and lines to the order in which they had their turns."""

from __future__ import annotations

from types import SimpleNamespace

from superbloom.inference.roster import Roster
from superbloom.inference.step_queue import Session


def session(owner: str) -> Session:
    return Session(SimpleNamespace(), 1, 0, owner)  # type: ignore[arg-type]


def order(roster: Roster, *named: Session) -> list[list[int]]:
    """The lines, as the places that their sessions have among `named`."""
    return [[named.index(who) for who in line.sessions] for line in roster.lines]


def test_whoever_had_a_turn_goes_to_the_end() -> None:
    roster = Roster()
    named = a, b, c, d = [session(owner) for owner in "xxyz"]
    for number, who in enumerate(named):
        roster.add(bytes([number]), who)
    assert order(roster, *named) == [[0, 1], [2], [3]]
    roster.has_turn(a, prompt=False, now=1.0)
    assert order(roster, *named) == [[1, 0], [2], [3]]
    roster.has_turn(b, prompt=True, now=2.0)
    assert order(roster, *named) == [[2], [3], [0, 1]]
    assert [line.turn_at for line in roster.lines][2] == 2.0
    assert {c, d} <= set(roster.sessions)


def test_an_owner_without_sessions_is_forgotten() -> None:
    roster = Roster()
    named = [session("x"), session("y"), session("x")]
    roster.add(b"a", named[0])
    roster.add(b"b", named[1])
    assert roster.remove(b"a") is named[0]
    assert roster.remove(b"a") is None
    assert roster.get(b"a") is None
    roster.add(b"c", named[2])
    assert order(roster, *named) == [[1], [2]]
    roster.clear()
    assert not roster.sessions
    assert not roster.lines
