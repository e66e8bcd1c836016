"""Log files."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from superbloom.domain.errors import StorageFailed
from superbloom.storage import logs
from superbloom.storage.logs import start_logging, stop_logging

INVITE = "superbloom:AbCdEf0123456789_-xyzAbCdEf0123456789"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    root, ours = logging.getLogger(), logging.getLogger("superbloom")
    before = (root.level, ours.level)
    yield tmp_path / "logs" / "node.log"
    stop_logging()
    root.setLevel(before[0])
    ours.setLevel(before[1])


def test_lines_carry_time_level_and_module(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(log)
    logging.getLogger("superbloom.node.chats.chat").info("begun")
    logging.getLogger("noisy").info("not kept")
    logging.getLogger("noisy").warning("kept")
    lines = log.read_text().splitlines()
    assert len(lines) == 2
    assert lines[0][:2] == "20"
    assert lines[0].endswith("INFO    superbloom.node.chats.chat: begun")
    assert re.search(r" WARN(ING)? +noisy: kept$", lines[1])  # hivemind shortens level names
    assert capsys.readouterr().err == ""


def test_stderr_hears_it_too_if_wanted(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(log, stderr=True)
    logging.getLogger("superbloom").info("begun")
    assert "begun" in capsys.readouterr().err


def test_python_warnings_are_kept(log: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        start_logging(log)
        warnings.warn("old ways", stacklevel=1)
        stop_logging()
    assert "old ways" in log.read_text()


def test_secrets_are_blanked_out_in_messages_and_tracebacks(log: Path) -> None:
    start_logging(log)
    token = "0f" * 32
    ours = logging.getLogger("superbloom")
    ours.info("join %s with %s", INVITE, token)
    try:
        raise ValueError(INVITE)
    except ValueError:
        ours.exception("failed")
    text = log.read_text()
    assert INVITE not in text
    assert token not in text
    assert text.count("superbloom:<hidden>") == 2


def test_the_file_rotates(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES", 2000)
    start_logging(log)
    for number in range(500):
        logging.getLogger("superbloom").info("line %d", number)
    files = sorted(file.name for file in log.parent.iterdir())
    assert files == ["node.log", "node.log.1", "node.log.2", "node.log.3"]
    assert all(file.stat().st_size <= 2000 for file in log.parent.iterdir())
    assert "line 499" in log.read_text()


def test_a_log_that_cannot_be_opened(log: Path) -> None:
    log.mkdir(parents=True)
    with pytest.raises(StorageFailed):
        start_logging(log)
