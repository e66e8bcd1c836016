"""This computer's memory, and a container's."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from superbloom.machine.memory import (
    container_free_bytes,
    free_bytes,
    give_back_freed_pages,
    resident_bytes,
)


def container(folder: Path, limit: str, used: str, statistics: str) -> tuple[Path, Path, Path]:
    files = folder / "max", folder / "current", folder / "stat"
    for file, text in zip(files, (limit, used, statistics), strict=True):
        file.write_text(text)
    return files


def test_free_memory_is_a_part_of_all() -> None:
    assert 0 < free_bytes() <= psutil.virtual_memory().total


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    files = container(tmp_path, "1000\n", "700\n", "anon 500\ninactive_file 150\n")
    assert container_free_bytes(*files) == 450


def test_a_container_over_its_limit_has_nothing(tmp_path: Path) -> None:
    assert container_free_bytes(*container(tmp_path, "1000", "1200", "anon 1200")) == 0


@pytest.mark.parametrize("limit", ["max\n", "nonsense"])
def test_no_limit_is_none(tmp_path: Path, limit: str) -> None:
    assert container_free_bytes(*container(tmp_path, limit, "700", "")) is None


def test_no_container_is_none(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    assert container_free_bytes(nothing, nothing, nothing) is None


def test_giving_pages_back_does_not_grow_the_process() -> None:
    kept = [bytes(1000) for _ in range(100_000)]
    before = resident_bytes()
    kept.clear()
    give_back_freed_pages()
    assert resident_bytes() <= before
