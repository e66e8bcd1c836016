"""A code block: its language, a button that copies it, and the code, never wrapped."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt, QTimer, Signal
from PySide6.QtGui import (
    QFocusEvent,
    QGuiApplication,
    QKeyEvent,
    QResizeEvent,
    QTextCursor,
    QWheelEvent,
)
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPlainTextEdit, QSizePolicy, QVBoxLayout

from superbloom.window.chat.code_colors import CodeColors
from superbloom.window.chat.reading_keys import scrolls_talk
from superbloom.window.theme import Space, Theme, code_font
from superbloom.window.widgets.buttons import IconButton
from superbloom.window.widgets.focus_bar import BY_KEYBOARD
from superbloom.window.widgets.labels import label

COPIED_MILLISECONDS = 1500


class CodeView(QFrame):
    """One block of code."""

    def __init__(self, theme: Theme, language: str) -> None:
        super().__init__()
        self.setProperty("kind", "code")
        self._text = _CodeText(theme)
        self._text.focused.connect(self._show_focus)
        self._copy = IconButton(theme, "copy", "Copy the code", size=16, color="muted")
        self._copy.clicked.connect(self._copy_code)
        self._done = QTimer(self)
        self._done.setSingleShot(True)
        self._done.setInterval(COPIED_MILLISECONDS)
        self._done.timeout.connect(self._show_ready)
        head = QHBoxLayout()
        head.setContentsMargins(Space.S, 3, Space.XS, 0)
        head.addWidget(label(language or "code", tone="muted", scale=0.9))
        head.addStretch(1)
        head.addWidget(self._copy)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, Space.XS)
        rows.setSpacing(0)
        rows.addLayout(head)
        rows.addWidget(self._text)

    @property
    def code(self) -> str:
        return self._text.toPlainText()

    def show_code(self, code: str) -> None:
        """Code that only grew is appended: what is drawn already stays."""
        self._text.show_code(code)

    def _show_focus(self, focused: bool) -> None:
        self.setProperty("active", focused)
        self.style().polish(self)

    def _copy_code(self) -> None:
        QGuiApplication.clipboard().setText(self.code)
        self._copy.show_icon("check", "leaf")
        self._copy.rename("Copied")
        self._done.start()

    def _show_ready(self) -> None:
        self._copy.show_icon("copy", "muted")
        self._copy.rename("Copy the code")


class _CodeText(QPlainTextEdit):
    """As tall as its lines."""

    focused = Signal(bool)
    """Whether a key has brought the focus here."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._shown = ""
        self.setReadOnly(True)
        self.setUndoRedoEnabled(False)
        self.setAccessibleName("Code")
        self.setFont(code_font(0.95))
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.document().setDocumentMargin(Space.S)
        self.viewport().setAutoFillBackground(False)
        self._colors = CodeColors(self.document(), theme)
        self._fit()

    def show_code(self, code: str) -> None:
        if code.startswith(self._shown):
            cursor = QTextCursor(self.document())
            cursor.movePosition(QTextCursor.MoveOperation.End)
            cursor.insertText(code[len(self._shown) :])
        else:
            self.setPlainText(code)
        self._shown = code
        self._fit()

    def sizeHint(self) -> QSize:
        return QSize(400, self.height())

    def minimumSizeHint(self) -> QSize:
        return QSize(60, 20)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def focusInEvent(self, event: QFocusEvent) -> None:
        self.focused.emit(event.reason() in BY_KEYBOARD)
        super().focusInEvent(event)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        self.focused.emit(False)
        super().focusOutEvent(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if scrolls_talk(event):
            event.ignore()
        else:
            super().keyPressEvent(event)

    def wheelEvent(self, event: QWheelEvent) -> None:
        if abs(event.angleDelta().x()) > abs(event.angleDelta().y()):
            super().wheelEvent(event)
        else:
            event.ignore()

    def _fit(self) -> None:
        lines = self.blockCount() * self.fontMetrics().lineSpacing()
        bar = self.horizontalScrollBar()
        height = round(lines + 2 * self.document().documentMargin()) + 2
        if bar.maximum() > 0:
            height += bar.sizeHint().height()
        if height != self.height():
            self.setFixedHeight(height)
