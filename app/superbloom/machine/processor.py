"""This computer's processor: how many cores to compute on, beside others that compute too."""

from __future__ import annotations

import os

import psutil

_POLITE = {
    "GOMP_SPINCOUNT": "10000",  # GNU's OpenMP, which torch brings on Linux: about 0.1 ms
    "KMP_BLOCKTIME": "0",  # LLVM's, on macOS
}


def usable_cores() -> int:
    """Physical cores this process may run on: hyper-threads add nothing to matrix work."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    physical = psutil.cpu_count(logical=False)
    return max(1, min(count for count in (allowed, physical) if count))


def share_cores_politely() -> None:
    """Let compute threads soon sleep when they wait, instead of spinning on a core.

    Client and servers on one computer work in turn; a thread that spins takes the core from the
    one whose turn it is (a client and two servers on 2 cores: 13 tokens/s asleep, 6 to 8 with
    libgomp's default of 300,000 turns, 1.3 spinning for ever). Threads that sleep at once must be
    woken for every layer: a step of 36 ms takes 50. So they spin for as long as the pause between
    two layers lasts. Counts only when called before torch is imported, and not where the user has
    set OMP_WAIT_POLICY.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        return
    for name, value in _POLITE.items():
        os.environ.setdefault(name, value)
