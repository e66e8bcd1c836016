"""What must start at once imports nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "hivemind", "numpy", "grpc", "huggingface_hub", "tokenizers"}
QT = "PySide6"

PROBE = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


def loaded_by(root: Path, *names: str) -> set[str]:
    """The top-level packages in memory after a fresh Python imported these modules."""
    ran = subprocess.run(
        [sys.executable, "-c", PROBE, *names],
        env={**os.environ, "PYTHONPATH": str(root / "app")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())


def package_modules(modules: tuple[Path, ...], package: str) -> list[str]:
    folder = Path("app/superbloom") / package
    dotted = [
        ".".join(name.relative_to("app").with_suffix("").parts)
        for name in modules
        if name.is_relative_to(folder)
    ]
    return [name.removesuffix(".__init__") for name in dotted]


@pytest.mark.parametrize("package", ["domain", "control", "cli"])
def test_the_terminal_loads_neither_models_nor_qt(
    root: Path, modules: tuple[Path, ...], package: str
) -> None:
    names = package_modules(modules, package)
    assert names
    heavy = loaded_by(root, *names) & (HEAVY | {QT})
    assert not heavy


def test_the_first_word_is_read_without_loading_anything(root: Path) -> None:
    heavy = loaded_by(root, "superbloom.__main__") & (HEAVY | {QT, "asyncio", "sqlite3"})
    assert not heavy


def test_the_window_loads_qt_and_nothing_heavy(root: Path, modules: tuple[Path, ...]) -> None:
    names = package_modules(modules, "window")
    assert names
    heavy = loaded_by(root, *names) & HEAVY
    assert not heavy


def test_the_node_opens_its_port_before_it_loads_models(root: Path) -> None:
    heavy = loaded_by(root, "superbloom.node.main") & (HEAVY | {QT})
    assert not heavy
