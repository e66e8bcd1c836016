"""Who serves which blocks: announcements as values, and the coverage they add up to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from superbloom.domain.model_card import Precision
from superbloom.domain.span import Span

MARKED_WAIT_SECONDS = 0.02
"""A wait that grows by less is not worth telling before its time."""


class ServerState(StrEnum):
    """What a server says of itself."""

    JOINING = "joining"
    ONLINE = "online"
    DRAINING = "draining"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """One server's announcement.

    `fingerprint` tells two models of the same id apart. `step_seconds` is how long a step of
    one token takes over the whole span when nobody else is computed for, whoever is now;
    `prefill_tokens_per_second` is measured with long chunks. `waiting_seconds` is how long the
    steps of the last while waited for those of other clients before that, and `sessions` how many
    are at work. `announced_at` is Unix time in seconds by the server's
    clock.
    """

    peer: str
    name: str
    model: str
    fingerprint: str
    blocks: int
    span: Span
    state: ServerState
    precision: Precision
    device: str
    version: str
    step_seconds: float
    prefill_tokens_per_second: float
    free_cache_tokens: int
    sessions: int
    addresses: tuple[str, ...]
    announced_at: float
    waiting_seconds: float = 0.0


def load_differs(before: ServerInfo, now: ServerInfo) -> bool:
    """True if the server's load is not what was said of it: routes should hear of it soon."""
    fewer, more = sorted((before.sessions, now.sessions))
    shorter, longer = sorted((before.waiting_seconds, now.waiting_seconds))
    return more > 2 * fewer or longer > 2 * shorter + MARKED_WAIT_SECONDS


def coverage(servers: Iterable[ServerInfo], blocks: int) -> tuple[int, ...]:
    """How many online servers hold each block: one count a block."""
    counts = [0] * blocks
    for server in servers:
        if server.state is ServerState.ONLINE:
            for block in range(server.span.start, min(server.span.end, blocks)):
                counts[block] += 1
    return tuple(counts)
