"""Work of several answers on one thread: what waits while it computes goes in together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[ItemT, ResultT]):
    item: ItemT
    done: asyncio.Future[ResultT]


class WorkBatch(Generic[ItemT, ResultT]):
    """Has `compute` called on `thread`: items in, for each a result or an exception out.

    At most `most` rows go together, as `rows` counts them; one item alone may have more. The first
    one after a pause waits `gather_seconds` for those that came with others before. One event loop
    owns it.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[ItemT]], Sequence[ResultT | Exception]],
        thread: Executor,
        *,
        rows: Callable[[ItemT], int],
        most: int,
        gather_seconds: float = 0.0,
    ) -> None:
        self._compute = compute
        self._thread = thread
        self._rows = rows
        self._most = most
        self._gather_seconds = gather_seconds
        self._waiting: list[_Waiting[ItemT, ResultT]] = []
        self._running: asyncio.Task[None] | None = None
        self._together = 1
        """How many came while the thread was last at work, in one batch or several."""
        self._came = asyncio.Event()

    async def result(self, item: ItemT) -> ResultT:
        """What comes of `item`; another item's error stays with that item.

        Raises what computing it raised.
        """
        done: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(item, done))
        self._came.set()
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run(), name="work of answers")
        return await done

    async def _run(self) -> None:
        await self._gather()
        self._together = 0
        while batch := self._next_batch():
            self._together += len(batch)
            items = [waiting.item for waiting in batch]
            work = asyncio.get_running_loop().run_in_executor(self._thread, self._each, items)
            outcomes: Sequence[ResultT | Exception]
            try:
                outcomes = await work
            except Exception as error:  # noqa: BLE001  (the thread's end: whoever waits is told)
                outcomes = [error] * len(batch)
            for waiting, outcome in zip(batch, outcomes, strict=True):
                _settle(waiting.done, outcome)

    async def _gather(self) -> None:
        """Wait a little for those who came with others the last time."""
        if not self._gather_seconds:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._gather_seconds):
                while len(self._waiting) < self._together:
                    self._came.clear()
                    await self._came.wait()

    def _next_batch(self) -> list[_Waiting[ItemT, ResultT]]:
        """Those who wait still, as many as fit."""
        self._waiting = [waiting for waiting in self._waiting if not waiting.done.done()]
        rows, taken = 0, 0
        for waiting in self._waiting:
            rows += self._rows(waiting.item)
            if taken and rows > self._most:
                break
            taken += 1
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return batch

    def _each(self, items: Sequence[ItemT]) -> Sequence[ResultT | Exception]:
        """On the thread: together, or one by one where that fails."""
        try:
            return self._compute(items)
        except Exception as error:  # noqa: BLE001  (told to whom it concerns)
            if len(items) == 1:
                return [error]
            return [self._each([item])[0] for item in items]


def _settle(done: asyncio.Future[ResultT], outcome: ResultT | Exception) -> None:
    if done.done():
        return
    if isinstance(outcome, Exception):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)
