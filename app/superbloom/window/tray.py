"""The tray icon: share, open, quit. It comes when the desktop's tray does, however late."""

from __future__ import annotations

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QMenu, QSystemTrayIcon

from superbloom.domain.sharing import SHARE_WORDS
from superbloom.window.actions import Actions
from superbloom.window.icons import bloom_icon
from superbloom.window.store import Store

LOOK_MILLISECONDS = 3000


class Tray(QObject):
    """`open_wanted` and `quit_wanted` come from its menu."""

    open_wanted = Signal()
    quit_wanted = Signal()

    def __init__(self, store: Store, actions: Actions, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._store = store
        self._actions = actions
        self._icon: QSystemTrayIcon | None = None
        self.menu = QMenu()
        self.share = QAction("Share this computer", self)
        self.share.setCheckable(True)
        self.share.triggered.connect(self._toggle)
        self.open = QAction("Open Superbloom", self)
        self.open.triggered.connect(self.open_wanted)
        self.quit = QAction("Quit", self)
        self.quit.triggered.connect(self.quit_wanted)
        self.menu.addAction(self.open)
        self.menu.addAction(self.share)
        self.menu.addSeparator()
        self.menu.addAction(self.quit)
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_MILLISECONDS)
        self._timer.timeout.connect(self.look)
        store.share_changed.connect(self._draw)
        store.models_changed.connect(self._draw)
        self._draw()

    @property
    def is_shown(self) -> bool:
        """Whether there is a tray with our icon in it."""
        return self._icon is not None

    def look(self) -> None:
        """Show the icon if the desktop has a tray by now; look again later if not."""
        if not QSystemTrayIcon.isSystemTrayAvailable():
            self._timer.start()
            return
        # an icon made before the tray was there never shows: it is made only now
        self._timer.stop()
        self._icon = QSystemTrayIcon(bloom_icon(), self)
        self._icon.setContextMenu(self.menu)
        self._icon.activated.connect(self._activated)
        self._draw()
        self._icon.show()

    def say(self, title: str, words: str) -> None:
        """A short message beside the icon."""
        if self._icon is not None:
            self._icon.showMessage(title, words, bloom_icon())

    def close(self) -> None:
        """Take the icon away."""
        self._timer.stop()
        if self._icon is not None:
            self._icon.hide()
            self._icon.deleteLater()
            self._icon = None
        self.menu.close()
        self.menu.deleteLater()

    def _draw(self) -> None:
        share = self._store.share
        self.share.setEnabled(share is not None and bool(self._store.model))
        self.share.setChecked(share is not None and share.wanted)
        words = SHARE_WORDS[share.state] if share else "Getting ready"
        if self._icon is not None:
            self._icon.setToolTip(f"Superbloom: {words}")

    def _toggle(self, wanted: bool) -> None:
        if wanted:
            self._actions.start_share()
        else:
            self._actions.stop_share()

    def _activated(self, reason: QSystemTrayIcon.ActivationReason) -> None:
        if reason is not QSystemTrayIcon.ActivationReason.Context:
            self.open_wanted.emit()
