"""What to tell a session whose step could not be computed."""

from __future__ import annotations

import torch

from superbloom.domain.errors import ServerError, SessionRefused, SuperbloomError


def in_words(error: Exception) -> SuperbloomError:
    """The error as one that its user can read."""
    if isinstance(error, SuperbloomError):
        return error
    text = str(error).lower()
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in text:
        return SessionRefused(
            "The server ran out of memory in the middle of a step.",
            "Use another server; its owner can lower the memory budget.",
        )
    return ServerError(f"The server could not compute a step ({type(error).__name__}).")
