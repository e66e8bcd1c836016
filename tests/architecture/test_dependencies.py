"""pyproject.toml names exactly what the program imports, and the pins hold."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

USED_BY_OTHERS = {
    "accelerate": "transformers loads bitsandbytes weights with it",
    "bitsandbytes": "transformers quantizes with it",
    "jinja2": "transformers renders chat templates with it",
    "tokenizers": "transformers reads tokenizers with it",
}


@pytest.fixture(scope="module")
def requirements(root: Path) -> dict[str, Requirement]:
    """What pyproject.toml declares for this system, by canonical name."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    declared = [Requirement(line) for line in project["dependencies"]]
    return {
        canonicalize_name(one.name): one
        for one in declared
        if one.marker is None or one.marker.evaluate()
    }


@pytest.fixture(scope="module")
def imported(root: Path, modules: tuple[Path, ...]) -> set[str]:
    """The distributions whose packages the program imports."""
    tops: set[str] = set()
    for name in modules:
        for node in ast.walk(ast.parse((root / name).read_text("utf-8"))):
            if isinstance(node, ast.Import):
                tops |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                tops.add(node.module.split(".")[0])
    homes = metadata.packages_distributions()
    foreign = tops - sys.stdlib_module_names - {"superbloom"}
    unknown = foreign - set(homes)
    assert not unknown, f"imported, but not installed: {unknown}"
    return {canonicalize_name(homes[top][0]) for top in foreign}


def test_everything_imported_is_declared(
    imported: set[str], requirements: dict[str, Requirement]
) -> None:
    assert imported <= set(requirements)


def test_everything_declared_is_used(
    imported: set[str], requirements: dict[str, Requirement]
) -> None:
    assert set(requirements) <= imported | set(USED_BY_OTHERS)


def test_the_installed_releases_are_the_declared_ones(
    requirements: dict[str, Requirement],
) -> None:
    for name, requirement in requirements.items():
        version = metadata.version(name)
        assert requirement.specifier.contains(version, prereleases=True), f"{name} {version}"


def test_the_frozen_window_lists_what_it_imports(root: Path) -> None:
    graph = grimp.build_graph(
        "superbloom", include_external_packages=True, exclude_type_checking_imports=True
    )
    inner = graph.find_descendants("superbloom.window")
    needed = {other for module in inner for other in graph.find_upstream_modules(module)}
    external = {other for other in needed if graph.is_module_squashed(other)}
    homes = metadata.packages_distributions()
    foreign = {canonicalize_name(homes[top][0]) for top in external - sys.stdlib_module_names}
    settings = tomllib.loads((root / "briefcase.toml").read_text("utf-8"))
    briefcase = settings["tool"]["briefcase"]["app"]["superbloom"]
    listed = [Requirement(line) for line in briefcase["requires"]]
    assert {canonicalize_name(one.name) for one in listed} == foreign


def test_qt_calls_keep_their_references_to_none(qtbot: QtBot) -> None:
    """PySide6 6.12.0 gives one reference to None away per call, until Python 3.11 dies."""
    label = QLabel()
    qtbot.addWidget(label)
    before = sys.getrefcount(None)
    for number in range(100):
        label.setText(str(number))
    assert abs(sys.getrefcount(None) - before) < 50
