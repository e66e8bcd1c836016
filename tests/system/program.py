"""Real processes of the program, started and ended by the tests, with what they say."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import psutil

APP = Path(__file__).resolve().parent.parent.parent / "app"
START = 90.0
"""Seconds that a process may take to say what is waited for, on a busy machine."""


class Program:
    """One `superbloom` process. `words` are its command line; stdout and stderr are collected."""

    def __init__(self, *words: str, feed: bool = False, command: Sequence[str] = ()) -> None:
        self.words = " ".join(words)[:120]
        self._heard = threading.Condition()
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            [*(command or (sys.executable, "-m", "superbloom")), *words],
            stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            bufsize=1,
            env=surroundings(),
            start_new_session=True,
        )
        self.pid = self._process.pid
        assert self._process.stdout
        assert self._process.stderr
        self._readers = [
            self._collect(self._process.stdout, ""),
            self._collect(self._process.stderr, "! "),
        ]

    def _collect(self, pipe: IO[str], mark: str) -> threading.Thread:
        def read() -> None:
            for line in pipe:
                with self._heard:
                    self._lines.append(mark + line.rstrip("\n"))
                    self._heard.notify_all()

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread

    @property
    def said(self) -> str:
        """Everything so far; lines of stderr begin with `! `."""
        with self._heard:
            return "\n".join(self._lines)

    @property
    def output(self) -> str:
        """What stdout carried so far."""
        with self._heard:
            return "\n".join(line for line in self._lines if not line.startswith("! "))

    @property
    def errors(self) -> str:
        """What stderr carried so far."""
        with self._heard:
            return "\n".join(line[2:] for line in self._lines if line.startswith("! "))

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def heard(self, pattern: str, timeout: float = START) -> re.Match[str]:
        """Wait until `pattern` was said; fails at once if the process ended without saying it."""
        deadline = time.monotonic() + timeout
        while True:
            ended = not self.running
            if ended:
                self._join_readers()
            with self._heard:
                for line in self._lines:
                    if found := re.search(pattern, line):
                        return found
                left = deadline - time.monotonic()
                assert not ended, f"{self.words}: ended without {pattern!r}:\n" + "\n".join(
                    self._lines
                )
                assert left > 0, (
                    f"{self.words}: {pattern!r} not said in {timeout} s:\n" + "\n".join(self._lines)
                )
                self._heard.wait(min(left, 0.2))

    def tell(self, line: str) -> None:
        """Type a line on its stdin."""
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def end_input(self) -> None:
        """Close its stdin, as Ctrl-D does."""
        assert self._process.stdin
        self._process.stdin.close()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def terminate(self) -> None:
        """Ask it to end, as a system that shuts down does."""
        self.signal(signal.SIGTERM)

    def freeze(self) -> None:
        """Stop it and its children as a partition would: they vanish without a word."""
        for process in self.family():
            process.suspend()

    def thaw(self) -> None:
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def family(self) -> list[psutil.Process]:
        """The process and all its descendants that are alive."""
        try:
            parent = psutil.Process(self.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def wait(self, timeout: float = START) -> int:
        """Its exit code; fails if it does not end."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.words}: did not end in {timeout} s:\n{self.said}"
            ) from None
        self._join_readers()
        return code

    def kill(self) -> None:
        """kill -9, and wait until it is gone. What it had started may live on for a moment."""
        self._process.kill()
        self._process.wait(10)

    def end(self) -> None:
        """Leave nothing of it behind, whatever state it is in."""
        family = self.family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(10)
        psutil.wait_procs(family, timeout=10)
        if self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._join_readers()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe
            pipe.close()

    def _join_readers(self) -> None:
        for reader in self._readers:
            reader.join(5)


Start = Callable[..., Program]
"""`start(*words, feed=False)` starts a program that is ended after the test."""

MakeData = Callable[[str], Path]
"""Makes a fresh data folder that holds the starter."""


def surroundings() -> dict[str, str]:
    """The environment of the processes: our sources first, no color, few threads."""
    return {
        **os.environ,
        "PYTHONPATH": str(APP),
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
