"""The node that this window started, if it started one."""

from __future__ import annotations

import subprocess
from pathlib import Path

from superbloom.control.launch import launch_node, wait_for_node
from superbloom.domain.errors import NodeUnreachable, SuperbloomError


class NodeProcess:
    """Starts a node on the data folder, knows how it ended, and ends it. Never waits."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def started(self) -> bool:
        """True if this window started a node, whether it still runs or not."""
        return self._process is not None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def ended_well(self) -> bool:
        """True if it ended because somebody asked it to."""
        return self._process is not None and self._process.poll() == 0

    def start(self) -> None:
        """Raises NodeUnreachable if the system does not start it."""
        try:
            self._process = launch_node(self._data_dir)
        except OSError as error:
            raise NodeUnreachable(
                f"The node could not be started: {error.strerror or error}.",
                "Free some memory or disk and try again.",
            ) from error

    def forget(self) -> None:
        """The process is none of ours any more: another one took its place."""
        self._process = None

    def last_words(self) -> SuperbloomError | None:
        """Why a process of ours that ended did so; None if another node is there in its place."""
        assert self._process is not None
        assert not self.running
        try:
            wait_for_node(self._data_dir, self._process, timeout=0)
        except SuperbloomError as error:
            return error
        return None

    def terminate(self) -> None:
        """Ask the system to end it."""
        if self._process is not None and self.running:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None and self.running:
            self._process.kill()
            self._process.wait(timeout=5)
