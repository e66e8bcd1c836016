"""This computer's memory: what is free, what this process takes, and giving freed pages back."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import psutil

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_CGROUP_USED = Path("/sys/fs/cgroup/memory.current")
_CGROUP_STATISTICS = Path("/sys/fs/cgroup/memory.stat")


def free_bytes() -> int:
    """Bytes that programs may still take without swapping, a container's limit considered."""
    available = int(psutil.virtual_memory().available)
    contained = container_free_bytes(_CGROUP_LIMIT, _CGROUP_USED, _CGROUP_STATISTICS)
    return available if contained is None else min(available, contained)


def container_free_bytes(limit_file: Path, used_file: Path, statistics_file: Path) -> int | None:
    """What a Linux container (cgroup v2) leaves, its file cache included; None without a limit."""
    try:
        limit = limit_file.read_text().strip()
        if limit == "max":
            return None
        used = int(used_file.read_text())
        fields = dict(line.split(maxsplit=1) for line in statistics_file.read_text().splitlines())
        return max(0, int(limit) - used + int(fields.get("inactive_file", "0")))
    except (OSError, ValueError):
        return None


def resident_bytes() -> int:
    """What this process holds in RAM."""
    return int(psutil.Process().memory_info().rss)


def give_back_freed_pages() -> None:
    """Let the allocator return what it keeps of freed memory; where it cannot, nothing happens."""
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # musl has no malloc_trim
        return
