"""The head's batches: together what waits together, and every answer for itself."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from superbloom.pipeline import head_batch
from superbloom.pipeline.head_batch import MOST_ROWS, HeadBatch


class Head:
    """Doubles its input; the first call waits for `go`."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.go = threading.Event()

    def logits(self, hidden: Tensor) -> Tensor:
        self.go.wait(10)
        self.rows.append(hidden.shape[0])
        if hidden.isnan().any():
            raise ValueError("not a number")
        return hidden * 2


def rows(value: float, count: int = 1) -> Tensor:
    return torch.full((count, 3), value)


def value_of(scores: Tensor) -> tuple[float, int]:
    return float(scores[0, 0]), scores.shape[0]


async def test_what_waits_is_computed_together() -> None:
    head = Head()
    with ThreadPoolExecutor(1) as thread:
        batch = HeadBatch(head.logits, thread)
        asked = [asyncio.create_task(batch.score(rows(1), value_of))]
        await asyncio.sleep(0.05)
        asked += [asyncio.create_task(batch.score(rows(n, count=n), value_of)) for n in range(2, 6)]
        await asyncio.sleep(0.05)
        head.go.set()
        assert await asyncio.gather(*asked) == [(2.0 * n, n) for n in range(1, 6)]
    assert head.rows == [1, 14]


async def test_a_batch_is_bounded() -> None:
    head = Head()
    with ThreadPoolExecutor(1) as thread:
        batch = HeadBatch(head.logits, thread)
        asked = [asyncio.create_task(batch.score(rows(n, count=40), value_of)) for n in range(3)]
        await asyncio.sleep(0.05)
        head.go.set()
        assert await asyncio.gather(*asked) == [(2.0 * n, 40) for n in range(3)]
    assert all(count <= MOST_ROWS for count in head.rows)


def fail(_: Tensor) -> None:
    raise IndexError


async def test_an_error_stays_with_its_answer() -> None:
    head = Head()
    with ThreadPoolExecutor(1) as thread:
        batch = HeadBatch(head.logits, thread)
        first = asyncio.create_task(batch.score(rows(0), value_of))
        await asyncio.sleep(0.05)
        good = asyncio.create_task(batch.score(rows(1), value_of))
        bad = asyncio.create_task(batch.score(rows(float("nan")), value_of))
        used = asyncio.create_task(batch.score(rows(2), fail))
        await asyncio.sleep(0.05)
        head.go.set()
        await first
        assert await good == (2.0, 1)
        with pytest.raises(ValueError, match="not a number"):
            await bad
        with pytest.raises(IndexError):
            await used


async def test_a_cancelled_answer_is_left_out() -> None:
    head = Head()
    with ThreadPoolExecutor(1) as thread:
        batch = HeadBatch(head.logits, thread)
        first = asyncio.create_task(batch.score(rows(0), value_of))
        await asyncio.sleep(0.05)
        left = asyncio.create_task(batch.score(rows(1), value_of))
        await asyncio.sleep(0.05)
        left.cancel()
        head.go.set()
        await first
        assert await batch.score(rows(3), value_of) == (6.0, 1)
    assert head.rows == [1, 1]


async def test_those_who_came_together_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_batch, "GATHER_SECONDS", 5.0)
    head = Head()
    head.go.set()
    with ThreadPoolExecutor(1) as thread:
        batch = HeadBatch(head.logits, thread)
        await asyncio.gather(*(batch.score(rows(n), value_of) for n in range(3)))
        first = asyncio.create_task(batch.score(rows(1), value_of))
        await asyncio.sleep(0.05)
        assert not first.done()
        await asyncio.gather(first, *(batch.score(rows(n), value_of) for n in range(2)))
    assert head.rows == [3, 3]


async def test_nobody_is_waited_for_long() -> None:
    head = Head()
    head.go.set()
    with ThreadPoolExecutor(1) as thread:
        batch = HeadBatch(head.logits, thread)
        await asyncio.gather(*(batch.score(rows(n), value_of) for n in range(3)))
        async with asyncio.timeout(1):
            assert await batch.score(rows(4), value_of) == (8.0, 1)
            assert await batch.score(rows(5), value_of) == (10.0, 1)
    assert head.rows == [3, 1, 1]
