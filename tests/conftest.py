"""What every test stands on: no screen, few threads, the starter model, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
TEST_DATA = "SUPERBLOOM_TEST_DATA"
"""Names a folder that keeps the starter model between runs; pytest's own cache by default."""

STARTER = "smollm2-135m-instruct"

RUN = "SUPERBLOOM_TEST_RUN"
"""Marks every process that a test starts, so that those left behind are found."""

PATIENCE = 10.0
"""Seconds that processes have to end after the last test."""

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ[RUN] = uuid.uuid4().hex


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run system tests in their full size")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the full-size tests out unless asked for."""
    if config.getoption("--full"):
        return
    skip = pytest.mark.skip(reason="full size: run with --full")
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(skip)


def processes_of_this_run() -> list[psutil.Process]:
    """Every live process that was started, directly or not, by this run of the tests."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get(RUN) == os.environ[RUN]
            alive = process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        if ours and alive and process.pid != os.getpid() and not is_python_bookkeeping(process):
            found.append(process)
    return found


def is_python_bookkeeping(process: psutil.Process) -> bool:
    """Whether it is multiprocessing's resource tracker, which ends with this process."""
    try:
        return "resource_tracker" in " ".join(process.cmdline())
    except psutil.Error:
        return True


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail if a process outlives the tests; it is ended then."""
    yield
    deadline = time.monotonic() + PATIENCE
    while (left := processes_of_this_run()) and time.monotonic() < deadline:
        psutil.wait_procs(left, timeout=0.5)
    words = []
    for process in left:
        try:
            words.append(f"{process.pid}: {' '.join(process.cmdline())[:200]}")
            process.kill()
        except psutil.NoSuchProcess:
            continue
    assert not words, "processes outlived the tests:\n" + "\n".join(words)


@pytest.fixture(scope="session")
def starter_data(pytestconfig: pytest.Config) -> Path:
    """A data folder into which the program itself has fetched the starter; nobody writes to it."""
    given = os.environ.get(TEST_DATA)
    assert pytestconfig.cache
    folder = Path(given) if given else pytestconfig.cache.mkdir("superbloom-starter")
    if not (folder / "fetched").exists():
        superbloom = (sys.executable, "-m", "superbloom")
        where = {**os.environ, "PYTHONPATH": str(ROOT / "app")}
        fetch = (*superbloom, "model", "fetch", STARTER, "--data-dir", str(folder))
        fetched = subprocess.run(
            fetch, env=where, capture_output=True, text=True, check=False, timeout=600
        )
        stop = (*superbloom, "stop", "--data-dir", str(folder))
        subprocess.run(stop, env=where, capture_output=True, check=False, timeout=60)
        said = fetched.stdout + fetched.stderr
        if fetched.returncode and not os.environ.get("CI"):
            pytest.skip(f"the starter cannot be fetched here: {said[-600:]}")
        assert fetched.returncode == 0, said
        (folder / "fetched").touch()
    return folder


@pytest.fixture(scope="session")
def starter_folder(starter_data: Path) -> Path:
    """The starter as an ordinary model folder; copy it before changing anything in it."""
    return starter_data / "models" / STARTER


@pytest.fixture(scope="session")
def qapp_cls() -> type:
    """The program's own application object, which pytest-qt makes once for all tests."""
    from superbloom.window.program import Program

    return Program
