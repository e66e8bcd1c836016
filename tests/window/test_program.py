"""The program around the pages: keys, names, tray, closing, crashes, colours."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import ClassVar

import pytest
from fake_node import FakeNode, Until
from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QAccessible, QCloseEvent, QColor, QIcon
from PySide6.QtWidgets import QAbstractButton, QApplication, QLabel, QMessageBox, QWidget
from pytestqt.qtbot import QtBot

import superbloom
from superbloom.control.messages import (
    Notice,
    NoticeLevel,
    ShareChanged,
    StartShare,
    StopAnswer,
    StopShare,
)
from superbloom.domain.errors import InputRejected
from superbloom.domain.sharing import ShareState
from superbloom.storage.paths import DataFolder
from superbloom.window import tray as tray_module
from superbloom.window.application import Application
from superbloom.window.node_process import NodeProcess
from superbloom.window.single_instance import PATH_LIMIT, Answer, socket_name
from superbloom.window.theme import DARK, LIGHT, Colors


def test_every_focusable_widget_has_a_name(
    program: Application, node: FakeNode, talk: str, until: Until
) -> None:
    node.write(talk, "Text\n\n```py\ncode\n```\nand [a link](https://example.org/)")
    until(lambda: "code" in program.window.chat.transcript.cards[-1].text)
    program.window.swarm.invite_dialog.open()
    program.window.swarm.join_dialog.begin()
    nameless = []
    for one in program.window.findChildren(QWidget):
        inside = one.parent() is not None and one.objectName().startswith("qt_")
        if one.focusPolicy() is Qt.FocusPolicy.NoFocus or inside:
            continue
        spoken = QAccessible.queryAccessibleInterface(one).text(QAccessible.Text.Name)
        if not one.accessibleName() and not spoken:
            nameless.append(f"{type(one).__name__} {one.objectName()}")
    program.window.swarm.invite_dialog.reject()
    program.window.swarm.join_dialog.reject()
    assert nameless == []


def test_tab_reaches_composer_list_and_pages(program: Application, qtbot: QtBot) -> None:
    program.window.activateWindow()
    reached = set()
    for _step in range(40):
        focused = QApplication.focusWidget()
        assert focused is not None
        reached.add(focused.accessibleName())
        qtbot.keyClick(focused, Qt.Key.Key_Tab)
    assert {"Message", "Conversations", "Chat"} <= reached
    program.window.rail.buttons[0].setFocus()
    qtbot.keyClick(program.window.rail.buttons[0], Qt.Key.Key_Down)
    assert program.window.pages.currentIndex() == 1


def test_keys_lead_to_pages_and_a_new_conversation(
    program: Application, talk: str, qtbot: QtBot
) -> None:
    window = program.window
    window.activateWindow()
    for number, key in enumerate((Qt.Key.Key_1, Qt.Key.Key_2, Qt.Key.Key_3, Qt.Key.Key_4)):
        qtbot.keyClick(window, key, Qt.KeyboardModifier.ControlModifier)
        assert window.pages.currentIndex() == number
        assert window.rail.buttons[number].isChecked()
    qtbot.keyClick(window, Qt.Key.Key_N, Qt.KeyboardModifier.ControlModifier)
    assert window.pages.currentIndex() == 0
    assert program.store.current == ""


def test_without_a_tray_closing_asks_while_sharing(
    program: Application, node: FakeNode, until: Until
) -> None:
    assert not program.tray.is_shown
    program.window.close()
    box = program.window.findChild(QMessageBox)
    assert box is not None
    assert program.window.isVisible()
    program.window.close()
    assert len(program.window.findChildren(QMessageBox)) == 1
    next(one for one in box.buttons() if one.text() == "Quit").click()
    until(lambda: not program.window.isVisible())


def test_without_a_tray_closing_quits_when_nothing_is_shared(
    program: Application, node: FakeNode, until: Until
) -> None:
    off = replace(node.share, state=ShareState.OFF, wanted=False)
    node.tell(ShareChanged(status=off))
    until(lambda: program.store.share == off)
    program.window.close()
    until(lambda: not program.window.isVisible())


class FakeTrayIcon(tray_module.QSystemTrayIcon):
    """A tray that comes when the test says so."""

    there = False
    shown: ClassVar[list[FakeTrayIcon]] = []

    @staticmethod
    def isSystemTrayAvailable() -> bool:
        return FakeTrayIcon.there

    def __init__(self, icon: QIcon, parent: object) -> None:
        super().__init__(icon, parent)

    def show(self) -> None:
        FakeTrayIcon.shown.append(self)

    def showMessage(self, *words: object) -> None:
        """Not on this screen."""


def test_a_tray_that_comes_late_is_found_and_closing_then_hides(
    unconnected: Application,
    node: FakeNode,
    monkeypatch: pytest.MonkeyPatch,
    until: Until,
) -> None:
    monkeypatch.setattr(tray_module, "QSystemTrayIcon", FakeTrayIcon)
    monkeypatch.setattr(FakeTrayIcon, "there", False)
    monkeypatch.setattr(FakeTrayIcon, "shown", [])
    tray = unconnected.tray
    tray._timer.setInterval(10)
    unconnected.begin()
    until(lambda: node.is_watched and tray._timer.isActive())
    assert FakeTrayIcon.shown == []
    FakeTrayIcon.there = True
    until(lambda: tray.is_shown)
    assert len(FakeTrayIcon.shown) == 1
    until(lambda: "Sharing" in FakeTrayIcon.shown[0].toolTip())
    unconnected.window.close()
    assert not unconnected.window.isVisible()
    tray.open.trigger()
    assert unconnected.window.isVisible()
    assert tray.share.isChecked()
    tray.share.trigger()
    until(lambda: bool(node.asked(StopShare)))
    tray.quit.trigger()
    until(lambda: not tray.is_shown)


def test_an_error_nobody_caught_is_logged_and_told(
    program: Application, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        raise ValueError("inside")
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    assert program.board.newest is not None
    assert "ValueError" in program.board.newest.sentence
    assert "window.log" in program.board.newest.next_step
    assert "inside" in caplog.text


def test_messages_wait_for_their_reader(program: Application, node: FakeNode, until: Until) -> None:
    bar = program.window.messages
    program.board.report(InputRejected("First.", "Do it."))
    node.tell(Notice(level=NoticeLevel.WARNING, message="Second.", next_step=""))
    until(lambda: program.board.count == 2)
    assert bar.isVisible()
    program.board.report(InputRejected("First.", "Do it."))
    assert program.board.count == 2
    program.board.dismiss()
    program.board.dismiss()
    assert not bar.isVisible()


def second_start(data_dir: Path, until: Until) -> Answer:
    """What a second start hears: it waits in a loop of its own."""
    code = "import sys, pathlib; from superbloom.window.single_instance import raise_first; "
    code += "print(raise_first(pathlib.Path(sys.argv[1])).value)"
    asking = subprocess.Popen(
        [sys.executable, "-c", code, str(data_dir)],
        env={**os.environ, "PYTHONPATH": str(Path(superbloom.__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    )
    until(lambda: asking.poll() is not None)
    return Answer(asking.communicate()[0].strip())


def test_a_second_start_raises_the_window(
    program: Application, tmp_path: Path, until: Until
) -> None:
    asked = []
    program.instance.asked.connect(lambda: asked.append(1))
    assert program.instance.listening
    program.window.hide()
    assert second_start(tmp_path, until) is Answer.SHOWN
    assert asked == [1]
    assert program.window.isVisible()


def test_a_second_start_hears_that_the_first_is_quitting(
    program: Application, node: FakeNode, tmp_path: Path, until: Until, qapp: QApplication
) -> None:
    process = SlowProcess(tmp_path)
    program.keeper._process = process
    program.quit()
    assert second_start(tmp_path, until) is Answer.ENDING
    assert not program.window.isVisible()
    process.ended = True
    until(lambda: not program.keeper._timer.isActive())
    assert second_start(tmp_path, until) is Answer.NONE


class SlowProcess(NodeProcess):
    """A node of ours that takes its time to end."""

    ended = False

    @property
    def started(self) -> bool:
        return True

    @property
    def running(self) -> bool:
        return not self.ended


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    assert socket_name(tmp_path / ("x" * PATH_LIMIT)).startswith("superbloom-")


def test_the_end_of_the_session_quits_whatever_is_shared(
    unconnected: Application, monkeypatch: pytest.MonkeyPatch, until: Until, qapp: QApplication
) -> None:
    monkeypatch.setattr(tray_module, "QSystemTrayIcon", FakeTrayIcon)
    monkeypatch.setattr(FakeTrayIcon, "there", True)
    unconnected.begin()
    until(lambda: unconnected.store.share is not None and unconnected.tray.is_shown)
    ended: list[bool] = []
    unconnected.keeper.ended.connect(lambda: ended.append(True))
    event = QEvent(QEvent.Type.Quit)
    QApplication.sendEvent(qapp, event)
    assert event.isAccepted()
    until(lambda: bool(ended))
    assert not unconnected.tray.is_shown
    assert unconnected.window.findChild(QMessageBox) is None


def test_a_damaged_place_of_the_window_is_not_taken(
    qapp: QApplication, tmp_path: Path, until: Until
) -> None:
    (tmp_path / "window.ini").write_text("[window]\ngeometry=1, 2\n")
    made = Application(qapp, DataFolder(tmp_path))
    assert made.window.width() > 0
    made.quit()
    until(lambda: not made.keeper._timer.isActive())
    made.window.deleteLater()
    made.theme.deleteLater()
    made.deleteLater()


def test_the_window_fits_on_the_screen(program: Application) -> None:
    room = program.window.screen().availableGeometry()
    assert program.window.width() <= room.width()
    assert program.window.height() <= room.height()


def test_the_tray_shares_as_last_time(program: Application, node: FakeNode, until: Until) -> None:
    program.tray.share.trigger()
    until(lambda: not program.tray.share.isChecked() and bool(node.asked(StopShare)))
    until(lambda: program.store.share is not None and not program.store.share.wanted)
    program.tray.share.trigger()
    until(lambda: bool(node.asked(StartShare)))
    assert node.asked(StartShare)[0].request is None


def test_escape_stops_the_answer_from_everywhere(
    program: Application, node: FakeNode, talk: str, qtbot: QtBot, until: Until
) -> None:
    node.script[StopAnswer] = lambda request: None
    node.write(talk, "Some text")
    until(lambda: bool(program.store.answers))
    program.window.activateWindow()
    program.window.show_page(2)
    program.window.rail.buttons[2].setFocus()
    qtbot.keyClick(program.window.rail.buttons[2], Qt.Key.Key_Escape)
    until(lambda: len(node.asked(StopAnswer)) == 1)
    qtbot.keyClick(program.window.rail.buttons[2], Qt.Key.Key_Escape)
    qtbot.wait(50)
    assert len(node.asked(StopAnswer)) == 1


def test_titles_are_never_taken_for_rich_text(
    program: Application, node: FakeNode, until: Until
) -> None:
    evil = "<img src='file:///etc/passwd'><b>x"
    head = node.add_conversation(evil)
    program.actions.refresh()
    chats = program.window.chat.list
    until(lambda: chats.rows.row_of(head.id) == 0)
    tip = chats.rows.index(0).data(Qt.ItemDataRole.ToolTipRole)
    assert "<img" not in tip
    assert "&lt;img" in tip
    chats.ask_delete(chats.rows.index(0))
    box = program.window.findChild(QMessageBox)
    assert box is not None
    assert evil in box.text()
    said = [one for one in box.findChildren(QLabel) if one.text()]
    assert {one.textFormat() for one in said} == {Qt.TextFormat.PlainText}
    box.reject()


def _luminance(color: str) -> float:
    parts = QColor(color).getRgbF()[:3]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
def test_text_can_be_read_on_every_ground(colors: Colors) -> None:
    pairs = [
        (text, ground)
        for text in ("text", "muted", "accent", "leaf", "warning", "error", "lupine")
        for ground in ("page", "surface", "ground")
    ]
    pairs += [("on_accent", "accent"), ("text", "lupine_soft"), ("accent", "accent_soft")]
    pairs += [("text", f"{level}_soft") for level in ("warning", "error")]
    values = asdict(colors)
    weak = {
        (text, ground): round(contrast(values[text], values[ground]), 2)
        for text, ground in pairs
        if contrast(values[text], values[ground]) < 4.5
    }
    assert weak == {}


def test_the_theme_follows_the_system(program: Application) -> None:
    program.theme._follow(Qt.ColorScheme.Dark)
    assert program.theme.is_dark
    assert program.window.palette().window().color().name() == DARK.page
    program.theme._follow(Qt.ColorScheme.Light)
    assert program.window.palette().window().color().name() == LIGHT.page


def test_every_button_has_an_icon_or_words(program: Application) -> None:
    buttons = program.window.findChildren(QAbstractButton)
    bare = [
        one.accessibleName()
        for one in buttons
        if not one.text() and one.icon().isNull() and one.metaObject().className() != "Switch"
    ]
    assert not [name for name in bare if name]


def test_qt_counts_references_to_none(qtbot: QtBot) -> None:
    """PySide6 6.12.0 gives one reference to None away per call, until Python 3.11 dies."""
    label = QLabel()
    qtbot.addWidget(label)
    before = sys.getrefcount(None)
    for number in range(100):
        label.setText(str(number))
    assert abs(sys.getrefcount(None) - before) < 50


def test_a_close_event_is_only_a_wish(program: Application) -> None:
    event = QCloseEvent()
    wishes = []
    program.window.close_wanted.disconnect()
    program.window.close_wanted.connect(lambda: wishes.append(1))
    program.window.closeEvent(event)
    assert wishes == [1]
    assert not event.isAccepted()
    assert event.type() is QEvent.Type.Close
