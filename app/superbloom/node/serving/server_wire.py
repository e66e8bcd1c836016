"""What node and server process say to each other: JSON lines on the server's stdin and stdout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from superbloom.control.codec import LineCodec
from superbloom.domain.model_card import Precision
from superbloom.domain.sharing import ShareRequest
from superbloom.domain.span import Span

# --- orders: node to server -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StartServing:
    """What to hold; loading begins at once where it does not depend on the swarm."""

    request: ShareRequest
    folder: str
    """The model's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnterSwarm:
    """Whom to serve. `secret` is hexadecimal, `bootstrap` are addresses of peers."""

    name: str
    secret: str
    bootstrap: tuple[str, ...]
    listen: str
    """`host:port` to listen on; port 0 takes any."""
    address: str = ""
    """The host name or IP at which the outer world reaches this computer, if told."""
    display_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Refuse new sessions, let the open ones end, then leave; after `seconds` leave anyway."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Leave now."""


Order = StartServing | EnterSwarm | Drain | Stop


# --- reports: server to node ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """Reading weights: blocks done of all."""

    span: Span
    precision: Precision
    device: str
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Announced, and open for sessions."""

    peer: str
    addresses: tuple[str, ...]
    span: Span
    precision: Precision
    device: str
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """No new sessions from now on."""

    sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """Sent every few seconds from the first on, so that a hang is noticed."""

    sessions: int = 0
    tokens_served: int = 0


Report = Loading | Serving | Draining | Alive
"""The last word of a server that cannot go on is an error line instead."""

ORDERS = LineCodec(get_args(Order))
REPORTS = LineCodec(get_args(Report))
