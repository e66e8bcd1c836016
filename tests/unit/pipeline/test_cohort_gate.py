"""The gate: who waits is let go together, and nobody is forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import time

from tests.unit.domain.test_cohorts import fix

from superbloom.pipeline.cohort_gate import CohortGate


async def rounds(gate: CohortGate, member: str, count: int, seconds: float) -> list[float]:
    """When `member` was let go; it is away for `seconds` each time."""
    went = []
    for _ in range(count):
        await gate.wait(member)
        went.append(time.monotonic())
        await asyncio.sleep(seconds)
    gate.leave(member)
    return went


async def test_all_of_a_cohort_go_together() -> None:
    gate = CohortGate()
    fix(gate._cohorts, 1)
    first = asyncio.create_task(rounds(gate, "a", 8, 0.1))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(rounds(gate, "b", 8, 0.1))
    async with asyncio.timeout(10):
        a, b = await first, await second
    assert min(abs(a[-1] - at) for at in b) < 0.03


async def test_one_that_does_not_come_back_holds_nobody_up() -> None:
    gate = CohortGate()
    fix(gate._cohorts, 1)
    first = asyncio.create_task(rounds(gate, "a", 12, 0.02))
    second = asyncio.create_task(rounds(gate, "b", 100, 0.02))
    await asyncio.sleep(0.1)
    second.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await second
    async with asyncio.timeout(5):
        assert len(await first) == 12


async def test_a_cancelled_wait_ends_at_once() -> None:
    gate = CohortGate()
    fix(gate._cohorts, 1)
    await asyncio.gather(rounds(gate, "a", 4, 0.2), rounds(gate, "b", 4, 0.2))
    await asyncio.gather(gate.wait("a"), gate.wait("b"))
    await asyncio.sleep(0.19)
    waiting = asyncio.create_task(gate.wait("a"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(1):
        await gate.wait("b")
