"""Runs in turn, and what findings say of a bar."""

from __future__ import annotations

from tests.benchmarks.frame import at_least, at_most, in_turn, series


async def test_variants_take_turns_and_the_warm_up_does_not_count():
    calls: list[tuple[str, int]] = []

    def variant(name: str):
        async def run(turn: int) -> float:
            calls.append((name, turn))
            return float(turn)

        return run

    found = await in_turn({"a": variant("a"), "b": variant("b")}, 2)

    assert calls == [("b", 0), ("a", 0), ("a", 1), ("b", 1), ("b", 2), ("a", 2)]
    assert found == {"a": [1.0, 2.0], "b": [1.0, 2.0]}


def test_a_series_has_one_figure_of_each_value():
    taken = series("s", {"a": ["x", "xyz", "xy"]}, len)
    assert taken["a"].values == (1, 3, 2)
    assert taken["a"].median == 2


def test_a_finding_says_when_a_bar_is_missed():
    assert "MISSED" not in at_least(0.9, 0.9, "speed")
    assert "MISSED" in at_least(0.9, 0.89, "speed")
    assert "MISSED" not in at_most(1.15, 1.15, "time")
    assert "MISSED" in at_most(1.15, 1.16, "time")
    assert at_least(None, 0.5, "speed") == "speed: 0.50"
