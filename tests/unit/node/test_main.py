"""The root of the node process."""

from __future__ import annotations

from pathlib import Path

import pytest

from superbloom.control.launch import ALREADY_RUNS
from superbloom.machine.lock import FolderLock
from superbloom.node.main import FAILED, main
from superbloom.storage.paths import DataFolder


@pytest.mark.parametrize(
    "words",
    [
        ("--port", "99999"),
        ("--port", "-1"),
        ("--port", "x"),
        ("--data-dir", ""),
        ("--data-dir", "~nobody-of-this-name/x"),
    ],
)
def test_nonsense_is_a_usage_error(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_a_second_node_tells_the_program_that_started_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = DataFolder(tmp_path)
    data.ensure()
    with FolderLock.acquire(data.lock_file):
        assert main(["--data-dir", str(tmp_path)]) == FAILED
        assert main(["--data-dir", str(tmp_path), "--quiet"]) == ALREADY_RUNS
    assert "already runs" in capsys.readouterr().err


def test_last_words_that_a_full_disk_does_not_take_end_no_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def write(self, _words: str) -> None:
            raise OSError("full")

    data = DataFolder(tmp_path)
    data.ensure()
    monkeypatch.setattr("sys.stderr", Full())
    with FolderLock.acquire(data.lock_file):
        assert main(["--data-dir", str(tmp_path)]) == FAILED
