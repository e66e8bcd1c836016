"""What one tick of the executor computes, and when it begins.

Sessions that were computed together are usually back together; they stay so, because the first of
them is made to wait a little for the others. That costs a step half of a step's time at most.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from superbloom.inference.executor_figures import Figures
from superbloom.inference.step_queue import Session, Turn, begin, first_job

CHUNK_TOKENS = 512
"""A prompt is computed in chunks of at most so many tokens."""
CHUNK_SECONDS = 0.25
"""While others decode, a prompt's chunk should take about so long."""
SMALLEST_CHUNK = 16
GATHERING = 0.5
"""A tick waits for sessions that are about to be back, for at most so much of a step's time."""
LATENESS = 0.5
"""Who is not back when expected is waited for so much of that longer."""


def choose_turns(sessions: OrderedDict[bytes, Session], figures: Figures, now: float) -> list[Turn]:
    """One turn for every session that decodes, and one chunk of one prompt.

    A session whose prompt got its turn becomes the last one.
    """
    turns: list[Turn] = []
    prompt: bytes | None = None
    for key, session in sessions.items():
        job = first_job(session)
        if job is None:
            continue
        if job.is_prompt:
            prompt = prompt or key
        elif begin(session):
            figures.note_taken(job, now)
            turns.append(Turn(session, job, job.left))
    if prompt is not None:
        session = sessions[prompt]
        job = session.jobs[0]
        if begin(session):
            others = bool(turns) or any(_decodes(other, now) for other in sessions.values())
            turns.append(Turn(session, job, min(job.left, _chunk(figures, others))))
        sessions.move_to_end(prompt)
    return turns


def _decodes(session: Session, now: float) -> bool:
    """True for one that has no step here but will soon have its next short one."""
    if session.jobs or session.finished_at is None or session.away is None:
        return False
    return session.decodes and now < session.finished_at + 2 * session.away


def _chunk(figures: Figures, others_wait: bool) -> int:
    """How many tokens of a prompt one tick takes."""
    if not others_wait:
        return CHUNK_TOKENS
    wanted = int(figures.prefill_tokens_per_second * CHUNK_SECONDS)
    return max(SMALLEST_CHUNK, min(CHUNK_TOKENS, wanted))


def gathering_seconds(sessions: Collection[Session], step_seconds: float, now: float) -> float:
    """How long to wait for sessions that are about to be back, so that they share a forward.

    A step takes about as long for many sessions as for one. Who comes `w` after its beginning waits
    for its end; had the step waited, that one would be done `step_seconds - w` earlier, and those
    that were ready `w` later. The step waits where all together gain, but never longer than
    GATHERING allows after its first one was ready. 0 where no session is ready.
    """
    ready = [session for session in sessions if session.jobs]
    patience = GATHERING * step_seconds
    deadline = min((_ready_at(session) for session in ready), default=0.0) + patience
    if now >= deadline:
        return 0.0
    blocks = {session.cache.blocks for session in ready}
    away = [s for s in sessions if not s.jobs and s.cache.blocks in blocks]
    late = patience * LATENESS
    expected = sorted(at for s in away if (at := _expected_at(s)) is not None and at + late > now)
    until, best = now, 0.0
    for count, at in enumerate(expected, 1):
        wait = max(0.0, at - now)
        gain = count * (step_seconds - wait) - len(ready) * wait
        if at <= deadline and gain > best:
            until, best = at + late, gain
    return min(until, deadline) - now


def _ready_at(session: Session) -> float:
    """Since when the first job waits for no other of its session; 0 where that is not known."""
    arrived = session.jobs[0].arrived
    if arrived is not None:
        return arrived
    return session.finished_at or 0.0


def _expected_at(session: Session) -> float | None:
    """When a session without a job should be back: with those of its tick, or as it used to be."""
    if session.tick is not None and session.tick.first_back is not None:
        return session.tick.first_back + session.lag
    if session.finished_at is None or session.away is None:
        return None
    return session.finished_at + session.away
