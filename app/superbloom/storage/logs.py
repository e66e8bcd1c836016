"""Log files that rotate and keep no secrets."""

from __future__ import annotations

import logging
import logging.handlers
import re
import sys
from pathlib import Path

from superbloom.storage.atomic_file import storage_error

FILE_BYTES = 4 * 1024 * 1024
FILES_KEPT = 3
FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

_INVITE = re.compile(r"superbloom:[A-Za-z0-9_\-+/=.]{12,}")
_TOKEN = re.compile(r"\b[0-9a-fA-F]{64,}\b")
"""Control tokens and swarm secrets in hex. A sha256 looks the same; losing those in a log is
better than keeping a secret there."""


class _DiscreetFormatter(logging.Formatter):
    """Formats a record, traceback included, and blanks out what opens a node or a swarm."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return _TOKEN.sub("<hidden>", _INVITE.sub("superbloom:<hidden>", text))


def start_logging(path: Path, *, stderr: bool = False, level: int = logging.INFO) -> None:
    """Send this process's log lines and Python warnings to `path`, and to stderr if wanted.

    `level` holds for our own modules; of other packages only warnings are kept. Called once a
    process. Raises DiskFull or StorageFailed if the file cannot be opened.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handlers: list[logging.Handler] = [
            logging.handlers.RotatingFileHandler(
                path, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8"
            )
        ]
    except OSError as error:
        raise storage_error(path, error) from error
    if stderr:
        handlers.append(logging.StreamHandler(sys.stderr))
    root = logging.getLogger()
    for handler in handlers:
        handler.setFormatter(_DiscreetFormatter(FORMAT))
        root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("superbloom").setLevel(level)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a full disk must not fill the terminal with tracebacks


def stop_logging() -> None:
    """Close what `start_logging` opened."""
    root = logging.getLogger()
    for handler in tuple(root.handlers):
        if isinstance(handler.formatter, _DiscreetFormatter):
            root.removeHandler(handler)
            handler.close()
    logging.captureWarnings(False)
    logging.raiseExceptions = True
