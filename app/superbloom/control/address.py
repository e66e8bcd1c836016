"""How to reach the running node: a small file that only this user can read."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from superbloom.domain.disk_errors import storage_error
from superbloom.domain.record import NotARecord, from_plain, to_plain

CONTROL_FILE = "control.json"
"""The file's name in the data folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAddress:
    """A node's port on 127.0.0.1 and the token that opens it."""

    port: int
    token: str = field(repr=False)
    pid: int
    version: str

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise ValueError(f"not a port: {self.port}")


def new_token() -> str:
    """A fresh token: 256 random bits in hex."""
    return os.urandom(32).hex()


def write_address(path: Path, address: NodeAddress) -> None:
    """Replace the file as a whole, with mode 0600. Raises DiskFull or StorageFailed."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(to_plain(address), file)
        fresh.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise storage_error(path, error) from error


def read_address(path: Path) -> NodeAddress | None:
    """The address in the file, or None if there is none that makes sense.

    A node that was killed leaves its file behind: see `control.launch.find_node`.
    """
    try:
        return from_plain(NodeAddress, json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError, NotARecord):
        return None
