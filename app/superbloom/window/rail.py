"""The rail at the left: the pages, and how the share stands."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtWidgets import QButtonGroup, QLabel, QToolButton, QVBoxLayout, QWidget

from superbloom.domain.sharing import SHARE_WORDS, ShareState
from superbloom.window.icons import bloom_pixmap
from superbloom.window.store import Store
from superbloom.window.theme import Space, Theme, scaled_font
from superbloom.window.widgets.labels import label, set_tone
from superbloom.window.widgets.tips import plain_tip

WIDTH = 84
BLOOM = 40
ICON = 22

_TONES: dict[ShareState, str] = {
    ShareState.SERVING: "good",
    ShareState.FAILED: "error",
    ShareState.RESTARTING: "warning",
}

_SHORT_WORDS: dict[ShareState, str] = {
    ShareState.OFF: "Not sharing",
    ShareState.STARTING: "Starting",
    ShareState.LOADING: "Loading",
    ShareState.SERVING: "Sharing",
    ShareState.DRAINING: "Finishing",
    ShareState.RESTARTING: "Restarting",
    ShareState.FAILED: "Cannot share",
}


class Rail(QWidget):
    """`chosen` carries the page's number, in the order of `pages`."""

    chosen = Signal(int)

    def __init__(self, pages: tuple[tuple[str, str], ...], store: Store, theme: Theme) -> None:
        """`pages` are names and icons."""
        super().__init__()
        self._pages = pages
        self._store = store
        self._theme = theme
        self.setObjectName("rail")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.setFixedWidth(WIDTH)
        bloom = QLabel()
        bloom.setPixmap(bloom_pixmap(BLOOM, self.devicePixelRatio()))
        bloom.setAlignment(Qt.AlignmentFlag.AlignCenter)
        column = QVBoxLayout(self)
        column.setContentsMargins(Space.S, Space.M, Space.S, Space.M)
        column.setSpacing(Space.XS)
        column.addWidget(bloom)
        column.addSpacing(Space.M)
        self._group = QButtonGroup(self)
        self.buttons = tuple(self._button(number) for number in range(len(pages)))
        for one in self.buttons:
            column.addWidget(one)
        column.addStretch(1)
        self.share = label(tone="muted", scale=0.85)
        self.share.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.share.setWordWrap(True)
        column.addWidget(self.share)
        self._group.idClicked.connect(self.chosen)
        store.share_changed.connect(self._draw_share)
        theme.changed.connect(self._paint)
        self.show_page(0)

    def show_page(self, number: int) -> None:
        """Mark a page as the shown one."""
        self.buttons[number].setChecked(True)
        self._paint()

    def _button(self, number: int) -> QToolButton:
        name, _icon = self._pages[number]
        made = QToolButton()
        made.setText(name)
        made.setFont(scaled_font(0.9))
        made.setProperty("kind", "nav")
        made.setCheckable(True)
        made.setIconSize(QSize(ICON, ICON))
        made.setFixedSize(WIDTH - 2 * Space.S, 58)
        made.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextUnderIcon)
        made.setToolTip(f"{name} (Ctrl+{number + 1})")
        made.setAccessibleName(name)
        made.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        made.setCursor(Qt.CursorShape.PointingHandCursor)
        self._group.addButton(made, number)
        return made

    def _paint(self) -> None:
        for made, (_name, icon) in zip(self.buttons, self._pages, strict=True):
            color = "accent" if made.isChecked() else "muted"
            made.setIcon(self._theme.icon(icon, color))

    def _draw_share(self) -> None:
        share = self._store.share
        if share is not None:
            self.share.setText(_SHORT_WORDS[share.state])
            self.share.setToolTip(plain_tip(share.reason or SHARE_WORDS[share.state]))
            set_tone(self.share, _TONES.get(share.state, "muted"))
