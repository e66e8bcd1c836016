"""`superbloom` without a word, as a process: starting, refusing, raising, ending."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_node import FakeNode, Until

from superbloom.control.messages import StopNode
from superbloom.domain.errors import NoDisplay
from superbloom.machine.lock import FolderLock
from superbloom.storage.paths import DataFolder
from superbloom.window.display import check_display, libraries_missing
from superbloom.window.single_instance import SingleInstance

APP = Path(__file__).resolve().parents[2] / "app"
CODE = "import sys; from superbloom.window.main import main; sys.exit(main(sys.argv[1:]))"

QUIT_SOON = """
from PySide6.QtCore import QEvent, QTimer
from PySide6.QtWidgets import QApplication
from superbloom.window.link import Link
before = Link._subscribed
def subscribed(link, reply):
    before(link, reply)
    QTimer.singleShot(50, QApplication.quit)
Link._subscribed = subscribed
"""
"""Ends the program from outside, as the system does, once it is connected."""

Start = Callable[..., "subprocess.Popen[str]"]


def environment(**changes: str) -> dict[str, str]:
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    }
    return {**kept, "PYTHONPATH": str(APP), **changes}


@pytest.fixture
def start(tmp_path: Path) -> Start:
    def run(
        *arguments: str, platform: str = "offscreen", code: str = CODE
    ) -> subprocess.Popen[str]:
        changes = {"QT_QPA_PLATFORM": platform} if platform else {}
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=environment(**changes),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


def test_without_a_display_it_says_so_and_offers_the_terminal(start: Start, tmp_path: Path) -> None:
    out, err = start("--data-dir", str(tmp_path), platform="").communicate(timeout=60)
    assert err == (
        "superbloom: There is no display to open a window on.\n"
        "  Chat in the terminal with `superbloom chat`.\n"
    )
    assert out == ""


def test_a_display_that_does_not_answer_is_said() -> None:
    with pytest.raises(NoDisplay):
        check_display({"DISPLAY": ":987"}, "linux")
    with pytest.raises(NoDisplay):
        check_display({}, "linux")
    check_display({"QT_QPA_PLATFORM": "offscreen"}, "linux")
    check_display({}, "darwin")


def test_missing_libraries_come_with_the_line_to_run() -> None:
    error = libraries_missing("libEGL.so.1")
    assert "libEGL.so.1" in error.message
    if sys.platform == "linux":
        assert "apt-get install" in error.next_step
        assert "libegl1" in error.next_step
    assert "superbloom chat" in error.next_step


def test_a_missing_library_is_told_as_a_process(tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "PySide6"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text(
        "raise ImportError('libEGL.so.1: cannot open shared object file')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", CODE, "--data-dir", str(tmp_path / "data")],
        env=environment(
            QT_QPA_PLATFORM="offscreen", PYTHONPATH=f"{broken.parent}{os.pathsep}{APP}"
        ),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 1
    assert "libEGL.so.1" in ran.stderr
    assert "superbloom chat" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_connects_a_second_start_raises_it_and_a_signal_ends_it(
    start: Start, node: FakeNode, until: Until, tmp_path: Path, number: signal.Signals
) -> None:
    window = start("--data-dir", str(tmp_path))
    try:
        _wait(until, lambda: node.is_watched or window.poll() is not None)
        assert window.poll() is None
        second = start("--data-dir", str(tmp_path))
        _wait(until, lambda: second.poll() is not None)
        assert second.communicate(timeout=10)[1] == ""
        assert second.returncode == 0
        window.send_signal(number)
        _wait(until, lambda: window.poll() is not None)
        assert window.returncode == 0
        said = window.communicate(timeout=10)[1].splitlines()
        assert not [line for line in said if not line.startswith("This plugin does not support")]
        assert node.asked(StopNode) == []
        assert (tmp_path / "logs" / "window.log").exists()
    finally:
        if window.poll() is None:
            window.kill()
            window.wait(timeout=10)


def test_a_second_start_waits_for_a_window_that_is_quitting(
    start: Start, node: FakeNode, until: Until, tmp_path: Path
) -> None:
    quitting = SingleInstance(tmp_path)
    quitting.ending = True
    with FolderLock.acquire(DataFolder(tmp_path).window_lock_file):
        window = start("--data-dir", str(tmp_path))
        asked: list[bool] = []
        quitting._server.newConnection.connect(lambda: asked.append(True))
        _wait(until, lambda: len(asked) > 1 or window.poll() is not None)
        assert window.poll() is None
        quitting.close()
    try:
        _wait(until, lambda: node.is_watched or window.poll() is not None)
        assert window.poll() is None
    finally:
        window.terminate()
        window.communicate(timeout=20)
    quitting.deleteLater()


def test_a_window_that_does_not_answer_is_said(start: Start, tmp_path: Path) -> None:
    DataFolder(tmp_path).ensure()
    with FolderLock.acquire(DataFolder(tmp_path).window_lock_file):
        window = start("--data-dir", str(tmp_path))
        err = window.communicate(timeout=60)[1]
    assert window.returncode == 1
    assert "does not answer" in err


def test_the_systems_wish_to_quit_ends_the_process(
    start: Start, node: FakeNode, until: Until, tmp_path: Path
) -> None:
    window = start("--data-dir", str(tmp_path), code=f"{QUIT_SOON}{CODE}")
    try:
        _wait(until, lambda: window.poll() is not None)
        assert window.returncode == 0
        assert node.is_watched or node.received
    finally:
        if window.poll() is None:
            window.kill()
        window.communicate(timeout=20)


def _wait(until: Until, holds: Callable[[], bool]) -> None:
    """A process takes longer to start than what a window does in itself."""
    deadline = time.monotonic() + 40
    while not holds() and time.monotonic() < deadline:
        try:
            until(holds)
        except Exception:  # noqa: BLE001 (the wait ran out: look at the clock)
            continue
    assert holds()
