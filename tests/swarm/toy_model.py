"""A model of whole numbers: every block mixes in all earlier positions, so that a wrong or missing
cache entry changes the text, and no rounding hides it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from superbloom.domain.conversation import ChatTurn
from superbloom.domain.errors import SessionRefused
from superbloom.domain.span import Span

PRIME = 97
HIDDEN = 3
VOCABULARY = 50
END = 0


def toy_block(block: int, rows: Tensor, earlier: Tensor) -> Tensor:
    """Block `block` on `rows` [n, HIDDEN] after inputs `earlier` [m, HIDDEN]."""
    inputs = torch.cat([earlier, rows])
    sums = inputs.cumsum(0)[earlier.shape[0] :]
    return (rows * (block + 2) + sums * (block + 1) + block) % PRIME


class ToyEnds:
    """The client's part of the toy model."""

    vocabulary = VOCABULARY
    hidden_size = HIDDEN

    def embed(self, token_ids: Sequence[int], position: int) -> Tensor:
        """[tokens, HIDDEN], different for every token and position."""
        return torch.tensor(
            [
                [t + 1, (t * 7 + position + i) % PRIME, i + position]
                for i, t in enumerate(token_ids)
            ],
            dtype=torch.float32,
        )

    def embed_each(self, parts: Sequence[tuple[Sequence[int], int]]) -> list[Tensor]:
        """As `embed`, for several."""
        return [self.embed(token_ids, position) for token_ids, position in parts]

    def logits(self, hidden: Tensor) -> Tensor:
        """[rows, VOCABULARY] with one clear winner, never END."""
        winners = (hidden.sum(1) % (VOCABULARY - 1)).long() + 1
        return torch.nn.functional.one_hot(winners, VOCABULARY).float()


class ToyDetokenizer:
    """Writes tokens as numbers."""

    def push(self, token_id: int) -> str:
        return f"{token_id} "

    def flush(self) -> str:
        return ""


class ToyTokenizer:
    """A turn's text is its token ids."""

    end_ids = frozenset({END})

    def render(self, turns: Sequence[ChatTurn]) -> list[int]:
        return [int(word) for turn in turns for word in turn.text.split()]

    def detokenizer(self) -> ToyDetokenizer:
        return ToyDetokenizer()


def toy_continuation(prompt: Sequence[int], count: int, blocks: int) -> list[int]:
    """What the whole toy model writes after `prompt`, `count` tokens, computed in one place."""
    ends, tokens = ToyEnds(), list(prompt)
    for _ in range(count):
        hidden = ends.embed(tokens, 0)
        for block in range(blocks):
            hidden = toy_block(block, hidden, torch.zeros(0, HIDDEN))
        tokens.append(int(ends.logits(hidden[-1:]).argmax()))
    return tokens[len(prompt) :]


class ToyExecutor:
    """The executor's interface over the toy model: one thread, a delay a step, bounded room."""

    def __init__(self, *, step_seconds: float = 0.0, room: int = 100_000) -> None:
        self.step_seconds = step_seconds
        self.room = room
        self.steps = 0
        self.tokens = 0
        self.most_queued: dict[bytes, int] = {}
        self.hold = threading.Event()
        self.hold.set()
        self._inputs: dict[bytes, tuple[Span, list[Tensor]]] = {}
        self._reserved: dict[bytes, int] = {}
        self._queued: dict[bytes, list[Future[Tensor]]] = {}
        self._thread = ThreadPoolExecutor(1)

    @property
    def open_sessions(self) -> int:
        return len(self._inputs)

    def open(self, session: bytes, blocks: Span, max_tokens: int, *, owner: str = "") -> None:
        self._reserve(session, max_tokens)
        self._inputs[session] = (blocks, [torch.zeros(0, HIDDEN) for _ in blocks])
        self._queued[session] = []

    def extend(self, session: bytes, max_tokens: int, *, position: int | None = None) -> None:
        if session not in self._inputs:
            raise SessionRefused("This session is not open.")
        if position is not None and any(
            position > rows.shape[0] for rows in self._inputs[session][1]
        ):
            raise SessionRefused("The session does not reach so far.")
        self._reserve(session, max(max_tokens, self._reserved[session]))

    def _reserve(self, session: bytes, max_tokens: int) -> None:
        others = sum(tokens for key, tokens in self._reserved.items() if key != session)
        if max_tokens > self.room - others:
            raise SessionRefused(f"There is room for {self.room - others} tokens.")
        self._reserved[session] = max_tokens

    def missing_bytes(self, blocks: Span, max_tokens: int) -> int:
        return max_tokens - (self.room - sum(self._reserved.values()))

    def reserved_bytes(self, session: bytes) -> int:
        return self._reserved.get(session, 0)

    def submit(self, session: bytes, position: int, hidden: Tensor) -> Future[Tensor]:
        future = self._thread.submit(self._run, session, position, hidden)
        self._queued[session].append(future)
        waiting = sum(not queued.done() for queued in self._queued[session])
        self.most_queued[session] = max(waiting, self.most_queued.get(session, 0))
        return future

    def drop_queued(self, session: bytes) -> None:
        for future in self._queued.get(session, []):
            future.cancel()
        self._queued[session] = []

    def close(self, session: bytes) -> None:
        self._inputs.pop(session, None)
        self._queued.pop(session, None)
        self._reserved.pop(session, None)

    def shutdown(self) -> None:
        self.hold.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _run(self, session: bytes, position: int, hidden: Tensor) -> Tensor:
        self.hold.wait(20)
        time.sleep(self.step_seconds)
        self.steps += 1
        self.tokens += int(hidden.shape[0])
        blocks, inputs = self._inputs[session]
        for layer, block in enumerate(blocks):
            earlier = inputs[layer][:position]
            assert earlier.shape[0] == position, "a step left a gap"
            inputs[layer] = torch.cat([earlier, hidden])
            hidden = toy_block(block, hidden, earlier)
        return hidden
