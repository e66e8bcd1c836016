"""Whether a question can be answered at once, and what is missing if not, in words."""

from __future__ import annotations

from dataclasses import dataclass

from superbloom.control.messages import ModelInfo, ModelProgress, ModelState, Reach, SwarmStatus
from superbloom.domain.sharing import ShareState, ShareStatus
from superbloom.domain.swarm_map import coverage
from superbloom.window.words import count_words, size_words

_ON_THE_WAY = (ShareState.STARTING, ShareState.LOADING, ShareState.RESTARTING)


@dataclass(frozen=True, slots=True)
class Readiness:
    """`part` is how far it is (0 to 1), None where nobody knows."""

    ready: bool
    words: str = ""
    detail: str = ""
    part: float | None = None
    working: bool = False
    """Something goes on that will end by itself."""


def readiness(
    model: ModelInfo | None,
    progress: ModelProgress | None,
    share: ShareStatus | None,
    swarm: SwarmStatus | None,
) -> Readiness:
    """For the model in use. Questions asked before it is ready wait for it in the node."""
    if model is None or share is None or swarm is None:
        return Readiness(False, "Getting ready", working=True)
    if progress is not None or model.state is not ModelState.READY:
        return _of_files(model, progress)
    return _of_blocks(model, share, missing_blocks(model, swarm))


def _of_blocks(model: ModelInfo, share: ShareStatus, missing: int) -> Readiness:
    if missing and share.state in _ON_THE_WAY:
        words = "Loading the model" if share.state is not ShareState.RESTARTING else share.reason
        return Readiness(False, words or "Starting again", share.reason, working=True)
    if missing:
        return Readiness(
            False,
            f"{count_words(missing, 'block')} of {model.name} are held by nobody",
            "Share this computer, or wait for a server that holds them.",
        )
    return Readiness(True)


def missing_blocks(model: ModelInfo, swarm: SwarmStatus) -> int:
    """How many blocks no server holds."""
    servers = [one for one in swarm.servers if one.model == model.id]
    return coverage(servers, model.blocks).count(0)


def privacy_words(swarm: SwarmStatus | None) -> str:
    """Who can read what is typed."""
    if swarm is None:
        return ""
    others = len({one.peer for one in swarm.servers} - {swarm.peer})
    if swarm.reach is Reach.LOCAL:
        return "Only this computer takes part: nobody else can read this."
    if others == 0:
        return f"Computers that join “{swarm.name}” and do the work can read the text."
    return f"The computers of “{swarm.name}” that do the work can read the text."


def _of_files(model: ModelInfo, progress: ModelProgress | None) -> Readiness:
    if progress is not None:
        done, total = progress.done_bytes, progress.total_bytes
        detail, part = size_words(done), None
        if total:
            detail, part = f"{size_words(done)} of {size_words(total)}", min(1.0, done / total)
        return Readiness(False, progress.words or f"Fetching {model.name}", detail, part, True)
    if model.state is ModelState.FETCHING:
        return Readiness(False, f"Fetching {model.name}", working=True)
    return Readiness(
        False,
        f"{model.name} is not on this computer yet",
        "Fetch it on the Models page, or choose another one there.",
    )
