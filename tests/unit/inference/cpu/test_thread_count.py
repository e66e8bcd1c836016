"""Fewer threads while others want the cores, more again afterwards; simulated."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from superbloom.inference.cpu.thread_count import ThreadCount


class Machine:
    """Computes steps one after the other; `seconds` tells what one takes with so many threads."""

    def __init__(self, cores: int, seconds: Callable[[int], float]) -> None:
        self.seconds = seconds
        self.now = 0.0
        self.count = ThreadCount(cores)

    @property
    def threads(self) -> int:
        return self.count.threads

    def run(self, duration: float, tokens: int = 1) -> float:
        """Steps for so long; the mean time of one."""
        steps, until = 0, self.now + duration
        begun = self.now
        while self.now < until:
            took = self.seconds(self.threads)
            self.now += took
            steps += 1
            self.count.note(tokens, took, self.now)
        return (self.now - begun) / steps


def quiet(threads: int) -> float:
    return 0.030 + 0.020 / threads


def busy(threads: int) -> float:
    return 0.300 if threads > 1 else 0.060


@pytest.mark.parametrize("cores", [1, 2, 8])
def test_a_quiet_machine_uses_all_it_has(cores: int) -> None:
    machine = Machine(cores, quiet)
    assert machine.run(30) == pytest.approx(quiet(cores), rel=1e-6)
    assert machine.threads == cores


@pytest.mark.parametrize("cores", [2, 8])
def test_a_busy_machine_is_computed_on_with_fewer(cores: int) -> None:
    machine = Machine(cores, quiet)
    machine.run(10)
    machine.seconds = busy
    machine.run(10)
    assert machine.run(120) < 1.15 * busy(1)
    machine.seconds = quiet
    machine.run(200)
    assert machine.threads == cores


@pytest.mark.parametrize("slow_steps", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("cores", [2, 8])
def test_short_disturbances_leave_the_threads_as_they_are(cores: int, slow_steps: int) -> None:
    machine = Machine(cores, quiet)
    machine.run(10)
    for _ in range(50):
        machine.seconds = lambda threads: 2 * quiet(threads)
        for _ in range(slow_steps):
            machine.run(1e-9)
        machine.seconds = quiet
        assert machine.run(2) < 1.1 * quiet(cores)
    assert machine.threads == cores


def test_longer_texts_are_not_taken_for_a_busy_machine() -> None:
    machine = Machine(2, quiet)
    machine.run(10)
    machine.seconds = lambda threads: 2 * quiet(threads)
    assert machine.run(60) == pytest.approx(2 * quiet(2), rel=0.02)
    assert machine.threads == 2


def test_steps_of_several_sizes_in_turn_tell_as_well() -> None:
    machine = Machine(2, quiet)
    for _ in range(20):
        machine.run(0.05, tokens=1)
        machine.run(0.05, tokens=3)
    machine.seconds = busy
    for _ in range(100):
        machine.run(0.05, tokens=1)
        machine.run(0.05, tokens=3)
    assert machine.threads == 1


def test_steps_of_other_sizes_are_not_compared() -> None:
    machine = Machine(2, quiet)
    machine.run(5)
    machine.seconds = lambda threads: 3 * quiet(threads)
    assert machine.run(5, tokens=8) == pytest.approx(3 * quiet(2))


def test_when_a_crowd_has_gone_all_cores_are_tried_at_once() -> None:
    machine = Machine(2, quiet)
    machine.run(5)
    machine.run(5, tokens=8)
    machine.seconds = busy
    machine.run(120, tokens=8)
    assert machine.threads == 1
    machine.seconds = quiet
    machine.run(0.8)
    assert machine.threads == 2
