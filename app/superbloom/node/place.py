"""A place in a network: how one is entered, and what is there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from superbloom.domain.errors import NoPeersReachable, PortTaken
from superbloom.pipeline.swarm_access import SwarmAccess
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

NOBODY = "No other computer of the swarm answers. It is tried again every few seconds."


@dataclass(frozen=True, slots=True, kw_only=True)
class Place(SwarmAccess):
    """Where the node is: what everything that talks to the swarm needs, and where it listens."""

    host: str

    @property
    def bootstrap(self) -> tuple[str, ...]:
        """Addresses by which this computer's own server joins."""
        return self.transport.addresses


async def find_place(connect: Connect, entry: Entry) -> tuple[Transport, str]:
    """A place, by another port or alone if need be, and what is wrong with it in words.

    Raises SwarmError.
    """
    try:
        return await connect(entry), ""
    except NoPeersReachable:
        return await connect(replace(entry, bootstrap=())), NOBODY
    except PortTaken as error:
        if not entry.port:
            raise
        transport, problem = await find_place(connect, replace(entry, port=0))
        words = f"{error.message} Others find this computer by it. {error.next_step}"
        return transport, f"{words} {problem}".strip()
