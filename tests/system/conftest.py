"""Processes and data folders of the system tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from program import MakeData, Program, Start

STARTER = "smollm2-135m-instruct"


def starting() -> Iterator[Start]:
    """A function that starts programs, all of which are ended afterwards."""
    started: list[Program] = []

    def start(*words: str, feed: bool = False) -> Program:
        started.append(Program(*words, feed=feed))
        return started[-1]

    yield start
    for program in reversed(started):
        program.end()


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program for one test."""
    yield from starting()


@pytest.fixture(scope="module")
def start_for_all() -> Iterator[Start]:
    """Starts a program that the tests of a module share."""
    yield from starting()


def link_models(starter_data: Path, folder: Path) -> None:
    """Give a data folder the starter without copying its weights: the files are the same ones."""
    shutil.copytree(
        starter_data / "models", folder / "models", copy_function=os.link, dirs_exist_ok=True
    )


@pytest.fixture(scope="module")
def data_for_all(tmp_path_factory: pytest.TempPathFactory, starter_data: Path) -> MakeData:
    """Makes a fresh data folder that holds the starter."""

    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        link_models(starter_data, folder)
        return folder

    return make


@pytest.fixture
def data(tmp_path: Path, starter_data: Path) -> Path:
    """A data folder that holds the starter."""
    folder = tmp_path / "data"
    folder.mkdir()
    link_models(starter_data, folder)
    return folder


@pytest.fixture
def own_model(data: Path) -> Path:
    """The starter's folder in `data` as a real copy, which a test may damage."""
    folder = data / "models" / STARTER
    linked = folder.with_name("linked")
    folder.rename(linked)
    shutil.copytree(linked, folder)
    shutil.rmtree(linked)
    return folder
