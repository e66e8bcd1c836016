"""The executor: one thread owns the device and runs the ready steps of all sessions together.

Each tick takes steps of every owner whose sessions decode and at most one chunk of a prompt, so
that neither long prompts nor many sessions hold up those who wait for their next token. Sessions
are admitted by the bytes their cache may grow to, so that none runs out in the middle.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

import torch
from torch import Tensor

from superbloom.domain.errors import (
    ProtocolViolation,
    ServerCrashed,
    ServerError,
    SessionRefused,
    SuperbloomError,
)
from superbloom.domain.span import Span
from superbloom.inference.cache_room import CacheRoom
from superbloom.inference.cpu.threads import CpuThreads
from superbloom.inference.executor_figures import MEASURED_CHUNK, ExecutorStats, Figures
from superbloom.inference.freed_memory import FreedMemory
from superbloom.inference.roster import Roster
from superbloom.inference.stage import Stage
from superbloom.inference.step_errors import breaks_device, in_words
from superbloom.inference.step_queue import (
    Job,
    Session,
    Tick,
    Turn,
    add_job,
    by_blocks,
    cancel_jobs,
    check_step,
    fail_jobs,
    has_prompt,
    settle,
)
from superbloom.inference.tick import choose_turns, gathering_seconds

logger = logging.getLogger(__name__)

START_TIMEOUT = 600.0
IDLE_SECONDS = 1.0
DEVICE_FAILED = "The server's device failed and computes nothing more."


class Executor:
    """Runs steps of sessions on a stage. Every method may be called from any thread."""

    def __init__(self, stage: Stage, *, cache_bytes: int, threads: int | None = None) -> None:
        """Start the thread and measure the stage; `cache_bytes` bounds all sessions' caches.

        A CPU computes with at most `threads` (None: torch's choice). Raises what a forward raises.
        """
        self._stage = stage
        self._room = CacheRoom(stage, cache_bytes)
        self._roster = Roster()
        self._changed = threading.Condition()
        self._ending = False
        self._failure: ServerCrashed | None = None
        self._figures = Figures(len(stage.span))
        self._threads: CpuThreads | None = None
        if stage.device.type == "cpu":
            self._threads = CpuThreads(threads or torch.get_num_threads())
            stage.before_block = self._threads.begin_block
        self._freed = FreedMemory()
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(started,), name="superbloom-executor", daemon=True
        )
        self._thread.start()
        started.result(START_TIMEOUT)

    @property
    def failure(self) -> ServerCrashed | None:
        """Why nothing is computed any more, for good; None while all is well."""
        return self._failure

    def open(self, session: bytes, blocks: Span, max_tokens: int, *, owner: str = "") -> None:
        """Admit a session over `blocks` of at most `max_tokens` tokens.

        All sessions of one `owner` share its turns. Raises SessionRefused when it is open already,
        the blocks are not here, or its cache could not grow to `max_tokens` beside what the others
        may grow to.
        """
        if max_tokens < 1:
            raise SessionRefused(f"A session of {max_tokens} tokens makes no sense.")
        if not self._stage.span.covers(blocks):
            raise SessionRefused(
                f"Blocks {blocks} were asked for, but this server holds {self._stage.span}."
            )
        with self._changed:
            if self._failure is not None:
                raise SessionRefused(DEVICE_FAILED)
            if self._ending:
                raise SessionRefused("This server is shutting down.")
            if self._roster.get(session) is not None:
                raise SessionRefused("This session is open already.")
            needed = self._room.reserve(blocks, max_tokens)
            cache = self._stage.new_cache(blocks)
            self._roster.add(session, Session(cache, max_tokens, needed, owner))
            self._expect_prompt()

    def extend(self, session: bytes, max_tokens: int, *, position: int | None = None) -> None:
        """Let an open session grow to `max_tokens` tokens, its next step being at `position`.

        Raises SessionRefused as `open` does, and when windowed blocks have forgotten what that
        position sees.
        """
        with self._changed:
            found = self._roster.get(session)
            if found is None:
                raise SessionRefused("This session is not open.")
            if position is not None and 0 < position < found.cache.earliest:
                raise SessionRefused("The session remembers too little to go back so far.")
            if max_tokens > found.max_tokens:
                before = found.reserved_bytes
                blocks = found.cache.blocks
                found.reserved_bytes = self._room.reserve(blocks, max_tokens, before=before)
                found.max_tokens = max_tokens
            self._expect_prompt()

    def submit(self, session: bytes, position: int, hidden: Tensor) -> Future[Tensor]:
        """Queue a step `[tokens, hidden]` at `position`; its result has the same shape.

        Steps of a session run in order. The future raises ProtocolViolation when the position is
        beyond what the session holds, SessionRefused when memory ran out, ServerError when the step
        could not be computed, CancelledError when the session was closed or its steps dropped.
        Raises ProtocolViolation at once for an unknown session or a wrong shape, ServerError when
        the executor has failed.
        """
        future: Future[Tensor] = Future()
        with self._changed:
            if self._failure is not None:
                raise ServerError(DEVICE_FAILED)
            found = self._roster.get(session)
            if found is None or self._ending:
                raise ProtocolViolation("A step came for a session that is not open.")
            check_step(hidden, position, self._stage.hidden_size, found.max_tokens)
            add_job(found, Job(position, hidden, future), time.monotonic())
            self._changed.notify_all()
        return future

    def drop_queued(self, session: bytes) -> None:
        """Cancel the session's steps; what is left of a prompt that has begun is not computed."""
        with self._changed:
            found = self._roster.get(session)
            if found is not None:
                cancel_jobs(found)

    def close(self, session: bytes) -> None:
        """End a session: its queued steps are cancelled and its cache is freed. Safe to repeat."""
        with self._changed:
            found = self._roster.remove(session)
            if found is None:
                return
            cancel_jobs(found)
            self._room.give_back(found.reserved_bytes)

    def missing_bytes(self, blocks: Span, max_tokens: int) -> int:
        """Bytes of cache that such a session lacks; at most 0 if only other things hinder it."""
        if not self._stage.span.covers(blocks):
            return 0
        with self._changed:
            return self._room.missing_bytes(blocks, max_tokens)

    def reserved_bytes(self, session: bytes) -> int:
        """The bytes that a session's cache may grow to; 0 if it is not open."""
        with self._changed:
            found = self._roster.get(session)
            return found.reserved_bytes if found is not None else 0

    def stats(self) -> ExecutorStats:
        """The figures of this moment."""
        with self._changed:
            now = time.monotonic()
            return ExecutorStats(
                step_seconds=self._figures.step_seconds(now),
                waiting_seconds=self._figures.waiting_seconds(now),
                prefill_tokens_per_second=self._figures.prefill_tokens_per_second(now),
                free_cache_tokens=self._room.free_tokens,
                sessions=len(self._roster.sessions),
                tokens_computed=self._figures.tokens,
            )

    def shutdown(self, timeout: float) -> None:
        """Cancel what is queued and end the thread, waiting at most `timeout` seconds for it."""
        with self._changed:
            self._ending = True
            for session in self._roster.sessions:
                cancel_jobs(session)
            self._roster.clear()
            self._room.clear()
            self._changed.notify_all()
        self._thread.join(timeout)
        if self._thread.is_alive():
            logger.warning(
                "The executor is still computing after %.1f s; it is left behind", timeout
            )

    def _run(self, started: Future[None]) -> None:
        try:
            self._measure()
        except BaseException as error:  # noqa: BLE001  (handed to the thread that waits)
            started.set_exception(error)
            return
        started.set_result(None)
        try:
            self._work()
        except BaseException as error:  # the end of the thread: whoever waits is told
            logger.critical("The executor ends: %s", error, exc_info=error)
            self._fail(error)

    def _work(self) -> None:
        """Run turns until the executor ends. Raises what leaves the device useless."""
        while (turns := self._next_turns()) is not None:
            groups = by_blocks(turns)
            del turns  # a session that is closed while nothing is to be done must be freed
            while groups:
                self._compute(groups.pop(0))

    def _fail(self, error: BaseException) -> None:
        """The thread ends: nothing that waits, or comes, is ever computed."""
        with self._changed:
            self._failure = ServerCrashed(f"{DEVICE_FAILED} ({type(error).__name__})")
            self._ending = True
            for session in self._roster.sessions:
                fail_jobs(session, ServerError(DEVICE_FAILED))

    def _next_turns(self) -> list[Turn] | None:
        """Wait for work and choose it; None when the executor ends."""
        with self._changed:
            while not self._ending:
                now = time.monotonic()
                usual = self._figures.tick_seconds(now)
                pause = gathering_seconds(self._roster.sessions, usual, now)
                if not pause and (turns := choose_turns(self._roster, self._figures, now)):
                    return turns
                waiting = any(session.jobs for session in self._roster.sessions)
                if not waiting:
                    self._freed.look(now)
                self._changed.wait(pause if waiting else IDLE_SECONDS)
            return None

    def _compute(self, turns: Sequence[Turn]) -> None:
        self._use_threads(turns)
        begun, tick = time.perf_counter(), Tick()
        for turn in turns:
            turn.session.tick = tick
            turn.session.decodes = not turn.job.is_prompt
        try:
            outputs = self._forward(turns)
        except Exception as error:
            if breaks_device(error):
                raise
            self._failed(turns, error)
            return
        self._note(turns, time.perf_counter() - begun)
        for turn, output in zip(turns, outputs, strict=True):
            self._finish(turn, output)

    def _expect_prompt(self) -> None:
        if self._threads is not None:
            self._threads.expect_prompt()

    def _use_threads(self, turns: Sequence[Turn]) -> None:
        if self._threads is not None:
            self._threads.use(prompt=has_prompt(turns))

    def _forward(self, turns: Sequence[Turn]) -> list[Tensor]:
        outputs = self._stage.forward([turn.step() for turn in turns])
        if self._stage.device.type == "cpu":
            return outputs
        return [output.to("cpu") for output in outputs]

    def _failed(self, turns: Sequence[Turn], error: Exception) -> None:
        """A forward of several steps failed: each is tried alone, and only the bad ones fail."""
        if len(turns) > 1:
            for turn in turns:
                self._compute([turn])
            return
        self._fail_one(turns[0], error)
        if self._stage.device.type == "cuda":
            torch.cuda.empty_cache()  # raises only where the device is lost, and ends the thread

    def _fail_one(self, turn: Turn, error: Exception) -> None:
        """A step has failed: its session hears why, and goes on with others."""
        self._take_off(turn)
        settle(turn.job.future, in_words(error))
        if not isinstance(error, SuperbloomError):
            logger.error("A step failed: %s", error, exc_info=error)

    def _finish(self, turn: Turn, output: Tensor) -> None:
        job = turn.job
        job.done += turn.tokens
        job.outputs.append(output)
        if job.left:
            return
        try:
            whole = job.outputs[0] if len(job.outputs) == 1 else torch.cat(job.outputs)
        except Exception as error:  # noqa: BLE001  (out of memory: the other steps have gone well)
            self._fail_one(turn, error)
            return
        self._take_off(turn)
        settle(job.future, whole)

    def _take_off(self, turn: Turn) -> None:
        """The turn's job is done with, unless closing the session has removed it already."""
        with self._changed:
            if turn.session.jobs and turn.session.jobs[0] is turn.job:
                turn.session.jobs.popleft()
                turn.session.finished_at = time.monotonic()

    def _note(self, turns: Sequence[Turn], seconds: float) -> None:
        with self._changed:
            self._figures.note(turns, seconds, time.monotonic())
        if prompt := has_prompt(turns):
            self._freed.note_prompt()
        if self._threads is not None:
            self._threads.note(sum(turn.tokens for turn in turns), seconds, prompt=prompt)

    def _measure(self) -> None:
        """Run a chunk and a few tokens, so that figures and kernels are ready before sessions."""
        cache = self._stage.new_cache(self._stage.span)
        zeros = torch.zeros(MEASURED_CHUNK, self._stage.hidden_size)
        for tokens in (MEASURED_CHUNK, MEASURED_CHUNK, 8, 4, 1, 1, 1):
            job = Job(0, zeros[:tokens], Future())
            turn = Turn(Session(cache, MEASURED_CHUNK, 0), job, tokens)
            self._use_threads([turn])
            begun = time.perf_counter()
            self._forward([turn])
            if tokens in (MEASURED_CHUNK, 1):  # others stand for steps of several sessions
                self._note([turn], time.perf_counter() - begun)
        self._figures.tokens = 0
