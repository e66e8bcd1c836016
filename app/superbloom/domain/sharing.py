"""The state of this computer's share, in the words that tray, window, CLI and log use."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from superbloom.domain.model_card import Precision
from superbloom.domain.span import Span


class ShareState(StrEnum):
    """Where the server process stands."""

    OFF = "off"
    STARTING = "starting"
    LOADING = "loading"
    SERVING = "serving"
    DRAINING = "draining"
    RESTARTING = "restarting"
    FAILED = "failed"


SHARE_WORDS: dict[ShareState, str] = {
    ShareState.OFF: "Not sharing",
    ShareState.STARTING: "Starting",
    ShareState.LOADING: "Loading blocks",
    ShareState.SERVING: "Sharing",
    ShareState.DRAINING: "Finishing open answers",
    ShareState.RESTARTING: "Starting again after a failure",
    ShareState.FAILED: "Cannot share",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareRequest:
    """What the owner wants shared.

    `span` None lets placement choose; `memory_bytes` None takes a careful part of what is free;
    `precision` None takes bf16 on a GPU and what is fastest on a CPU.
    """

    model: str
    span: Span | None = None
    memory_bytes: int | None = None
    precision: Precision | None = None
    device: str | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareStatus:
    """What the share does now; `reason` is a sentence where the state alone does not say enough."""

    state: ShareState
    wanted: bool
    reason: str = ""
    model: str = ""
    span: Span | None = None
    precision: Precision | None = None
    device: str = ""
    memory_bytes: int = 0
    sessions: int = 0
    tokens_served: int = 0
    peer: str = ""
    wish: ShareRequest | None = None
    """What the owner asked for last: what sharing again without a request takes up."""
