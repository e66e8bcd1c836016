"""One session on a server: steps in from the client or the previous server, output on its way."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from concurrent.futures import Future
from dataclasses import dataclass

from torch import Tensor

from superbloom.domain.errors import (
    PeerLost,
    ProtocolViolation,
    SessionRefused,
    SuperbloomError,
)
from superbloom.domain.span import Span
from superbloom.inference.executor import Executor
from superbloom.pipeline.history import History
from superbloom.pipeline.messages import (
    Close,
    Closed,
    Draining,
    EpochBegun,
    Frame,
    NewEpoch,
    NextLost,
    Open,
    Opened,
    Park,
    Probe,
    Progress,
    Push,
    Refused,
    Reroute,
    Rerouted,
    Result,
    Resume,
    Resumed,
    Step,
    decode_frame,
    encode_frame,
)
from superbloom.pipeline.outbound import Outbound
from superbloom.pipeline.served_model import ServedModel
from superbloom.swarm.live_stream import LiveStream
from superbloom.swarm.membership import Membership
from superbloom.swarm.transport import Transport

log = logging.getLogger(__name__)

QUEUED_STEPS = 32
"""Steps a session may have waiting; beyond it the sender's stream is no longer read."""

REPLAY_TOKENS = 256
"""Positions a replayed step carries."""


@dataclass(frozen=True, slots=True)
class _Queued:
    step: Step
    output: Future[Tensor]


