"""The shape of the tree: what lies where, how long, under which names."""

from __future__ import annotations

import ast
from pathlib import Path

TOP = {
    "app",
    "resources",
    "installer",
    "tests",
    "pyproject.toml",
    "briefcase.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
}

LONGEST = 350
LONG_FOR_A_REASON = {
    "app/superbloom/control/messages.py": "a list: every message of the control wire in one place",
}

NAMELESS = {"utils", "util", "misc", "helpers", "helper", "common", "manager", "stuff"}


def test_the_top_holds_only_what_belongs_there(tracked: tuple[Path, ...]) -> None:
    found = {name.parts[0] for name in tracked if not name.parts[0].startswith(".")}
    assert found <= TOP


def test_no_module_grows_long_without_a_reason(root: Path, modules: tuple[Path, ...]) -> None:
    lengths = {str(name): len((root / name).read_text("utf-8").splitlines()) for name in modules}
    long = {name for name, length in lengths.items() if length > LONGEST}
    assert long == set(LONG_FOR_A_REASON)


def test_every_module_says_its_duty_in_its_first_line(
    root: Path, modules: tuple[Path, ...]
) -> None:
    for name in modules:
        words = ast.get_docstring(ast.parse((root / name).read_text("utf-8")))
        assert words, f"{name} has no docstring"
        assert words.splitlines()[0].rstrip().endswith((".", ":", "?", "!")), name


def test_no_drawer_is_nameless(tracked: tuple[Path, ...]) -> None:
    for name in tracked:
        words = {word for part in name.parts for word in Path(part).stem.lower().split("_")}
        assert not words & NAMELESS, name


def test_unit_tests_mirror_the_package(root: Path, tracked: tuple[Path, ...]) -> None:
    for name in tracked:
        if name.is_relative_to("tests/unit") and name.name.startswith("test_"):
            package = name.relative_to("tests/unit").parent
            assert (root / "app/superbloom" / package).is_dir(), f"{name} mirrors no package"
