"""The ends' batches: together what waits together, and every answer for itself."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Sequence

import pytest
import torch
from torch import Tensor

from superbloom.pipeline import ends_thread
from superbloom.pipeline.ends_thread import MOST_EMBEDDED, MOST_ROWS, EndsThread


class Ends:
    """The head doubles its input, an embedding is token and place; all wait for `go`."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.embedded: list[int] = []
        self.go = threading.Event()

    def embed_each(self, parts: Sequence[tuple[Sequence[int], int]]) -> list[Tensor]:
        self.go.wait(10)
        self.embedded.append(sum(len(tokens) for tokens, _ in parts))
        return [
            torch.tensor([[token, position + n] for n, token in enumerate(tokens)])
            for tokens, position in parts
        ]

    def logits(self, hidden: Tensor) -> Tensor:
        self.go.wait(10)
        self.rows.append(hidden.shape[0])
        if hidden.isnan().any():
            raise ValueError("not a number")
        return hidden * 2


@contextlib.asynccontextmanager
async def on_thread(ends: Ends) -> AsyncIterator[EndsThread]:
    made = EndsThread(ends, threads=1)
    try:
        yield made
    finally:
        await made.close()


def rows(value: float, count: int = 1) -> Tensor:
    return torch.full((count, 3), value)


def value_of(scores: Tensor) -> tuple[float, int]:
    return float(scores[0, 0]), scores.shape[0]


async def test_what_waits_is_computed_together() -> None:
    ends = Ends()
    async with on_thread(ends) as batch:
        asked = [asyncio.create_task(batch.score(rows(1), value_of))]
        await asyncio.sleep(0.05)
        asked += [asyncio.create_task(batch.score(rows(n, count=n), value_of)) for n in range(2, 6)]
        await asyncio.sleep(0.05)
        ends.go.set()
        assert await asyncio.gather(*asked) == [(2.0 * n, n) for n in range(1, 6)]
    assert ends.rows == [1, 14]


async def test_a_batch_is_bounded() -> None:
    ends = Ends()
    async with on_thread(ends) as batch:
        asked = [asyncio.create_task(batch.score(rows(n, count=40), value_of)) for n in range(3)]
        await asyncio.sleep(0.05)
        ends.go.set()
        assert await asyncio.gather(*asked) == [(2.0 * n, 40) for n in range(3)]
    assert all(count <= MOST_ROWS for count in ends.rows)


def fail(_: Tensor) -> None:
    raise IndexError


async def test_an_error_stays_with_its_answer() -> None:
    ends = Ends()
    async with on_thread(ends) as batch:
        first = asyncio.create_task(batch.score(rows(0), value_of))
        await asyncio.sleep(0.05)
        good = asyncio.create_task(batch.score(rows(1), value_of))
        bad = asyncio.create_task(batch.score(rows(float("nan")), value_of))
        used = asyncio.create_task(batch.score(rows(2), fail))
        await asyncio.sleep(0.05)
        ends.go.set()
        await first
        assert await good == (2.0, 1)
        with pytest.raises(ValueError, match="not a number"):
            await bad
        with pytest.raises(IndexError):
            await used


async def test_a_cancelled_answer_is_left_out() -> None:
    ends = Ends()
    async with on_thread(ends) as batch:
        first = asyncio.create_task(batch.score(rows(0), value_of))
        await asyncio.sleep(0.05)
        left = asyncio.create_task(batch.score(rows(1), value_of))
        await asyncio.sleep(0.05)
        left.cancel()
        ends.go.set()
        await first
        assert await batch.score(rows(3), value_of) == (6.0, 1)
    assert ends.rows == [1, 1]


async def test_those_who_came_together_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends_thread, "GATHER_SECONDS", 5.0)
    ends = Ends()
    ends.go.set()
    async with on_thread(ends) as batch:
        await asyncio.gather(*(batch.score(rows(n), value_of) for n in range(3)))
        first = asyncio.create_task(batch.score(rows(1), value_of))
        await asyncio.sleep(0.05)
        assert not first.done()
        await asyncio.gather(first, *(batch.score(rows(n), value_of) for n in range(2)))
    assert ends.rows == [3, 3]


async def test_nobody_is_waited_for_long() -> None:
    ends = Ends()
    ends.go.set()
    async with on_thread(ends) as batch:
        await asyncio.gather(*(batch.score(rows(n), value_of) for n in range(3)))
        async with asyncio.timeout(1):
            assert await batch.score(rows(4), value_of) == (8.0, 1)
            assert await batch.score(rows(5), value_of) == (10.0, 1)
    assert ends.rows == [3, 1, 1]


async def test_embeddings_of_several_answers_go_together() -> None:
    ends = Ends()
    async with on_thread(ends) as batch:
        asked = [asyncio.create_task(batch.embed([7], 0))]
        await asyncio.sleep(0.05)
        asked += [asyncio.create_task(batch.embed([n, n], 10 * n)) for n in range(1, 4)]
        long = [asyncio.create_task(batch.embed([1] * MOST_EMBEDDED, 5)) for _ in range(2)]
        await asyncio.sleep(0.05)
        ends.go.set()
        found = [part.tolist() for part in await asyncio.gather(*asked)]
        assert found == [[[7, 0]], *([[n, 10 * n], [n, 10 * n + 1]] for n in range(1, 4))]
        assert [part.shape[0] for part in await asyncio.gather(*long)] == [MOST_EMBEDDED] * 2
    assert ends.embedded == [1, 6, MOST_EMBEDDED, MOST_EMBEDDED]
