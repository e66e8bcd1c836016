"""The link: replies, refusals, odd lines, silence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_node import TOKEN, FakeNode, Until
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from superbloom.control.address import CONTROL_FILE, NodeAddress, read_address
from superbloom.control.codec import MAX_LINE_BYTES
from superbloom.control.messages import GetStatus, NodeStatus
from superbloom.domain.errors import ControlRefused, InputRejected, NodeUnreachable
from superbloom.window.link import Link


class Heard:
    """What came of requests and of the link itself."""

    def __init__(self, link: Link) -> None:
        self.replies: list[Any] = []
        self.failures: list[Any] = []
        self.events: list[Any] = []
        self.ends: list[Any] = []
        link.told.connect(self.events.append)
        link.closed.connect(self.ends.append)


@pytest.fixture
def link(qapp: QApplication) -> Iterator[Link]:
    made = Link()
    yield made
    made.close()
    made.deleteLater()


@pytest.fixture
def heard(link: Link) -> Heard:
    return Heard(link)


def address_of(node: FakeNode) -> NodeAddress:
    address = read_address(node.data_dir / CONTROL_FILE)
    assert address is not None
    return address


def test_it_shows_the_token_subscribes_and_asks(
    link: Link, heard: Heard, node: FakeNode, qtbot: QtBot, until: Until
) -> None:
    with qtbot.waitSignal(link.opened):
        link.open(address_of(node))
    assert link.name == "view-1"
    link.ask(GetStatus(), heard.replies.append, heard.failures.append)
    until(lambda: bool(heard.replies))
    assert isinstance(heard.replies[0], NodeStatus)
    assert node.received[0].token == TOKEN


def test_a_wrong_token_closes_it_with_the_reason(
    link: Link, heard: Heard, node: FakeNode, until: Until
) -> None:
    node.token = "another"
    link.open(address_of(node))
    until(lambda: bool(heard.ends))
    assert isinstance(heard.ends[0], ControlRefused)
    assert len(heard.ends) == 1
    assert not link.is_open


def test_nobody_listens(link: Link, heard: Heard, until: Until, node: FakeNode) -> None:
    address = address_of(node)
    node.die()
    link.open(address)
    until(lambda: bool(heard.ends))
    assert isinstance(heard.ends[0], NodeUnreachable)


def test_an_error_reaches_the_one_who_asked(
    link: Link, heard: Heard, node: FakeNode, qtbot: QtBot, until: Until
) -> None:
    node.script[GetStatus] = lambda request: InputRejected("No.", "Do it otherwise.")
    with qtbot.waitSignal(link.opened):
        link.open(address_of(node))
    link.ask(GetStatus(), heard.replies.append, heard.failures.append)
    until(lambda: bool(heard.failures))
    assert isinstance(heard.failures[0], InputRejected)
    assert link.is_open


def test_a_request_without_an_answer_fails_in_time(
    link: Link, heard: Heard, node: FakeNode, qtbot: QtBot, until: Until
) -> None:
    node.script[GetStatus] = lambda request: None
    with qtbot.waitSignal(link.opened):
        link.open(address_of(node))
    link.ask(GetStatus(), heard.replies.append, heard.failures.append, timeout=0.1)
    until(lambda: bool(heard.failures))
    assert "does not answer" in heard.failures[0].message


def test_a_request_without_a_connection_fails_later_not_at_once(
    link: Link, heard: Heard, until: Until
) -> None:
    link.ask(GetStatus(), heard.replies.append, heard.failures.append)
    assert heard.failures == []
    until(lambda: bool(heard.failures))


def test_what_waits_when_the_node_dies_fails(
    link: Link, heard: Heard, node: FakeNode, qtbot: QtBot, until: Until
) -> None:
    node.script[GetStatus] = lambda request: None
    with qtbot.waitSignal(link.opened):
        link.open(address_of(node))
    link.ask(GetStatus(), heard.replies.append, heard.failures.append)
    node.die()
    until(lambda: bool(heard.ends))
    assert len(heard.failures) == 1


@pytest.mark.parametrize(
    "line",
    [
        b"not json\n",
        b'{"type": "ChatDelta", "body": {}}\n',
        b'{"type": "Unknown", "body": {}}\n',
        b"x" * (MAX_LINE_BYTES + 10),
        json.dumps({"type": "error", "body": {"code": "x"}}).encode() + b"\n",
    ],
    ids=["no json", "lacks fields", "unknown", "endless", "bad error"],
)
def test_an_odd_line_closes_it(
    link: Link, heard: Heard, node: FakeNode, qtbot: QtBot, line: bytes
) -> None:
    with qtbot.waitSignal(link.opened):
        link.open(address_of(node))
    with qtbot.waitSignal(link.closed):
        node.tell_raw(line)
    assert isinstance(heard.ends[0], ControlRefused)


def test_a_stale_address_file_is_no_node(tmp_path: Path) -> None:
    assert read_address(tmp_path / CONTROL_FILE) is None
