"""Frames of a session, as tests have use for them."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from superbloom.pipeline.messages import Open, Step

SESSION = "ab" * 16


def open_frame(**changes: object) -> Open:
    """Opens a session on the first blocks, with nobody before or after it."""
    frame = Open(
        session=SESSION,
        model="toy",
        fingerprint="f",
        start=0,
        end=4,
        max_tokens=50,
        epoch=0,
        next="",
        next_session="",
        previous="",
        passes_replay=False,
        allows_compact=False,
        tag="",
    )
    return replace(frame, **changes)  # type: ignore[arg-type]


def step_frame(hidden: Tensor, /, **changes: object) -> Step:
    """The first step of a session, of which the last row is asked for."""
    frame = Step(epoch=0, position=0, keep=1, replay=False, hidden=hidden)
    return replace(frame, **changes)  # type: ignore[arg-type]
