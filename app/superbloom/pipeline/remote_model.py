"""A model whose blocks are elsewhere: turns in, an answer as events out."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Callable, Sequence

from torch import Tensor

from superbloom.domain.conversation import ChatTurn
from superbloom.domain.errors import ContextFull, NetworkFailed
from superbloom.domain.generation import GenerationEvent, PhaseChange
from superbloom.domain.sampling import EndReason, SamplingSettings
from superbloom.inference.device import use_threads
from superbloom.inference.ends import ClientEnds
from superbloom.inference.sampler import Sampler
from superbloom.inference.tokenizer import ChatTokenizer
from superbloom.pipeline.answer import Answer, written
from superbloom.pipeline.cohort_gate import CohortGate
from superbloom.pipeline.ends_thread import EndsThread
from superbloom.pipeline.guessing import GuessSource
from superbloom.pipeline.parking import Parking
from superbloom.pipeline.served_model import ServedModel
from superbloom.pipeline.session import ChainSession
from superbloom.pipeline.swarm_access import Present


class RemoteModel:
    """The client side of one model; several answers may run at once."""

    def __init__(
        self,
        *,
        present: Present,
        ends: ClientEnds,
        tokenizer: ChatTokenizer,
        served: ServedModel,
        context_tokens: int,
        threads: int = 1,
        drafts: bool = True,
        guesses: GuessSource | None = None,
    ) -> None:
        """The ends compute with `threads`, on a thread of their own; the one that calls this,
        which does the network, computes nothing. Without `drafts`, every token has its own step.
        With `guesses`, a small model finds more of them.
        """
        self._present = present
        self._tokenizer = tokenizer
        self._served = served
        self._context_tokens = context_tokens
        self._drafts = drafts
        self._guesses = guesses
        self._parking = Parking()
        self._ends = EndsThread(ends, threads=threads)
        self._gate = CohortGate()
        use_threads(1)

    async def generate(
        self, turns: Sequence[ChatTurn], sampling: SamplingSettings, stop: asyncio.Event
    ) -> AsyncGenerator[GenerationEvent, None]:
        """Answer `turns`. The last event is GenerationEnd.

        Setting `stop` ends the answer with EndReason.STOPPED once the servers stopped computing
        (or did not say so for 2 s). Raises ContextFull, SessionRefused and what the model files
        or the network raise. Close the iterator (`contextlib.aclosing`) when leaving early.
        """
        prompt = await self._ends.run(lambda: self._tokenizer.render(turns))
        async with contextlib.aclosing(self.continue_tokens(prompt, sampling, stop)) as events:
            async for event in events:
                yield event

    async def continue_tokens(
        self, prompt: Sequence[int], sampling: SamplingSettings, stop: asyncio.Event
    ) -> AsyncGenerator[GenerationEvent, None]:
        """As `generate`, from token ids."""
        room = self._context_tokens - len(prompt)
        if room < 1:
            raise ContextFull(
                f"The text has {len(prompt)} tokens, but the model reads {self._context_tokens}."
            )
        events: asyncio.Queue[GenerationEvent | None] = asyncio.Queue()
        max_tokens = len(prompt) + min(room, sampling.max_tokens)
        taken = await self._parking.take(
            prompt, max_tokens, events.put_nowait, exact=sampling.exact
        )
        session, held = taken or (
            self._open_session(max_tokens, events.put_nowait, exact=sampling.exact),
            0,
        )
        answer = Answer(
            tuple(prompt),
            sampling,
            room=room,
            held=held,
            session=session,
            tokenizer=self._tokenizer,
            sample=functools.partial(self._sample, session),
            emit=events.put_nowait,
            drafts=self._drafts,
            guesses=self._guesses if self._drafts else None,
        )
        writing = asyncio.create_task(answer.write(), name="answer")
        stopping = asyncio.create_task(stop.wait(), name="answer: stop")
        stopping.add_done_callback(lambda waited: waited.cancelled() or writing.cancel())
        writing.add_done_callback(lambda _: events.put_nowait(None))
        parked = False
        try:
            while (event := await events.get()) is not None:
                yield event
            if writing.cancelled():
                await session.close()
                yield answer.end(EndReason.STOPPED)
                return
            ended = writing.result()
            await self._parking.leave(session)
            parked = True
            yield answer.end(ended)
        finally:
            self._gate.leave(session)
            stopping.cancel()
            writing.cancel()
            await asyncio.gather(stopping, writing, return_exceptions=True)
            if not parked:
                await session.close()

    async def close(self) -> None:
        """Close parked sessions and free the thread; answers must have ended."""
        await self._parking.close()
        await self._ends.close()

    def _open_session(
        self, max_tokens: int, notify: Callable[[PhaseChange], None], *, exact: bool
    ) -> ChainSession:
        access = self._present()
        if access is None:
            raise NetworkFailed("This computer is in no swarm at the moment.")
        return ChainSession(
            access=access,
            present=self._present,
            served=self._served,
            max_tokens=max_tokens,
            embed=self._ends.embed,
            notify=notify,
            exact=exact,
        )

    async def _sample(
        self, session: ChainSession, sampler: Sampler, hidden: Tensor, drafts: Sequence[int]
    ) -> Sequence[int]:
        await self._gate.wait(session)
        return await self._ends.score(hidden, lambda logits: written(sampler, logits, drafts))
