"""What a server announces, as tests have use for it."""

from __future__ import annotations

import time
from dataclasses import replace

from superbloom.domain.model_card import Precision
from superbloom.domain.span import Span
from superbloom.domain.swarm_map import ServerInfo, ServerState

HALF = Span(0, 4)


def server_info(peer: str = "a", span: Span = HALF, **changes: object) -> ServerInfo:
    """A server that is online with `span`, announced just now, but for the `changes`."""
    info = ServerInfo(
        peer=peer,
        name=peer,
        model="toy",
        fingerprint="f",
        blocks=8,
        span=span,
        state=ServerState.ONLINE,
        precision=Precision.BF16,
        device="cpu",
        version="1",
        step_seconds=0.01,
        prefill_tokens_per_second=100.0,
        free_cache_tokens=1000,
        sessions=0,
        addresses=(),
        announced_at=time.time(),
    )
    return replace(info, **changes)  # type: ignore[arg-type]
