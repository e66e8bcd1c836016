"""This computer's place in a swarm, as a model's client uses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from superbloom.domain.link_rates import LinkRates
from superbloom.swarm.directory import Directory
from superbloom.swarm.membership import Membership
from superbloom.swarm.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmAccess:
    """A place in the network; it ends when the computer moves to another one."""

    transport: Transport
    membership: Membership
    directory: Directory
    link_rates: LinkRates = field(default_factory=LinkRates)
    """How fast the links from here are, for all sessions."""


Present = Callable[[], SwarmAccess | None]
"""The place of this moment; None while there is none."""
