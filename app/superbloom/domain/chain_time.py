"""How long steps and prompts take through a chain of servers, and when another chain is better."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from superbloom.domain.span import Span
from superbloom.domain.swarm_map import ServerInfo

OneWay = Callable[[str], float]
"""`peer -> seconds one way` between it and the client, not negative."""

MARKEDLY = 0.7
"""A chain is left for another whose steps take less than this share of its own."""

ANSWER_TOKENS = 200
"""How long an answer is expected to be when it is asked whether moving pays."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One server's part of a chain: `blocks` lie within its span."""

    peer: str
    blocks: Span


def entry_seconds(server: ServerInfo) -> float:
    """How long a step of one session more is likely to wait there for its turn.

    At least as long as those of the sessions at work do. Where `n` of them are, a newcomer finds a
    step under way in about n of n + 1 cases, of which half is left. So of two equal servers the
    one with less to do is the quicker one.
    """
    others = server.sessions / (server.sessions + 1)
    return max(server.waiting_seconds, server.step_seconds / 2 * others)


def hop_seconds(server: ServerInfo, blocks: Span, tokens: int = 1) -> float:
    """How long a step of a few tokens stays at a server that computes `blocks` of its span."""
    rate = server.prefill_tokens_per_second
    more = (tokens - 1) / rate if rate > 0 else 0.0
    part = len(blocks) / len(server.span)
    return entry_seconds(server) + (server.step_seconds + more) * part


def ways_on(hops: Sequence[Hop], one_way: OneWay) -> tuple[float, ...]:
    """How long a step is on its way after each hop, in seconds: to the next one, at last round.

    From the last hop it comes back to the client, from where the next step goes to the first. A
    link between two servers counts as the mean of theirs to the client.
    """
    away = [one_way(hop.peer) for hop in hops]
    between = [(here + there) / 2 for here, there in itertools.pairwise(away)]
    return (*between, away[-1] + away[0]) if away else ()


def step_seconds(
    hops: Sequence[Hop], servers: Mapping[str, ServerInfo], one_way: OneWay, tokens: int = 1
) -> float | None:
    """How long a step takes through the hops; None if one of their servers is not known."""
    if any(hop.peer not in servers for hop in hops):
        return None
    work = sum(hop_seconds(servers[hop.peer], hop.blocks, tokens) for hop in hops)
    return sum(ways_on(hops, one_way)) + work


def prompt_seconds(hops: Sequence[Hop], servers: Mapping[str, ServerInfo], tokens: int) -> float:
    """How long a prompt takes: its chunks follow each other, so the slowest hop decides.

    A server that has not said how quick it reads counts as one that reads token by token.
    """
    slowest = 0.0
    for hop in hops:
        server = servers[hop.peer]
        rate = server.prefill_tokens_per_second
        a_token = 1 / rate if rate > 0 else max(server.step_seconds, 1e-3)
        slowest = max(slowest, tokens * a_token * len(hop.blocks) / len(server.span))
    return slowest


def pays_to_move(present: float, other: float, *, reading: float) -> bool:
    """True if an answer comes sooner by another chain.

    `present` and `other` are seconds a token; `reading` is what it takes to compute there what is
    kept here.
    """
    if not math.isfinite(present + other + reading) or other >= MARKEDLY * present:
        return False
    return (present - other) * ANSWER_TOKENS > reading
