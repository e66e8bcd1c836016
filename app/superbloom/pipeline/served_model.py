"""Which model a swarm serves: what client and servers must agree on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model by id and fingerprint, with the shape that peers check messages against."""

    id: str
    fingerprint: str
    blocks: int
    hidden_size: int