class ServedSession:
    """Runs from the client's Open to its Close, its loss, or an error."""

    def __init__(
        self,
        opened: Open,
        client: LiveStream,
        *,
        transport: Transport,
        membership: Membership,
        executor: Executor,
        served: ServedModel,
    ) -> None:
        self.id = bytes.fromhex(opened.session)
        self.blocks = Span(opened.start, opened.end)
        self.previous = opened.previous
        self.tokens_served = 0
        self._opened = opened
        self._client = client
        self._transport = transport
        self._membership = membership
        self._executor = executor
        self._served = served
        self._epoch = opened.epoch
        self._next = opened.next
        self._next_session = opened.next_session
        self._outbound: Outbound | None = None
        self._pushing = asyncio.Lock()
        self._history = History()
        self._received = 0
        self._sent = 0
        self._max_tokens = opened.max_tokens
        self.parked_at: float | None = None
        """Since when the client keeps it for a next turn, by the monotonic clock."""
        self._queue: asyncio.Queue[_Queued] = asyncio.Queue(QUEUED_STEPS)
        self._ended = asyncio.Event()
        self._losses: asyncio.Queue[NextLost] = asyncio.Queue()

    async def run(self) -> None:
        """Serve until the session ends. Never raises what a peer caused."""
        await self._tell(Opened())
        tasks = [
            asyncio.create_task(self._listen(), name="session: client"),
            asyncio.create_task(self._deliver(), name="session: deliver"),
            asyncio.create_task(self._report_losses(), name="session: losses"),
        ]
        ending = asyncio.create_task(self._ended.wait(), name="session: end")
        try:
            await asyncio.wait([*tasks, ending], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, ending):
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            if self._outbound is not None:
                await self._outbound.close()
        for outcome in outcomes:
            await self._conclude(outcome)

    async def accept(self, step: Step) -> None:
        """Take a step of the client or the previous server; waits while too many are queued.

        Raises ProtocolViolation if it leaves a gap or exceeds what was announced.
        """
        if step.epoch < self._epoch:
            return
        if step.position > self._received:
            raise ProtocolViolation(
                f"A step at position {step.position} came, but only {self._received} are here."
            )
        if step.end > self._max_tokens:
            raise ProtocolViolation(
                f"A step up to position {step.end} came in a session of {self._max_tokens}."
            )
        self._received = step.end
        output = self._executor.submit(self.id, step.position, step.hidden)
        await self._queue.put(_Queued(step, output))

    async def refuse(self, error: SuperbloomError, *, blame: str = "") -> None:
        """End the session with an error that the client reads."""
        await self._tell(
            Refused(code=error.code, message=error.message, next_step=error.next_step, blame=blame)
        )
        self._ended.set()

    async def evict(self) -> None:
        """End a parked session whose place others need."""
        self._executor.close(self.id)
        await self.refuse(SessionRefused("The place of a session that rested was needed."))

    async def announce_drain(self) -> None:
        """Tell the client that this server will leave."""
        await self._tell(Draining())

    # --- what the client says ---------------------------------------------------------------

    async def _listen(self) -> None:
        while (data := await self._client.receive()) is not None:
            frame = decode_frame(data, hidden_size=self._served.hidden_size)
            if not await self._obey(frame):
                return

    async def _obey(self, frame: Frame) -> bool:
        """Do what the client says; False when it closes the session."""
        match frame:
            case Step():
                if self.previous:
                    raise ProtocolViolation("A client sent a step past the first server.")
                await self.accept(frame)
            case NewEpoch():
                self._begin_epoch(frame.epoch)
                self._received = min(self._received, frame.position)
                self.previous = frame.previous
                await self._tell(EpochBegun(epoch=self._epoch))
            case Reroute():
                await self._reroute(frame)
            case Park():
                self.parked_at = time.monotonic()
            case Resume():
                await self._tell(Resumed(granted=self._resume(frame)))
            case Probe():
                await self._tell(
                    Progress(epoch=self._epoch, received=self._received, sent=self._sent)
                )
            case Close():
                self._executor.drop_queued(self.id)
                self._executor.close(self.id)
                await self._tell(Closed())
                return False
            case _:
                raise ProtocolViolation(f"A client sent a {type(frame).__name__} message.")
        return True

    def _resume(self, order: Resume) -> bool:
        """Go on after a pause, from an earlier position; False where there is no room for it."""
        try:
            self._executor.extend(self.id, order.max_tokens, position=order.position)
        except SessionRefused as refusal:
            log.info("A parked session cannot go on: %s", refusal.message)
            return False
        self.parked_at = None
        self._max_tokens = max(self._max_tokens, order.max_tokens)
        self._begin_epoch(order.epoch)
        self._received = min(self._received, order.position)
        return True

    def _begin_epoch(self, epoch: int) -> None:
        if epoch > self._epoch:
            self._epoch = epoch
            self._executor.drop_queued(self.id)

    async def _reroute(self, order: Reroute) -> None:
        """Turn the output to another server and bring that one up to date from the history."""
        self._begin_epoch(order.epoch)
        if self._outbound is not None:
            await self._outbound.close()
        replayed = self._history.holds(order.replay)
        async with self._pushing:
            self._outbound = None
            self._next, self._next_session = order.next, order.next_session
            for start in range(0, order.replay if replayed else 0, REPLAY_TOKENS):
                rows = self._history.read(start, min(start + REPLAY_TOKENS, order.replay))
                await self._push(
                    Step(epoch=self._epoch, position=start, keep=0, replay=True, hidden=rows)
                )
        await self._tell(Rerouted(epoch=order.epoch, replayed=replayed))

    # --- output on its way ------------------------------------------------------------------

    async def _deliver(self) -> None:
        while True:
            queued = await self._queue.get()
            try:
                output = await asyncio.wrap_future(queued.output)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                continue
            if queued.step.epoch == self._epoch:
                await self._pass_on(queued.step, output.to("cpu"))

    async def _pass_on(self, step: Step, output: Tensor) -> None:
        self._sent = step.end
        self.tokens_served += int(output.shape[0])
        if self._next:
            self._history.write(step.position, output)
            if not step.replay or self._opened.passes_replay:
                async with self._pushing:
                    if step.epoch == self._epoch:
                        await self._push(dataclasses.replace(step, hidden=output))
        elif not step.replay:
            kept = output[output.shape[0] - step.keep :]
            await self._tell(
                Result(epoch=step.epoch, position=step.position, end=step.end, hidden=kept)
            )

    async def _push(self, step: Step) -> None:
        """Send to the next server; the caller holds `_pushing`."""
        if self._outbound is None:
            try:
                self._outbound = await Outbound.open(
                    self._transport, self._next, self._push_head(), self._note_loss
                )
            except PeerLost as loss:
                self._losses.put_nowait(
                    NextLost(epoch=self._epoch, peer=self._next, words=loss.message)
                )
                return
        await self._outbound.send(step)

    def _push_head(self) -> Push:
        me, peer = self._transport.peer_id.encode(), self._next.encode()
        tag = self._membership.tag(b"push", self._next_session.encode(), me, peer)
        return Push(session=self._next_session, tag=tag.hex())

    def _note_loss(self, outbound: Outbound, loss: PeerLost) -> None:
        if outbound is self._outbound:
            self._losses.put_nowait(
                NextLost(epoch=self._epoch, peer=outbound.peer, words=loss.message)
            )

    async def _report_losses(self) -> None:
        while True:
            loss = await self._losses.get()
            log.warning("The next server %s is lost: %s", loss.peer, loss.words)
            await self._tell(loss)

    # --- the end ----------------------------------------------------------------------------

    async def _tell(self, frame: Frame) -> None:
        await self._client.send(encode_frame(frame))

    async def _conclude(self, outcome: BaseException | None) -> None:
        """Put a task's end into words for the client, if it is still there to read them."""
        if isinstance(outcome, PeerLost):
            log.info("The client of session %s is gone: %s", self.id.hex()[:8], outcome.message)
        elif isinstance(outcome, SuperbloomError):
            log.warning("Session %s ends: %s", self.id.hex()[:8], outcome.message)
            try:
                await self.refuse(outcome)
            except PeerLost:
                log.info("Its client is gone as well.")
        elif isinstance(outcome, Exception):
            raise outcome
