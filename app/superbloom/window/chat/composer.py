"""Where the user writes: grows with the text, sends on Enter, stops a running answer."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QSize, Qt, Signal
from PySide6.QtGui import QFocusEvent, QInputMethodEvent, QKeyEvent, QResizeEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPlainTextEdit, QSizePolicy

from superbloom.window.theme import Space, Theme
from superbloom.window.widgets.buttons import IconButton

MOST_LINES = 9


class Composer(QFrame):
    """`sent` carries the text; it is taken away at once and comes back with `give_back`."""

    sent = Signal(str)
    stopped = Signal()

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._answering = False
        self._stopping = False
        self._reachable = False
        self.setProperty("kind", "composer")
        self.field = _Field()
        self.field.setPlaceholderText("Ask something")
        self.field.submitted.connect(self._send)
        self.field.focused.connect(self._mark_active)
        self.field.textChanged.connect(self._show_buttons)
        self.send_button = IconButton(theme, "send", "Send", color="on_accent", kind="send")
        self.send_button.clicked.connect(self._send)
        self.stop_button = IconButton(
            theme, "stop", "Stop the answer", color="on_accent", kind="send"
        )
        self.stop_button.clicked.connect(self._stop)
        row = QHBoxLayout(self)
        row.setContentsMargins(Space.M, Space.S, Space.S, Space.S)
        row.setSpacing(Space.S)
        row.addWidget(self.field, 1)
        for one in (self.send_button, self.stop_button):
            row.addWidget(one, 0, Qt.AlignmentFlag.AlignBottom)
        self._show_buttons()

    @property
    def text(self) -> str:
        return self.field.toPlainText()

    def set_answering(self, answering: bool, *, stopping: bool = False) -> None:
        """While an answer runs the button stops it."""
        self._answering, self._stopping = answering, stopping
        self.stop_button.rename("Stopping …" if stopping else "Stop the answer (Esc)")
        self._show_buttons()

    def set_reachable(self, reachable: bool) -> None:
        """Without a node one can write but not send."""
        self._reachable = reachable
        self._show_buttons()

    def write(self, text: str) -> None:
        """Put a text in, for the user to send or change."""
        self.field.setPlainText(text)
        self.field.moveCursor(self.field.textCursor().MoveOperation.End)
        self.field.setFocus()

    def give_back(self, text: str) -> None:
        """A text could not be sent: it is not lost, unless something new stands here already."""
        if not self.text.strip():
            self.write(text)

    def _send(self) -> None:
        text = self.text.strip()
        if text and self._reachable and not self._answering:
            self.field.clear()
            self.sent.emit(text)

    def _stop(self) -> None:
        if self._answering and self.stop_button.isEnabled():
            self.stopped.emit()

    def _show_buttons(self) -> None:
        can_send = self._reachable and bool(self.text.strip())
        can_stop = self._answering and not self._stopping
        # a button that goes must not hand the focus on to whatever comes next
        focused = self.window().focusWidget()
        if (focused is self.send_button and (self._answering or not can_send)) or (
            focused is self.stop_button and not can_stop
        ):
            self.field.setFocus()
        self.send_button.setVisible(not self._answering)
        self.stop_button.setVisible(self._answering)
        self.send_button.setEnabled(can_send)
        self.stop_button.setEnabled(can_stop)

    def _mark_active(self, active: bool) -> None:
        self.setProperty("active", "true" if active else "false")
        self.style().polish(self)


class _Field(QPlainTextEdit):
    """The text itself."""

    submitted = Signal()
    focused = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self._composing = False
        self.setAccessibleName("Message")
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setTabChangesFocus(True)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.viewport().setAutoFillBackground(False)
        self.document().setDocumentMargin(Space.XS)
        self.document().documentLayout().documentSizeChanged.connect(self._fit)
        self._fit()

    def sizeHint(self) -> QSize:
        return QSize(400, self.height())

    def minimumSizeHint(self) -> QSize:
        return QSize(80, 24)

    def inputMethodEvent(self, event: QInputMethodEvent) -> None:
        super().inputMethodEvent(event)
        self._composing = bool(event.preeditString())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            if self._composing:
                event.accept()  # it belongs to the input method
                return
            if not event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
                event.accept()
                self.submitted.emit()
                return
        super().keyPressEvent(event)

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        self.focused.emit(True)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        self._composing = False
        super().focusOutEvent(event)
        self.focused.emit(False)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() is QEvent.Type.FontChange:
            self._fit()

    def _fit(self) -> None:
        # QPlainTextEdit counts its document's height in lines, wrapped ones included
        lines = max(1, round(self.document().size().height()))
        shown = min(lines, MOST_LINES)
        margin = 2 * self.document().documentMargin()
        height = round(shown * self.fontMetrics().lineSpacing() + margin) + 2
        policy = Qt.ScrollBarPolicy.ScrollBarAsNeeded if lines > MOST_LINES else None
        self.setVerticalScrollBarPolicy(policy or Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        if height != self.height():
            self.setFixedHeight(height)
