"""Finding, starting, losing and ending the node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_node import FakeNode, Until
from PySide6.QtWidgets import QApplication

from superbloom.control.messages import StopNode
from superbloom.domain.errors import NodeUnreachable, SuperbloomError
from superbloom.window import node_keeper
from superbloom.window.link import Link
from superbloom.window.node_keeper import CRASHES, Connection, NodeKeeper
from superbloom.window.node_process import NodeProcess


class FakeProcess(NodeProcess):
    """A process that starts the fake node, or crashes."""

    def __init__(self, data_dir: Path, node: FakeNode) -> None:
        super().__init__(data_dir)
        self.node = node
        self.starts = 0
        self.crashes = 0
        """So many starts fail."""
        self.alive: bool | None = None
        self.code = 0
        self.terminated = False

    @property
    def started(self) -> bool:
        return self.alive is not None

    @property
    def running(self) -> bool:
        return bool(self.alive)

    @property
    def ended_well(self) -> bool:
        return self.alive is False and self.code == 0

    def start(self) -> None:
        self.starts += 1
        self.alive = self.starts > self.crashes
        self.code = 0 if self.alive else 1
        if self.alive:
            self.node.start()

    def forget(self) -> None:
        self.alive = None

    def last_words(self) -> SuperbloomError | None:
        return NodeUnreachable("The disk is full.", "Free some space.")

    def end(self, code: int) -> None:
        self.node.die()
        self.alive, self.code = False, code

    def terminate(self) -> None:
        self.terminated = True
        self.end(0)

    def kill(self) -> None:
        self.terminate()


@pytest.fixture
def absent(qapp: QApplication, tmp_path: Path) -> Iterator[FakeNode]:
    """A node that is not there yet."""
    made = FakeNode(tmp_path)
    yield made
    made.die()
    made.deleteLater()


@pytest.fixture
def process(tmp_path: Path, absent: FakeNode) -> FakeProcess:
    return FakeProcess(tmp_path, absent)


@pytest.fixture
def keeper(
    qapp: QApplication, tmp_path: Path, process: FakeProcess, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NodeKeeper]:
    monkeypatch.setattr(node_keeper, "BACK_OFF", (0.01,))
    link = Link()
    made = NodeKeeper(tmp_path, link, process)
    yield made
    made._timer.stop()
    link.close()
    link.deleteLater()
    made.deleteLater()


def test_it_starts_a_node_where_none_runs_and_stops_it_at_the_end(
    keeper: NodeKeeper, process: FakeProcess, absent: FakeNode, until: Until
) -> None:
    def stop(request: StopNode) -> None:
        process.end(0)

    absent.script[StopNode] = stop
    ended: list[bool] = []
    keeper.ended.connect(lambda: ended.append(True))
    keeper.begin()
    until(lambda: keeper.state is Connection.CONNECTED)
    assert process.starts == 1
    keeper.end()
    until(lambda: bool(ended))
    assert len(absent.asked(StopNode)) == 1
    assert not process.terminated


def test_a_node_that_was_there_before_is_used_and_left_alone(
    keeper: NodeKeeper, process: FakeProcess, absent: FakeNode, until: Until
) -> None:
    absent.start()
    ended: list[bool] = []
    keeper.ended.connect(lambda: ended.append(True))
    keeper.begin()
    until(lambda: keeper.state is Connection.CONNECTED)
    keeper.end()
    until(lambda: bool(ended))
    assert process.starts == 0
    assert absent.asked(StopNode) == []


def test_the_address_of_a_killed_node_does_not_mislead_it(
    keeper: NodeKeeper, process: FakeProcess, absent: FakeNode, until: Until
) -> None:
    absent.start()
    absent.die()
    keeper.begin()
    until(lambda: keeper.state is Connection.CONNECTED)
    assert process.starts == 1


def test_a_node_of_ours_that_crashes_is_started_again(
    keeper: NodeKeeper, process: FakeProcess, until: Until
) -> None:
    keeper.begin()
    until(lambda: keeper.state is Connection.CONNECTED)
    process.end(-9)
    until(lambda: process.starts == 2 and keeper.state is Connection.CONNECTED)


def test_a_node_that_cannot_start_is_given_up_with_its_last_words_until_asked(
    keeper: NodeKeeper, process: FakeProcess, until: Until
) -> None:
    process.crashes = CRASHES
    keeper.begin()
    until(lambda: process.starts == CRASHES and keeper.state is Connection.GONE)
    assert keeper.problem is not None
    assert keeper.problem.message == "The disk is full."
    keeper.start_node()
    until(lambda: keeper.state is Connection.CONNECTED)


def test_a_node_that_somebody_ended_is_not_started_again_but_found(
    keeper: NodeKeeper, process: FakeProcess, absent: FakeNode, until: Until
) -> None:
    absent.start()
    keeper.begin()
    until(lambda: keeper.state is Connection.CONNECTED)
    absent.die()
    until(lambda: keeper.state is Connection.GONE)
    absent.start()
    until(lambda: keeper.state is Connection.CONNECTED)
    assert process.starts == 0


def test_a_wrong_token_is_said_and_tried_again(
    keeper: NodeKeeper, process: FakeProcess, absent: FakeNode, until: Until
) -> None:
    absent.token = "another"
    absent.start()
    keeper.begin()
    until(lambda: keeper.state is Connection.REFUSED)
    assert keeper.problem is not None
    assert "token" in keeper.problem.message
    absent.token = "0123456789abcdef"
    until(lambda: keeper.state is Connection.CONNECTED)
    assert process.starts == 0


def test_quitting_while_the_node_starts_terminates_it(
    keeper: NodeKeeper, process: FakeProcess, absent: FakeNode, until: Until
) -> None:
    process.alive = True
    ended: list[bool] = []
    keeper.ended.connect(lambda: ended.append(True))
    keeper.begin()
    keeper.end()
    until(lambda: bool(ended))
    assert process.terminated
