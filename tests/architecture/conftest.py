"""The files that the rules are about."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def tracked() -> tuple[Path, ...]:
    """Every file under version control, relative to the top of the tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        if os.environ.get("CI"):
            pytest.fail(f"git does not list the files: {listed.stderr.strip()}")
        pytest.skip("this tree is not a git checkout")
    names = [Path(name) for name in listed.stdout.split("\0") if name]
    return tuple(name for name in names if (ROOT / name).is_file())


@pytest.fixture(scope="session")
def modules(tracked: tuple[Path, ...]) -> tuple[Path, ...]:
    """The program's own modules among them."""
    return tuple(name for name in tracked if name.suffix == ".py" and name.parts[0] == "app")


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the tree."""
    return ROOT
