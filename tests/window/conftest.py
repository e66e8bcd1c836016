"""A whole window on a fake node; every test fails on Qt's warnings and on what it leaves behind."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QCoreApplication, QEvent, QTimer, QtMsgType, qInstallMessageHandler
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from shiboken6 import isValid

sys.path.insert(0, str(Path(__file__).parent))

from fake_node import FakeNode, Until

from superbloom.domain.conversation import Role
from superbloom.storage.paths import DataFolder
from superbloom.window.application import Application
from superbloom.window.theme import Theme

HARMLESS = (
    "No such signal QPlatformNativeInterface::systemTrayWindowChanged",
    "This plugin does not support propagateSizeHints",
    "This plugin does not support raise()",
    "This plugin does not support grabbing the keyboard",
)
QUICK = 5000
"""Milliseconds that a test waits at most for something that comes at once."""


@pytest.fixture(autouse=True)
def qt_is_silent(qapp: QApplication) -> Iterator[None]:
    """Fail on any warning of Qt's but the harmless ones."""
    said: list[str] = []

    def note(kind: QtMsgType, context: object, words: str) -> None:
        if kind is not QtMsgType.QtDebugMsg and not any(one in words for one in HARMLESS):
            said.append(words)

    before = qInstallMessageHandler(note)
    yield
    qInstallMessageHandler(before)
    assert not said


@pytest.fixture(autouse=True)
def nothing_of_qt_stays(qapp: QApplication, qt_is_silent: None) -> Iterator[None]:
    """Fail on windows and running timers that outlive a test."""
    yield
    for _round in range(3):
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        QCoreApplication.processEvents()
    shown = [one for one in QApplication.topLevelWidgets() if one.isVisible()]
    assert not shown
    fresh = [one for one in running_timers() if one not in _left]
    _left.extend(fresh)
    assert not fresh


_left: list[QTimer] = []
"""What earlier tests left running, which is told once."""


def running_timers() -> list[QTimer]:
    """Those made here, whoever holds them: most have no parent in common."""
    timers = [one for one in gc.get_objects() if type(one) is QTimer]
    return [one for one in timers if isValid(one) and one.isActive()]


@pytest.fixture
def theme(qapp: QApplication) -> Iterator[Theme]:
    made = Theme(qapp)
    yield made
    made.deleteLater()


@pytest.fixture
def until(qtbot: QtBot) -> Until:
    """Wait until something holds."""

    def wait(holds: Callable[[], bool]) -> None:
        qtbot.waitUntil(holds, timeout=QUICK)

    return wait


@pytest.fixture
def node(qapp: QApplication, tmp_path: Path) -> Iterator[FakeNode]:
    DataFolder(tmp_path).ensure()
    made = FakeNode(tmp_path)
    made.start()
    yield made
    made.die()
    made.deleteLater()


@pytest.fixture
def unconnected(
    qapp: QApplication, node: FakeNode, tmp_path: Path, until: Until
) -> Iterator[Application]:
    """The program before it looks for its node."""
    made = Application(qapp, DataFolder(tmp_path))
    yield made
    if not made._quitting:
        made.quit()
    until(lambda: not made.link.is_open and not made.keeper._timer.isActive())
    made.link.close()
    made.window.deleteLater()
    made.theme.deleteLater()
    made.deleteLater()


@pytest.fixture
def program(unconnected: Application, node: FakeNode, until: Until) -> Application:
    """The program, shown and connected."""
    unconnected.begin()
    until(lambda: unconnected.store.node is not None and node.is_watched)
    return unconnected


@pytest.fixture
def talk(program: Application, node: FakeNode, until: Until) -> str:
    """A conversation with one finished answer and one that is being written; it is shown."""
    head = node.add_conversation(
        "A talk",
        node.message(Role.USER, "Hello?"),
        node.message(Role.ASSISTANT, "Hello.", tokens=2, tokens_per_second=30.0),
        node.message(Role.USER, "And more?"),
        node.message(Role.ASSISTANT, "", end=None),
    )
    program.actions.refresh()
    program.actions.open_conversation(head.id)
    until(lambda: len(program.window.chat.transcript.cards) == 4)
    return head.id
