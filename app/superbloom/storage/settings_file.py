"""The settings in a JSON file."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from superbloom.domain.errors import InputRejected
from superbloom.domain.record import NotARecord, from_plain, to_plain
from superbloom.domain.settings import Settings
from superbloom.storage.atomic_file import set_aside, storage_error, write_file

logger = logging.getLogger(__name__)


def load_settings(path: Path) -> tuple[Settings, str]:
    """The settings, and a sentence for the user if the file was damaged (else "").

    No file gives the defaults. A damaged one is set aside, not lost, and the defaults hold.
    Raises StorageFailed if the file is there and cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Settings(), ""
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        return from_plain(Settings, json.loads(content)), ""
    except (ValueError, RecursionError, NotARecord, InputRejected) as error:
        kept = set_aside(path)
        logger.warning("settings set aside as %s: %s", kept, error)
        return Settings(), f"The settings could not be read; they are kept as {kept.name}."


def save_settings(path: Path, settings: Settings) -> None:
    """Replace the file as a whole. Raises DiskFull or StorageFailed."""
    write_file(path, (json.dumps(to_plain(settings), indent=2) + "\n").encode())
