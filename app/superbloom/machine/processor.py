"""This computer's processor: how many cores to compute on, beside others that compute too."""

from __future__ import annotations

import os

import psutil

_POLITE = {
    "OMP_WAIT_POLICY": "PASSIVE",  # GNU's OpenMP, which torch brings on Linux
    "KMP_BLOCKTIME": "0",  # LLVM's, on macOS
}


def usable_cores() -> int:
    """Physical cores this process may run on: hyper-threads add nothing to matrix work."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    physical = psutil.cpu_count(logical=False)
    return max(1, min(count for count in (allowed, physical) if count))


def share_cores_politely() -> None:
    """Let compute threads sleep while they wait, instead of spinning on a core.

    Client and servers on one computer work in turn; a thread that spins takes the core from the
    one whose turn it is (a client and two servers on 2 cores: 13 tokens/s asleep, 6 to 8 with
    libgomp's default, 1.3 spinning). Counts only when called before torch is imported.
    """
    for name, value in _POLITE.items():
        os.environ.setdefault(name, value)
