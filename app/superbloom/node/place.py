"""A place in a network: how one is entered, and what is there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from superbloom.swarm.directory import Directory
from superbloom.swarm.membership import Membership
from superbloom.swarm.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """How to enter the network: our key file's name, what to listen on, whom to join by."""

    identity: str
    host: str
    port: int
    bootstrap: tuple[str, ...]


Connect = Callable[[Entry], Awaitable[Transport]]
"""Opens this computer's place in the network. Raises SwarmError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the node is: what everything that talks to the swarm needs."""

    transport: Transport
    membership: Membership
    directory: Directory
    host: str

    @property
    def bootstrap(self) -> tuple[str, ...]:
        """Addresses by which this computer's own server joins."""
        return self.transport.addresses
