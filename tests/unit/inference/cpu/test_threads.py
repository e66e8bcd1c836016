"""Threads are chosen for every tick, and within prompts before every block."""

from __future__ import annotations

import pytest

from superbloom.inference.cpu import threads as threads_module
from superbloom.inference.cpu.threads import CpuThreads


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The counts that were set, one after the other."""
    counts: list[int] = []
    monkeypatch.setattr(threads_module, "use_threads", counts.append)
    return counts


class Others:
    """Stands for `PromptThreads`; the test says how many threads they leave."""

    def __init__(self, most: int) -> None:
        self.left = most

    def threads(self, now: float) -> int:
        return self.left


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Others:
    made = Others(4)
    monkeypatch.setattr(threads_module, "PromptThreads", lambda most: made)
    return made


def test_a_prompt_follows_what_others_take_in_mid_forward(taken: list[int], others: Others) -> None:
    threads = CpuThreads(4)
    others.left = 2
    threads.use(prompt=True)
    threads.begin_block()
    assert taken == [2]
    others.left = 3
    threads.begin_block()
    assert taken == [2, 3]


def test_steps_of_few_tokens_keep_their_threads(taken: list[int], others: Others) -> None:
    threads = CpuThreads(4)
    threads.use(prompt=True)
    threads.use(prompt=False)
    others.left = 1
    threads.begin_block()
    assert taken == [4]
