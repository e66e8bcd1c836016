"""How the program looks: colours for light and dark, spacing, fonts, icons in the right colour."""

from __future__ import annotations

from enum import IntEnum

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QColor, QFont, QFontDatabase, QIcon, QPalette
from PySide6.QtWidgets import QApplication

from superbloom.storage.paths import resource
from superbloom.window.colors import DARK, LIGHT, Colors
from superbloom.window.icons import draw_icon
from superbloom.window.stylesheet import stylesheet


class Space(IntEnum):
    """The spacing scale, in pixels."""

    XS = 4
    S = 8
    M = 12
    L = 16
    XL = 24
    XXL = 40


class Theme(QObject):
    """The look of the whole program; follows the system until told otherwise."""

    changed = Signal()

    def __init__(self, application: QApplication) -> None:
        super().__init__(application)
        self._application = application
        self.colors = LIGHT
        self._icons: dict[tuple[str, str, str], QIcon] = {}
        application.setStyle("Fusion")
        hints = application.styleHints()
        hints.colorSchemeChanged.connect(self._follow)
        self._follow(hints.colorScheme())

    @property
    def is_dark(self) -> bool:
        return self.colors is DARK

    def use(self, colors: Colors) -> None:
        """Show everything in these colours from now on."""
        self.colors = colors
        tick, fold = (
            resource("icons", f"{name}-{'dark' if self.is_dark else 'light'}.svg")
            for name in ("tick", "fold")
        )
        self._application.setPalette(_palette(colors))
        self._application.setStyleSheet(stylesheet(colors, tick, fold))
        self.changed.emit()

    def color(self, name: str) -> QColor:
        """A colour by its field's name in Colors."""
        return QColor(getattr(self.colors, name))

    def icon(self, name: str, color: str = "text") -> QIcon:
        """One of our icons, drawn in a colour of the theme."""
        key = (name, getattr(self.colors, color), self.colors.muted)
        if key not in self._icons:
            self._icons[key] = draw_icon(*key)
        return self._icons[key]

    def _follow(self, scheme: Qt.ColorScheme) -> None:
        self.use(DARK if scheme is Qt.ColorScheme.Dark else LIGHT)


def scaled_font(scale: float, *, bold: bool = False) -> QFont:
    """The system's font, larger or smaller."""
    font = QFont(QApplication.font())
    font.setPointSizeF(font.pointSizeF() * scale)
    if bold:
        font.setWeight(QFont.Weight.DemiBold)
    return font


def code_font(scale: float = 1.0) -> QFont:
    """The system's monospaced font."""
    font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
    font.setPointSizeF(QApplication.font().pointSizeF() * scale)
    return font


def _palette(colors: Colors) -> QPalette:
    roles = QPalette.ColorRole
    palette = QPalette()
    for role, color in {
        roles.Window: colors.page,
        roles.WindowText: colors.text,
        roles.Base: colors.surface,
        roles.AlternateBase: colors.ground,
        roles.Text: colors.text,
        roles.PlaceholderText: colors.muted,
        roles.Button: colors.surface,
        roles.ButtonText: colors.text,
        roles.BrightText: colors.error,
        roles.ToolTipBase: colors.surface,
        roles.ToolTipText: colors.text,
        roles.Highlight: colors.accent,
        roles.HighlightedText: colors.on_accent,
        roles.Accent: colors.accent,
        roles.Link: colors.accent,
        roles.LinkVisited: colors.lupine,
        roles.Light: colors.surface,
        roles.Midlight: colors.hover,
        roles.Mid: colors.border,
        roles.Dark: colors.muted,
        roles.Shadow: colors.ground,
    }.items():
        palette.setColor(role, QColor(color))
    disabled = QPalette.ColorGroup.Disabled
    for role in (roles.WindowText, roles.Text, roles.ButtonText):
        palette.setColor(disabled, role, QColor(colors.muted))
    return palette
