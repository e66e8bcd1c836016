"""The window program put together, from its start to its end."""

from __future__ import annotations

import sys

from PySide6.QtCore import QByteArray, QObject, QSettings, QTimer
from PySide6.QtWidgets import QMessageBox

from superbloom import __version__
from superbloom.storage.paths import DataFolder
from superbloom.window.actions import Actions
from superbloom.window.crash_hook import CrashHook
from superbloom.window.end_signals import EndSignals
from superbloom.window.errors import MessageBoard
from superbloom.window.icons import bloom_icon
from superbloom.window.link import Link
from superbloom.window.main_window import MainWindow
from superbloom.window.node_keeper import NodeKeeper
from superbloom.window.node_process import NodeProcess
from superbloom.window.program import Program
from superbloom.window.single_instance import SingleInstance
from superbloom.window.store import Store
from superbloom.window.theme import Theme
from superbloom.window.tray import Tray
from superbloom.window.widgets.confirm import confirm

GEOMETRY = "window/geometry"


class Application(QObject):
    """Owns everything; `begin` shows the window, `quit` ends what this window started."""

    def __init__(self, qt: Program, folder: DataFolder) -> None:
        super().__init__()
        self._qt = qt
        self._quitting = False
        self._told_of_tray = False
        self._question: QMessageBox | None = None
        self._settings = QSettings(str(folder.root / "window.ini"), QSettings.Format.IniFormat)
        self.theme = Theme(qt)
        self.board = MessageBoard()
        self.crash_hook = CrashHook(self.board, folder.window_log)
        self.link = Link()
        self.store = Store()
        self.actions = Actions(self.link, self.store, self.board)
        self.keeper = NodeKeeper(folder.root, self.link, NodeProcess(folder.root))
        self.window = MainWindow(self.store, self.actions, self.board, self.keeper, self.theme)
        self.tray = Tray(self.store, self.actions)
        self.instance = SingleInstance(folder.root)
        self.instance.asked.connect(self.window.bring_up)
        self.tray.open_wanted.connect(self.window.bring_up)
        self.tray.quit_wanted.connect(self.quit)
        self.window.quit_wanted.connect(self.quit)
        self.window.close_wanted.connect(self._closed)
        self.keeper.ended.connect(self._ended)
        geometry = self._settings.value(GEOMETRY)
        if isinstance(geometry, QByteArray):  # the file may have been edited or damaged
            self.window.restoreGeometry(geometry)
        qt.quit_asked.connect(self._quit_asked)

    def begin(self) -> None:
        """Show the window first; everything else comes when it is drawn."""
        self.window.show()
        QTimer.singleShot(0, self, self._begin_rest)

    def quit(self) -> None:
        """End the node if this window started it, then the program. Asked again: at once."""
        if self._quitting:
            self.keeper.end_at_once()
            return
        self._quitting = True
        self._settings.setValue(GEOMETRY, self.window.saveGeometry())
        self.window.hide()
        self.tray.close()
        self.instance.ending = True
        self.keeper.end()

    def _quit_asked(self) -> None:
        """The system says so, and may say it twice."""
        if not self._quitting:
            self.quit()

    def _begin_rest(self) -> None:
        self.keeper.begin()
        self.tray.look()

    def _closed(self) -> None:
        """The user closed the window: with a tray it only hides."""
        if self.tray.is_shown:
            self.window.hide()
            if not self._told_of_tray:
                self._told_of_tray = True
                self.tray.say("Superbloom goes on", "Open or quit it from its icon here.")
        elif self._question is None and self._is_sharing():
            self._question = confirm(
                self.window,
                "Quit Superbloom?",
                "This computer stops sharing, and answers that are being written end.",
                "Quit",
                self.quit,
            )
            self._question.finished.connect(self._forget_question)
        else:
            self.quit()

    def _is_sharing(self) -> bool:
        return self.link.is_open and self.store.share is not None and self.store.share.wanted

    def _forget_question(self) -> None:
        self._question = None

    def _ended(self) -> None:
        self.window.close_for_good()
        self.crash_hook.close()
        self.instance.close()
        self._qt.end()


def run(folder: DataFolder) -> int:
    """Run the window until it is quit; gives the exit code."""
    qt = Program(sys.argv[:1])
    qt.setApplicationName("superbloom")
    qt.setApplicationDisplayName("Superbloom")
    qt.setApplicationVersion(__version__)
    qt.setDesktopFileName("superbloom")
    qt.setWindowIcon(bloom_icon())
    qt.setQuitOnLastWindowClosed(False)
    application = Application(qt, folder)
    signals = EndSignals(application.quit)
    application.begin()
    code = qt.exec()
    signals.close()
    return code
