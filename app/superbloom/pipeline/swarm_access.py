"""This computer's place in a swarm, as a model's client uses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from superbloom.swarm.directory import Directory
from superbloom.swarm.membership import Membership
from superbloom.swarm.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmAccess:
    """A place in the network; it ends when the computer moves to another one."""

    transport: Transport
    membership: Membership
    directory: Directory


Present = Callable[[], SwarmAccess | None]
"""The place of this moment; None while there is none."""
