"""A scripted node and the commands on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import superbloom
from superbloom.cli.interrupts import ENDS
from superbloom.cli.main import main

sys.path.insert(0, str(Path(__file__).parent))

from scripted_node import ScriptedNode


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ScriptedNode]:
    made = ScriptedNode(tmp_path)
    yield made
    made.close()


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a command in this process, on the scripted node's folder."""
    before = {number: signal.getsignal(number) for number in ENDS}

    def call(*words: str) -> Ran:
        try:
            code = main([*words, "--data-dir", str(tmp_path)])
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    yield call
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command as a process of its own."""
    started: list[subprocess.Popen[str]] = []
    surroundings = {"PYTHONPATH": str(Path(superbloom.__file__).parent.parent)}
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDS}  # as for a user

    def begin(*words: str, **options: Any) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "superbloom", *words, "--data-dir", str(tmp_path)],
                stdin=options.get("stdin", subprocess.PIPE),
                stdout=options.get("stdout", subprocess.PIPE),
                stderr=options.get("stderr", subprocess.PIPE),
                text=True,
                env={**os.environ, **surroundings},
                start_new_session=True,
            )
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()
    for number, handler in before.items():
        signal.signal(number, handler)
