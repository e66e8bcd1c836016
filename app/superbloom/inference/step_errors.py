"""What to tell a session whose step could not be computed."""

from __future__ import annotations

import torch

from superbloom.domain.errors import ServerError, SessionRefused, SuperbloomError

MEMORY_WORDS = ("allocate memory", "out of memory", "cublas_status_alloc_failed")


def is_out_of_memory(error: Exception) -> bool:
    """True where less work at once would have gone well."""
    text = str(error).lower()
    named = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return named or any(words in text for words in MEMORY_WORDS)


def breaks_device(error: Exception) -> bool:
    """True for an error of the device itself, after which nothing is computed in this process.

    https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html: "the process must be
    terminated and relaunched".
    """
    if isinstance(error, SuperbloomError) or is_out_of_memory(error):
        return False
    return isinstance(error, torch.AcceleratorError) or "cuda error" in str(error).lower()


def in_words(error: Exception) -> SuperbloomError:
    """The error as one that its user can read."""
    if isinstance(error, SuperbloomError):
        return error
    if is_out_of_memory(error):
        return SessionRefused(
            "The server ran out of memory in the middle of a step.",
            "Use another server; its owner can lower the memory budget.",
        )
    return ServerError(f"The server could not compute a step ({type(error).__name__}).")
