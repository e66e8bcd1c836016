"""The client's head for several answers at once: what waits while it computes goes in together.

The head reads its weights once for all rows, which is most of what a row costs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

ResultT = TypeVar("ResultT")

GATHER_SECONDS = 0.003
"""How long those are waited for that came together with others before."""

MOST_ROWS = 64
"""Rows scored at once; a vocabulary of 250,000 words takes 64 MB of scores for so many."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    hidden: Tensor
    use: Callable[[Tensor], Any]
    done: asyncio.Future[Any]


class HeadBatch:
    """Scores hidden states on `thread`, where `logits` may be called: `[n, hidden]` in,
    `[n, vocabulary]` out. One event loop owns it."""

    def __init__(self, logits: Callable[[Tensor], Tensor], thread: Executor) -> None:
        self._logits = logits
        self._thread = thread
        self._waiting: list[_Waiting] = []
        self._running: asyncio.Task[None] | None = None
        self._together = 1
        """How many came while the head was last at work, in one batch or several."""
        self._came = asyncio.Event()

    async def score(self, hidden: Tensor, use: Callable[[Tensor], ResultT]) -> ResultT:
        """What `use` makes of the scores of `hidden`'s rows; it runs on the thread.

        Raises what `logits` or `use` raise; another answer's error stays with that answer.
        """
        done: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(hidden, use, done))
        self._came.set()
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run(), name="client's head")
        return await done

    async def _run(self) -> None:
        await self._gather()
        self._together = 0
        while batch := self._next_batch():
            self._together += len(batch)
            work = asyncio.get_running_loop().run_in_executor(self._thread, self._compute, batch)
            try:
                outcomes = await work
            except Exception as error:  # noqa: BLE001  (the thread's end: whoever waits is told)
                outcomes = [error] * len(batch)
            for waiting, outcome in zip(batch, outcomes, strict=True):
                _settle(waiting.done, outcome)

    async def _gather(self) -> None:
        """Wait a little for those who came with others the last time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_SECONDS):
                while len(self._waiting) < self._together:
                    self._came.clear()
                    await self._came.wait()

    def _next_batch(self) -> list[_Waiting]:
        """Those who wait still, as many as fit."""
        self._waiting = [waiting for waiting in self._waiting if not waiting.done.done()]
        rows, taken = 0, 0
        for waiting in self._waiting:
            rows += waiting.hidden.shape[0]
            if taken and rows > MOST_ROWS:
                break
            taken += 1
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return batch

    def _compute(self, batch: list[_Waiting]) -> list[Any]:
        """On the thread: each one's result, or the exception that came of it."""
        try:
            counts = [waiting.hidden.shape[0] for waiting in batch]
            rows = torch.cat([waiting.hidden for waiting in batch])
            scores = torch.split(self._logits(rows), counts)
        except Exception as error:  # noqa: BLE001  (told to whom it concerns)
            if len(batch) == 1:
                return [error]
            return [self._compute([waiting])[0] for waiting in batch]
        return [_used(waiting, part) for waiting, part in zip(batch, scores, strict=True)]


def _used(waiting: _Waiting, scores: Tensor) -> Any:
    try:
        return waiting.use(scores)
    except Exception as error:  # noqa: BLE001  (raised where the answer waits)
        return error


def _settle(done: asyncio.Future[Any], outcome: Any) -> None:
    if done.done():
        return
    if isinstance(outcome, Exception):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)
