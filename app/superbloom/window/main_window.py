"""The main window: the rail, the pages, and a place for what must be said."""

from __future__ import annotations

from PySide6.QtCore import QMargins, QSize, Qt, Signal
from PySide6.QtGui import QCloseEvent, QKeySequence, QShortcut
from PySide6.QtWidgets import QHBoxLayout, QMainWindow, QStackedWidget, QVBoxLayout, QWidget

from superbloom.window.actions import Actions
from superbloom.window.chat.page import ChatPage
from superbloom.window.errors import MessageBoard
from superbloom.window.icons import bloom_icon
from superbloom.window.models.page import ModelsPage
from superbloom.window.network.page import SwarmPage
from superbloom.window.node_keeper import Connection, NodeKeeper
from superbloom.window.rail import Rail
from superbloom.window.sharing.page import SharePage
from superbloom.window.store import Store
from superbloom.window.theme import Theme
from superbloom.window.widgets.message_bar import MessageBar
from superbloom.window.widgets.node_banner import NodeBanner

PAGES = (("Chat", "chat"), ("Share", "share"), ("Swarm", "swarm"), ("Models", "models"))
SIZE = QSize(1120, 760)
LEAST = QSize(760, 520)
FRAME = QMargins(8, 40, 8, 8)
"""What the window's own bar and edges may take of the screen; Qt learns it when it is shown."""


class MainWindow(QMainWindow):
    """Closing it only asks: `close_wanted` decides what becomes of the program."""

    close_wanted = Signal()
    quit_wanted = Signal()

    def __init__(
        self, store: Store, actions: Actions, board: MessageBoard, keeper: NodeKeeper, theme: Theme
    ) -> None:
        super().__init__()
        self._may_close = False
        self._keeper = keeper
        self.setWindowTitle("Superbloom")
        self.setWindowIcon(bloom_icon())
        room = self.screen().availableGeometry().size().shrunkBy(FRAME)
        self.setMinimumSize(LEAST.boundedTo(room))
        self.resize(SIZE.boundedTo(room))
        self.rail = Rail(PAGES, store, theme)
        self.chat = ChatPage(store, actions, theme)
        self.share = SharePage(store, actions, theme)
        self.swarm = SwarmPage(store, actions, theme)
        self.models = ModelsPage(store, actions, theme)
        self.pages = QStackedWidget()
        for page in (self.chat, self.share, self.swarm, self.models):
            self.pages.addWidget(page)
        self.banner = NodeBanner(keeper)
        self.messages = MessageBar(board, theme)
        self._arrange()
        self._bind_keys()
        self.rail.chosen.connect(self.show_page)
        keeper.changed.connect(self._connection_changed)
        self._connection_changed()
        self.chat.composer.field.setFocus()

    def show_page(self, number: int) -> None:
        """Show a page by its number in PAGES."""
        self.pages.setCurrentIndex(number)
        self.rail.show_page(number)
        if number == 0:
            self.chat.composer.field.setFocus()

    def bring_up(self) -> None:
        """Show the window above the others."""
        self.setWindowState(self.windowState() & ~Qt.WindowState.WindowMinimized)
        self.show()
        self.raise_()
        self.activateWindow()

    def close_for_good(self) -> None:
        """Close without asking anybody."""
        self._may_close = True
        self.close()

    def closeEvent(self, event: QCloseEvent) -> None:
        if self._may_close:
            event.accept()
            return
        event.ignore()
        self.close_wanted.emit()

    def _arrange(self) -> None:
        column = QVBoxLayout()
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self.banner)
        column.addWidget(self.messages)
        column.addWidget(self.pages, 1)
        body = QWidget()
        row = QHBoxLayout(body)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(self.rail)
        row.addLayout(column, 1)
        self.setCentralWidget(body)

    def _bind_keys(self) -> None:
        for number in range(len(PAGES)):
            key = QShortcut(QKeySequence(f"Ctrl+{number + 1}"), self)
            key.activated.connect(lambda number=number: self.show_page(number))
        new = QShortcut(QKeySequence(QKeySequence.StandardKey.New), self)
        new.activated.connect(self._begin_conversation)
        escape = QShortcut(QKeySequence(Qt.Key.Key_Escape), self)
        escape.activated.connect(self.chat.stop)
        leave = QShortcut(QKeySequence("Ctrl+Q"), self)
        leave.activated.connect(self.quit_wanted)

    def _begin_conversation(self) -> None:
        self.show_page(0)
        self.chat.begin_new()

    def _connection_changed(self) -> None:
        self.chat.set_reachable(self._keeper.state is Connection.CONNECTED)
