"""Labels: headings, quiet text, text that is cut with an ellipsis where it does not fit."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QLabel, QSizePolicy, QWidget

from superbloom.window.theme import scaled_font
from superbloom.window.widgets.tips import plain_tip


def label(text: str = "", *, scale: float = 1.0, bold: bool = False, tone: str = "") -> QLabel:
    """Plain text; `tone` is muted, good, warning or error."""
    made = QLabel(text)
    made.setTextFormat(Qt.TextFormat.PlainText)
    if scale != 1.0 or bold:
        made.setFont(scaled_font(scale, bold=bold))
    set_tone(made, tone)
    return made


def paragraph(text: str = "", *, tone: str = "muted", scale: float = 1.0) -> QLabel:
    """Plain text over several lines."""
    made = label(text, tone=tone, scale=scale)
    made.setWordWrap(True)
    return made


def set_tone(widget: QWidget, tone: str) -> None:
    """Change a label's tone where it is shown already."""
    if widget.property("tone") != tone:
        widget.setProperty("tone", tone)
        widget.style().polish(widget)


class ElidedLabel(QLabel):
    """One line that gives way; the whole text, and `details`, stand in the tooltip."""

    def __init__(
        self, text: str = "", *, scale: float = 1.0, bold: bool = False, tone: str = ""
    ) -> None:
        super().__init__(text)
        self.details = ""
        self.setTextFormat(Qt.TextFormat.PlainText)
        if scale != 1.0 or bold:
            self.setFont(scaled_font(scale, bold=bold))
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        set_tone(self, tone)

    def sizeHint(self) -> QSize:
        hint = super().sizeHint()
        return QSize(
            max(hint.width(), self.fontMetrics().horizontalAdvance(self.text()) + 1), hint.height()
        )

    def minimumSizeHint(self) -> QSize:
        return QSize(24, super().minimumSizeHint().height())

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        area = self.contentsRect()
        shown = self.fontMetrics().elidedText(
            self.text(), Qt.TextElideMode.ElideRight, area.width()
        )
        whole = self.text() if shown != self.text() else ""
        self.setToolTip(plain_tip("\n".join(filter(None, (whole, self.details)))))
        self.style().drawItemText(
            painter,
            area,
            int(self.alignment()),
            self.palette(),
            self.isEnabled(),
            shown,
            self.foregroundRole(),
        )
