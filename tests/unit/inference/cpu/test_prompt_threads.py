"""Parts of prompts leave the cores to others that others use, and take what is free."""

from __future__ import annotations

import psutil
import pytest

from superbloom.inference.cpu.prompt_threads import (
    LEAST_SECONDS,
    MOST_SECONDS,
    PAUSE_SECONDS,
    PromptThreads,
    busy_seconds,
)


class Computer:
    """So many cores, of which others take some; what the program itself takes does not count."""

    def __init__(self, cores: int, monkeypatch: pytest.MonkeyPatch, *, hyper: int = 1) -> None:
        counts = {False: cores, True: cores * hyper}
        monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: counts[logical])
        self.now = 100.0
        self.everything = self.own = 0.0

    def times(self) -> tuple[float, float]:
        return self.everything, self.own

    def run(self, seconds: float, others: float, own: float = 0.0) -> None:
        self.now += seconds
        self.everything += seconds * (others + own)
        self.own += seconds * own


@pytest.mark.parametrize(
    ("cores", "others", "threads"),
    [(2, 0.0, 2), (2, 0.4, 2), (2, 1.0, 1), (2, 2.0, 1), (8, 1.0, 7), (8, 3.2, 5), (8, 8.0, 4)],
)
def test_others_are_left_what_they_take_but_for_half(
    cores: int, others: float, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    computer = Computer(cores, monkeypatch)
    prompt = PromptThreads(cores, computer.times)
    prompt.look(computer.now)
    computer.run(0.2, others, own=cores / 2)
    assert prompt.threads(computer.now) == threads
    computer.run(0.4, 0.0, own=cores)
    assert prompt.threads(computer.now) == cores


def test_no_more_threads_than_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    computer = Computer(16, monkeypatch)
    prompt = PromptThreads(4, computer.times)
    for others in (0.0, 12.0, 13.0, 16.0):
        prompt.look(computer.now)
        computer.run(0.2, others)
        assert prompt.threads(computer.now) == min(4, max(2, 16 - others))


def test_a_busy_hyper_thread_is_half_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    computer = Computer(8, monkeypatch, hyper=2)
    prompt = PromptThreads(8, computer.times)
    prompt.look(computer.now)
    computer.run(0.2, 4.0)
    assert prompt.threads(computer.now) == 6


def test_short_and_old_looks_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    computer = Computer(2, monkeypatch)
    prompt = PromptThreads(2, computer.times)
    assert prompt.threads(computer.now) == 2
    computer.run(LEAST_SECONDS / 2, 2.0)
    assert prompt.threads(computer.now) == 2  # too short to tell
    computer.run(LEAST_SECONDS, 2.0)
    assert prompt.threads(computer.now) == 1  # both together are long enough
    computer.run(LEAST_SECONDS / 2, 0.0)
    assert prompt.threads(computer.now) == 1  # as it was found last
    computer.run(MOST_SECONDS + 1, 2.0)
    assert prompt.threads(computer.now) == 2


def test_a_session_that_begins_takes_a_new_look_between_prompts_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computer = Computer(2, monkeypatch)
    prompt = PromptThreads(2, computer.times)
    prompt.look(computer.now)
    computer.run(0.2, 2.0)
    prompt.look(computer.now)
    assert prompt.threads(computer.now) == 1
    computer.run(PAUSE_SECONDS + 0.1, 2.0)
    prompt.look(computer.now)
    assert prompt.threads(computer.now) == 2


def test_this_computers_figures_grow() -> None:
    before = busy_seconds()
    sum(number * number for number in range(300_000))
    after = busy_seconds()
    assert after[1] > before[1] > 0
    assert after[0] >= before[0] > 0
