"""The steps that wait: what each session has queued, and what a tick takes of it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from concurrent.futures import CancelledError, Future, InvalidStateError
from dataclasses import dataclass, field

from torch import Tensor

from superbloom.domain.errors import ProtocolViolation
from superbloom.domain.span import Span
from superbloom.domain.speculation import WINDOW_TOKENS
from superbloom.inference.block_runner import StageStep
from superbloom.inference.kv_cache import SessionCache

logger = logging.getLogger(__name__)

LEARNING = 0.3
"""How much a session's latest rhythm counts beside what was seen before."""

SHORT_TOKENS = WINDOW_TOKENS
"""Steps of at most so many tokens count as decoding, longer ones as prompts."""


@dataclass(slots=True)
class Job:
    """A submitted step; a long one is computed in several chunks, whose results wait here."""

    position: int
    hidden: Tensor
    future: Future[Tensor]
    arrived: float | None = None
    """When it came, in monotonic seconds; None behind others of its session."""
    done: int = 0
    outputs: list[Tensor] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Tokens not computed yet."""
        return self.hidden.shape[0] - self.done

    @property
    def is_prompt(self) -> bool:
        """True for a long step, which waits its turn among the prompts."""
        return self.hidden.shape[0] > SHORT_TOKENS


@dataclass(slots=True)
class Tick:
    """One forward, which several sessions may have shared."""

    first_back: float | None = None
    """When the first of them had a next job, in monotonic seconds."""


@dataclass(slots=True, eq=False)
class Session:
    """An open session: its cache, what it may grow to, whose it is, and its jobs in order."""

    cache: SessionCache
    max_tokens: int
    reserved_bytes: int
    owner: str = ""
    jobs: deque[Job] = field(default_factory=deque)
    finished_at: float | None = None
    """When its last job ended, in monotonic seconds; None where that tells nothing of the next."""
    away: float | None = None
    """How long it then takes until the next one comes, lately; None if that was never seen."""
    decodes: bool = False
    """True if that was a short one."""
    tick: Tick | None = None
    """The last one that computed a job of it."""
    lag: float = 0.0
    """How long it then is back, lately, after the first of those computed in the same tick."""


@dataclass(slots=True)
class Turn:
    """What a tick computes for one session: `tokens` of its first job."""

    session: Session
    job: Job
    tokens: int

    def step(self) -> StageStep:
        """The turn as the stage takes it."""
        chunk = self.job.hidden[self.job.done : self.job.done + self.tokens]
        return StageStep(self.session.cache, self.job.position + self.job.done, chunk)


def check_step(hidden: Tensor, position: int, hidden_size: int, max_tokens: int) -> None:
    """Raises ProtocolViolation for a step that is no `[tokens, hidden_size]` of floats, or that
    ends beyond `max_tokens`."""
    if hidden.ndim != 2 or hidden.shape[1] != hidden_size or hidden.shape[0] < 1:
        raise ProtocolViolation(
            f"A step has the shape {tuple(hidden.shape)}; it must be [tokens, {hidden_size}]."
        )
    if not hidden.is_floating_point():
        raise ProtocolViolation(f"A step's numbers are {hidden.dtype}, which is no float.")
    if position < 0 or position + hidden.shape[0] > max_tokens:
        raise ProtocolViolation(
            f"A step ends at token {position + hidden.shape[0]}; the session was opened for "
            f"{max_tokens}."
        )


def add_job(session: Session, job: Job, now: float) -> None:
    """Queue a job; one that has to wait for no other notes when it arrived."""
    if not session.jobs:
        job.arrived = now
        if session.finished_at is not None:
            away = now - session.finished_at
            before = away if session.away is None else session.away
            session.away = before + LEARNING * (away - before)
        if session.tick is not None:
            if session.tick.first_back is None:
                session.tick.first_back = now
            session.lag += LEARNING * (now - session.tick.first_back - session.lag)
    session.jobs.append(job)


def first_job(session: Session) -> Job | None:
    """The session's next job; those that their owner cancelled fall away."""
    while session.jobs:
        if not session.jobs[0].future.cancelled():
            return session.jobs[0]
        session.jobs.popleft().future.set_running_or_notify_cancel()
    return None


def begin(session: Session) -> bool:
    """Mark the session's first job as begun; False when its owner has just cancelled it."""
    future = session.jobs[0].future
    if future.running() or future.set_running_or_notify_cancel():
        return True
    session.jobs.popleft()
    return False


def cancel_jobs(session: Session) -> None:
    """Cancel the session's jobs; of one that has begun, what is left is not computed.

    It may be about to rest, or on another way: nobody waits for its next one.
    """
    for job in session.jobs:
        if job.future.cancel():
            job.future.set_running_or_notify_cancel()
        else:
            settle(job.future, CancelledError())
    session.jobs.clear()
    session.finished_at = session.tick = None


def fail_jobs(session: Session, error: Exception) -> None:
    """End the session's jobs with an error."""
    for job in session.jobs:
        settle(job.future, error)
    session.jobs.clear()


def settle(future: Future[Tensor], result: Tensor | Exception) -> None:
    """Give a future its result, unless closing the session has settled it already."""
    try:
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
    except InvalidStateError:
        logger.debug("A step's result came after its session had been closed")


def by_blocks(turns: Iterable[Turn]) -> list[list[Turn]]:
    """Turns of sessions that use the same blocks, which share one forward.

    The one with a prompt comes last: the others need not wait for it.
    """
    groups: dict[Span, list[Turn]] = {}
    for turn in turns:
        groups.setdefault(turn.session.cache.blocks, []).append(turn)
    return sorted(groups.values(), key=has_prompt)


def has_prompt(turns: Iterable[Turn]) -> bool:
    """True if a part of a prompt is among them."""
    return any(turn.job.is_prompt for turn in turns)
