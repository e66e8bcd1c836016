"""The first word of the command line."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from superbloom.__main__ import main, split_word


@pytest.mark.parametrize(
    ("line", "word", "rest"),
    [
        ("", "window", ""),
        ("--data-dir /d", "window", "--data-dir /d"),
        ("window", "window", ""),
        ("node --quiet", "node", "--quiet"),
        ("--data-dir /d node --quiet", "node", "--quiet --data-dir /d"),
        ("--data-dir=/d serve", "serve", "--data-dir=/d"),
        ("--data-dir /d model import -- -m", "model", "import --data-dir /d -- -m"),
        ("serve --data-dir /d", "serve", "--data-dir /d"),
        ("--data-dir node chat", "chat", "--data-dir node"),
        ("--help", "", "--help"),
        ("--data-dir /d --version", "", "--data-dir /d --version"),
        ("--data-dir", "", "--data-dir"),
    ],
)
def test_the_word_and_what_belongs_to_it(line: str, word: str, rest: str) -> None:
    assert split_word(line.split()) == (word, rest.split())


@pytest.mark.parametrize(
    ("line", "module", "rest"),
    [
        ("", "superbloom.window.main", []),
        ("--data-dir /d window", "superbloom.window.main", ["--data-dir", "/d"]),
        ("node --port 4", "superbloom.node.main", ["--port", "4"]),
        ("serve --model m", "superbloom.node.serving.server_process", ["--model", "m"]),
        ("status --json", "superbloom.cli.main", ["status", "--json"]),
        ("--version", "superbloom.cli.main", ["--version"]),
    ],
)
def test_each_word_goes_to_its_program(
    monkeypatch: pytest.MonkeyPatch, line: str, module: str, rest: list[str]
) -> None:
    asked: list[list[str]] = []
    stand_in = ModuleType(module)

    def answer(arguments: list[str]) -> int:
        asked.append(arguments)
        return 7

    stand_in.main = answer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module, stand_in)
    assert main(line.split()) == 7
    assert asked == [rest]
