"""Imports only point where the architecture lets them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

PACKAGE = "superbloom"
HIVEMIND_HOME = "hivemind_"


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(PACKAGE, exclude_type_checking_imports=True, cache_dir=None)


def test_every_import_contract_is_kept(root: Path) -> None:
    command = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    linted = subprocess.run(
        [sys.executable, "-c", command],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "app"), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=100,
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert " 0 broken" in linted.stdout


def test_no_modules_import_each_other_in_a_circle(graph: grimp.ImportGraph) -> None:
    circles = {tuple(sorted(circle)) for circle in circles_of(graph) if len(circle) > 1}
    assert not circles


def circles_of(graph: grimp.ImportGraph) -> Iterator[frozenset[str]]:
    """For each module, the set of those that it reaches and that reach it."""
    below = {module: graph.find_upstream_modules(module) for module in graph.modules}
    for module, reached in below.items():
        yield frozenset(other for other in reached if module in below[other]) | {module}


def imported(path: Path) -> set[str]:
    """The top-level names of the packages that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_the_domain_needs_the_standard_library_only(root: Path, modules: tuple[Path, ...]) -> None:
    domain = [name for name in modules if name.is_relative_to("app/superbloom/domain")]
    assert domain
    for name in domain:
        foreign = imported(root / name) - sys.stdlib_module_names - {PACKAGE}
        assert not foreign, f"{name} imports {foreign}"


def test_hivemind_stays_in_its_own_modules(root: Path, modules: tuple[Path, ...]) -> None:
    for name in modules:
        if "hivemind" in imported(root / name):
            assert name.parent.name == "swarm", name
            assert name.name.startswith(HIVEMIND_HOME), name


def test_nothing_unpickles(root: Path, modules: tuple[Path, ...]) -> None:
    for name in modules:
        assert not imported(root / name) & {"pickle", "dill", "marshal", "shelve"}, name
