"""What the user has chosen and the program keeps; every field has a default."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from superbloom.domain.errors import InputRejected
from superbloom.domain.model_card import Precision
from superbloom.domain.span import Span


class Reach(StrEnum):
    """How far this computer's swarm reaches."""

    LOCAL = "local"
    """Only this computer: listens on loopback."""
    OPEN = "open"
    """Listens on every interface, for computers with an invite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareSettings:
    """What this computer gives. `model` empty is the one that chats use.

    Both or neither of `first_block` and `end_block` (exclusive) are set; without them placement
    chooses. None in the others lets the server choose what is careful and fast.
    """

    wanted: bool = True
    model: str = ""
    first_block: int | None = None
    end_block: int | None = None
    memory_bytes: int | None = None
    precision: Precision | None = None
    device: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if (self.first_block is None) != (self.end_block is None):
            raise InputRejected("The shared blocks need both a first and an end block.")
        if self.first_block is not None and self.end_block is not None:
            _check("the blocks are first to end", 0 <= self.first_block < self.end_block)
        _check("the memory is above 0", self.memory_bytes is None or self.memory_bytes > 0)
        _check("the threads are 1 or more", self.threads is None or self.threads >= 1)

    @property
    def span(self) -> Span | None:
        """The chosen blocks, or None where placement chooses."""
        if self.first_block is None or self.end_block is None:
            return None
        return Span(self.first_block, self.end_block)


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmSettings:
    """The swarm to be in. `name` empty: a new one; `port` 0: any free one.

    `address` is the host name or IP at which the outer world reaches this computer, if told.

    `bootstrap` are the addresses of peers to join by. The swarm's secret lies with the secrets.
    """

    name: str = ""
    reach: Reach = Reach.LOCAL
    port: int = 0
    address: str = ""
    bootstrap: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check("the port is between 0 and 65535", 0 <= self.port <= 65535)

    @property
    def server_port(self) -> int:
        """Where this computer's own server listens: one above `port`, so that both can be
        forwarded. 0, any free one, where nobody comes from outside."""
        return self.port + 1 if self.reach is Reach.OPEN and 0 < self.port < 65535 else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything chosen. `display_name` is what other members of the swarm read.

    `model` empty is the starter; `models_folder` empty is the one in the data folder. `exact`: no
    answer's prompt is rounded to 8 bits, however slow a link is. `guess_ahead`: a small model of
    this computer may guess how answers go on, so that they come faster through others.
    """

    display_name: str = ""
    model: str = ""
    models_folder: str = ""
    exact: bool = False
    guess_ahead: bool = True
    share: ShareSettings = field(default_factory=ShareSettings)
    swarm: SwarmSettings = field(default_factory=SwarmSettings)


def _check(sentence: str, holds: bool) -> None:
    if not holds:
        raise InputRejected(f"A setting is out of range: {sentence}.")
