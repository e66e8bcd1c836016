"""The client's ends for several answers at once, on a thread of their own.

Embeddings and head read their weights once for all rows, which is most of what a row costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from superbloom.inference.device import use_threads
from superbloom.pipeline.work_batch import WorkBatch

ResultT = TypeVar("ResultT")

GATHER_SECONDS = 0.003
"""How long the head waits for those that came together with others before."""

MOST_ROWS = 64
"""Rows scored at once; a vocabulary of 250,000 words takes 64 MB of scores for so many."""

MOST_EMBEDDED = 256
"""Tokens of several answers embedded at once."""


class Ends(Protocol):
    """What of `ClientEnds` is used here."""

    def embed_each(self, parts: Sequence[tuple[Sequence[int], int]]) -> list[Tensor]:
        """What enters the first block, `[tokens, hidden]` for each `(token_ids, position)`."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores `[tokens, vocabulary]` of `[tokens, hidden]`."""
        ...


@dataclass(frozen=True, slots=True)
class _Scored:
    hidden: Tensor
    use: Callable[[Tensor], Any]


@dataclass(frozen=True, slots=True)
class _Embedded:
    token_ids: Sequence[int]
    position: int


class EndsThread:
    """Embeds and scores on one thread, with `threads` of the CPU. One event loop owns it."""

    def __init__(self, ends: Ends, *, threads: int) -> None:
        self._ends = ends
        self._thread = ThreadPoolExecutor(
            1, "client-ends", initializer=use_threads, initargs=(threads,)
        )
        self._scores: WorkBatch[_Scored, Any] = WorkBatch(
            self._score,
            self._thread,
            rows=lambda item: item.hidden.shape[0],
            most=MOST_ROWS,
            gather_seconds=GATHER_SECONDS,
        )
        self._embeddings: WorkBatch[_Embedded, Tensor] = WorkBatch(
            self._embed, self._thread, rows=lambda item: len(item.token_ids), most=MOST_EMBEDDED
        )

    async def score(self, hidden: Tensor, use: Callable[[Tensor], ResultT]) -> ResultT:
        """What `use` makes of the scores of `hidden`'s rows; it runs on the thread.

        Raises what the head or `use` raise; another answer's error stays with that answer.
        """
        used: ResultT = await self._scores.result(_Scored(hidden, use))
        return used

    async def embed(self, token_ids: Sequence[int], position: int) -> Tensor:
        """What enters the first block: `[tokens, hidden]`. `position`: the first token's index."""
        return await self._embeddings.result(_Embedded(token_ids, position))

    async def run(self, work: Callable[[], ResultT]) -> ResultT:
        """What `work` gives, done on the thread in its turn."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Let what has begun end, and free the thread."""
        await asyncio.to_thread(self._thread.shutdown, True)

    def _embed(self, items: Sequence[_Embedded]) -> Sequence[Tensor]:
        return self._ends.embed_each([(item.token_ids, item.position) for item in items])

    def _score(self, items: Sequence[_Scored]) -> Sequence[Any]:
        """Each one's result, or the exception that came of it."""
        counts = [item.hidden.shape[0] for item in items]
        scores = torch.split(self._ends.logits(torch.cat([item.hidden for item in items])), counts)
        return [_used(item, part) for item, part in zip(items, scores, strict=True)]


def _used(item: _Scored, scores: Tensor) -> Any:
    try:
        return item.use(scores)
    except Exception as error:  # noqa: BLE001  (raised where the answer waits)
        return error
