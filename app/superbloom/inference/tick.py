"""What one tick of the executor computes, and when it begins.

Turns go by owner, so that nobody gets more of a server by having more sessions.

Sessions that were computed together are usually back together; they stay so, because the first of
them is made to wait a little for the others. That costs a step half of a step's time at most.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from superbloom.inference.executor_figures import Figures
from superbloom.inference.roster import Line, Roster
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


@dataclass(frozen=True, slots=True)
class _Ready:
    """What one owner has waiting, the session that has had no turn for longest first."""

    line: Line
    short: Sequence[Session]
    prompts: Sequence[Session]


def choose_turns(roster: Roster, figures: Figures, now: float) -> list[Turn]:
    """Short steps of every owner that has any, and one chunk of one prompt.

    Every owner's session that has had no turn for longest gets one, and with it others on blocks
    that the tick computes anyway: those of an owner alone as many as a prompt's chunk has tokens,
    and beside others as many tokens as take about a step's time. So a tick has at most one forward
    for each owner and one for the prompt, and who has little to do is in every tick. Prompts take
    turns by owner, then by that owner's sessions.
    """
    ready = [_ready(line) for line in roster.lines]
    turns = _short_turns(ready, figures, now, _most_tokens(roster, figures, now))
    prompt = next((session for owner in ready for session in owner.prompts), None)
    if prompt is not None and begin(prompt):
        others = bool(turns) or any(_decodes(other, now) for other in roster.sessions)
        job = prompt.jobs[0]
        turns.append(Turn(prompt, job, min(job.left, _chunk(figures, others, now))))
    for turn in turns:
        roster.has_turn(turn.session, prompt=turn.job.is_prompt, now=now)
    return turns


def _ready(line: Line) -> _Ready:
    jobs = [(session, job) for session in line.sessions if (job := first_job(session))]
    short = [session for session, job in jobs if not job.is_prompt]
    return _Ready(line, short, [session for session, job in jobs if job.is_prompt])


def _short_turns(
    ready: Sequence[_Ready], figures: Figures, now: float, most_tokens: int
) -> list[Turn]:
    """Short steps of each owner; those with little to do come first, and are back the sooner."""
    turns: list[Turn] = []
    blocks = {owner.short[0].cache.blocks for owner in ready if owner.short}
    for owner in sorted(ready, key=lambda owner: len(owner.short)):
        taken: list[Turn] = []
        tokens = 0
        for session in owner.short:
            if session.cache.blocks not in blocks:
                continue
            job = session.jobs[0]
            tokens += job.left
            if taken and tokens > most_tokens:
                break
            if begin(session):
                taken.append(Turn(session, job, job.left))
        _note_wait(owner.line, taken, figures, now)
        turns += taken
    return turns


def _note_wait(line: Line, taken: Sequence[Turn], figures: Figures, now: float) -> None:
    """Note how long an owner's steps have waited, but not for others of its own."""
    arrivals = [turn.job.arrived for turn in taken if turn.job.arrived is not None]
    waited = [at for at in arrivals if at >= line.turn_at]
    if waited:
        figures.note_wait(min(waited), now)


def _most_tokens(roster: Roster, figures: Figures, now: float) -> int:
    """How many tokens of one owner's short steps one tick takes."""
    active = (any(s.jobs or _decodes(s, now) for s in line.sessions) for line in roster.lines)
    if sum(active) < 2:
        return CHUNK_TOKENS
    return _tokens_in(figures.step_seconds(now), figures, now)


def _decodes(session: Session, now: float) -> bool:
    """True for one that has no step here but will soon have its next short one."""
    if session.jobs or session.finished_at is None or session.away is None:
        return False
    return session.decodes and now < session.finished_at + 2 * session.away


def _chunk(figures: Figures, others_wait: bool, now: float) -> int:
    """How many tokens of a prompt one tick takes."""
    return _tokens_in(CHUNK_SECONDS, figures, now) if others_wait else CHUNK_TOKENS


def _tokens_in(seconds: float, figures: Figures, now: float) -> int:
    """About how many tokens are computed in that time, within bounds."""
    wanted = int(figures.prefill_tokens_per_second(now) * seconds)
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
