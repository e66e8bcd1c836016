"""One session on a server: steps in from the client or the previous server, output on its way."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable
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
from superbloom.pipeline.history import History, HistoryRoom
from superbloom.pipeline.messages import (
    MAX_STEP_TOKENS,
    Close,
    Closed,
    Draining,
    EpochBegun,
    Frame,
    NewEpoch,
    Open,
    Opened,
    Park,
    Probe,
    Progress,
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
from superbloom.pipeline.next_server import NextServer
from superbloom.pipeline.previous_server import PreviousServer
from superbloom.pipeline.served_model import ServedModel
from superbloom.pipeline.step_room import PeerRoom, StepRoom
from superbloom.pipeline.step_way import tell_arrived
from superbloom.pipeline.swarm_access import SwarmAccess
from superbloom.swarm.live_stream import LiveStream
from superbloom.swarm.transport import MAX_FRAME_BYTES

log = logging.getLogger(__name__)

MAX_JSON_FRAME_BYTES = 32 * 1024
"""More than any frame takes that carries no hidden states."""

FAREWELL_SECONDS = 2.0
"""How long clients that read slowly are told that their session, or the server, ends."""


def most_frame_bytes(hidden_size: int) -> int:
    """The longest frame that a session of a model with `hidden_size` has use for."""
    return min(MAX_FRAME_BYTES, MAX_JSON_FRAME_BYTES + MAX_STEP_TOKENS * hidden_size * 4)


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
        access: SwarmAccess,
        executor: Executor,
        served: ServedModel,
        peer_room: PeerRoom,
        history_room: HistoryRoom,
        make_room: Callable[[int], None],
    ) -> None:
        """`make_room` ends sessions that rest, if that gives so many bytes of cache."""
        self.id = bytes.fromhex(opened.session)
        self.blocks = Span(opened.start, opened.end)
        self.previous = PreviousServer(
            opened.previous,
            self.accept,
            tells_arrivals=opened.allows_compact,
            hidden_size=served.hidden_size,
            most_bytes=most_frame_bytes(served.hidden_size),
        )
        self.tokens_served = 0
        self._allows_compact = opened.allows_compact
        self._client = client
        self._executor = executor
        self._served = served
        self._make_room = make_room
        self._epoch = opened.epoch
        self._next = NextServer(opened, History(history_room, client.peer), access)
        self._received = 0
        self._sent = 0
        self._max_tokens = opened.max_tokens
        self.parked_at: float | None = None
        """Since when the client keeps it for a next turn, by the monotonic clock."""
        self._room = StepRoom(peer_room)
        self._queue: asyncio.Queue[_Queued] = asyncio.Queue()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Serve until the session ends. Never raises what a peer caused."""
        try:
            await self._tell(Opened())
            outcomes = await self._work()
        finally:
            self._room.close()
            await self._next.close()
        for outcome in outcomes:
            await self._conclude(outcome)

    async def _work(self) -> list[BaseException | None]:
        """Serve until a task ends or the session does; how each task ended."""
        tasks = [
            asyncio.create_task(self._listen(), name="session: client"),
            asyncio.create_task(self._deliver(), name="session: deliver"),
            asyncio.create_task(self._report_losses(), name="session: losses"),
        ]
        ending = asyncio.create_task(self._ended.wait(), name="session: end")
        outcomes: list[BaseException | None] = []
        try:
            await asyncio.wait([*tasks, ending], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, ending):
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        return outcomes

    async def accept(self, step: Step) -> None:
        """Take a step of the client or the previous server; waits while too much is queued.

        One of a newer epoch begins that epoch; while the session rests, all are old ones. Raises
        ProtocolViolation if it leaves a gap or exceeds what was announced.
        """
        if step.compact and not self._allows_compact:
            raise ProtocolViolation("A step came in 8 bits in a session that is to be exact.")
        if step.epoch < self._epoch or self.parked_at is not None:
            return
        if step.epoch > self._epoch:
            if step.position > self._sent:  # what comes before is dropped with the older epoch
                raise ProtocolViolation(
                    f"An epoch began at position {step.position}, but {self._sent} are passed on."
                )
            self._begin_epoch(step.epoch, step.position)
            await self._next.begin_anew()
        await self._room.enter(step.hidden.nbytes)
        taken = False
        try:
            taken = self._take(step)
        finally:
            if not taken:
                self._room.leave(step.hidden.nbytes)

    def _take(self, step: Step) -> bool:
        """Queue a step; False if a newer epoch has begun."""
        if step.epoch < self._epoch:
            return False
        if step.position > self._received:
            raise ProtocolViolation(
                f"A step at position {step.position} came, but only {self._received} are here."
            )
        if step.end > self._max_tokens:
            raise ProtocolViolation(
                f"A step up to position {step.end} came in a session of {self._max_tokens}."
            )
        output = self._executor.submit(self.id, step.position, step.hidden)
        self._received = step.end
        self._queue.put_nowait(_Queued(step, output))
        return True

    async def refuse(self, error: SuperbloomError, *, blame: str = "") -> None:
        """End the session with an error that the client reads, if it does. Raises PeerLost."""
        try:
            await self._tell(
                Refused(
                    code=error.code,
                    message=error.message,
                    next_step=error.next_step,
                    blame=blame,
                )
            )
        finally:
            self._ended.set()

    async def evict(self) -> None:
        """End a parked session whose place others have got. Takes at most FAREWELL_SECONDS."""
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self.refuse(SessionRefused("The place of a session that rested was needed."))
        except (PeerLost, TimeoutError):
            log.info("The client of a session that rested did not hear of its end.")

    async def announce_drain(self) -> None:
        """Tell the client that this server will leave."""
        await self._tell(Draining())

    # --- what the client says ---------------------------------------------------------------

    async def _listen(self) -> None:
        most = most_frame_bytes(self._served.hidden_size)
        while (data := await self._client.receive(most)) is not None:
            frame = decode_frame(data, hidden_size=self._served.hidden_size)
            data = b""  # the step may have to wait: not twice in memory
            if not await self._obey(frame):
                return

    async def _obey(self, frame: Frame) -> bool:
        """Do what the client says; False when it closes the session."""
        match frame:
            case Step():
                if self.previous.peer:
                    raise ProtocolViolation("A client sent a step past the first server.")
                if self._allows_compact:
                    await tell_arrived(self._client, frame)
                await self.accept(frame)
            case NewEpoch():
                self._begin_epoch(frame.epoch, frame.position)
                self.previous.peer = frame.previous
                await self._next.begin_anew()
                await self._tell(EpochBegun(epoch=self._epoch))
            case Reroute():
                self._begin_epoch(frame.epoch)
                replayed = await self._next.reroute(frame)
                await self._tell(Rerouted(epoch=frame.epoch, replayed=replayed))
            case Park():
                self._begin_epoch(self._epoch + 1)  # windows under way are of no more use
                self.parked_at = time.monotonic()
            case Resume():
                granted = self._resume(frame)
                await self._next.begin_anew()
                await self._tell(Resumed(granted=granted))
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
        parked_at, self.parked_at = self.parked_at, None  # the room to be made is not its own
        try:
            self._executor.extend(self.id, self._max_tokens, position=order.position)
            lacking = self._executor.missing_bytes(self.blocks, order.max_tokens)
            self._make_room(lacking - self._executor.reserved_bytes(self.id))
            self._executor.extend(self.id, order.max_tokens)
        except SessionRefused as refusal:
            log.info("A parked session cannot go on: %s", refusal.message)
            self.parked_at = parked_at
            return False
        self._max_tokens = max(self._max_tokens, order.max_tokens)
        self._begin_epoch(order.epoch, order.position)
        return True

    def _begin_epoch(self, epoch: int, position: int | None = None) -> None:
        """Forget other steps; what was not passed on comes again, or all from `position` on.

        A client's word counts even if a step of the previous server named a later epoch.
        """
        if epoch != self._epoch:
            self._epoch = self._next.epoch = epoch
            self._executor.drop_queued(self.id)
            self._received = self._sent
        if position is not None:
            self._received = min(self._received, position)
            self._sent = min(self._sent, position)

    # --- output on its way ------------------------------------------------------------------

    async def _deliver(self) -> None:
        while True:
            queued = await self._queue.get()
            try:
                await self._deliver_one(queued)
            finally:
                self._room.leave(queued.step.hidden.nbytes)

    async def _deliver_one(self, queued: _Queued) -> None:
        try:
            output = await asyncio.wrap_future(queued.output)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return
        if queued.step.epoch == self._epoch:
            await self._pass_on(queued.step, output.to("cpu"))

    async def _pass_on(self, step: Step, output: Tensor) -> None:
        self._sent = step.end
        self.tokens_served += int(output.shape[0])
        if self._next.exists:
            await self._next.pass_on(dataclasses.replace(step, hidden=output))
        elif not step.replay:
            kept = output[output.shape[0] - step.keep :]
            await self._tell(
                Result(epoch=step.epoch, position=step.position, end=step.end, hidden=kept)
            )

    async def _report_losses(self) -> None:
        while True:
            loss = await self._next.losses.get()
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
