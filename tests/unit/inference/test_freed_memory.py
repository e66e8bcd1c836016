"""Memory that was freed goes back to the system, but not at every turn."""

from __future__ import annotations

import subprocess
import sys

import pytest

from superbloom.inference import freed_memory
from superbloom.inference.freed_memory import EVERY_SECONDS, FreedMemory

KEPT = """
import psutil, torch
from superbloom.inference.freed_memory import give_back

def resident():
    return psutil.Process().memory_info().rss / 1e6

before = resident()
pieces = [torch.ones(20_000) for _ in range(800)]  # 80 kB each: too small for pages of their own
held = resident() - before
last = pieces[-1]  # at the end of the heap, which cannot shrink beyond it
del pieces
kept = resident() - before
give_back()
print(held, kept, resident() - before)
"""


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    calls: list[None] = []
    monkeypatch.setattr(freed_memory, "give_back", lambda: calls.append(None))
    return calls


def test_it_goes_back_after_a_prompt_and_only_then(given_back: list[None]) -> None:
    freed = FreedMemory()
    freed.look(1.0)
    assert not given_back
    freed.note_prompt()
    freed.look(2.0)
    freed.look(2.0 + 2 * EVERY_SECONDS)
    assert len(given_back) == 1


def test_it_goes_back_once_in_a_while(given_back: list[None]) -> None:
    freed = FreedMemory()
    for turn in range(100):
        freed.note_prompt()
        freed.look(turn * EVERY_SECONDS / 10)
    assert len(given_back) == 10


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have other heaps")
def test_the_system_gets_it() -> None:
    script = [sys.executable, "-c", KEPT]
    output = subprocess.run(script, check=True, capture_output=True, text=True, timeout=120).stdout
    held, kept, left = map(float, output.split())
    assert held > 60
    assert kept > 40
    assert left < 10
