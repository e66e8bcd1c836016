"""One message: a question as a bubble, an answer as text that may still be growing."""

from __future__ import annotations

from PySide6.QtCore import QTimer, QUrl, Signal
from PySide6.QtGui import QGuiApplication, QResizeEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from superbloom.domain.conversation import Message, Role
from superbloom.domain.sampling import EndReason
from superbloom.window.chat.code_view import CodeView
from superbloom.window.chat.markdown_parts import Part, PartKind, split_markdown
from superbloom.window.chat.prose_view import ProseView
from superbloom.window.icons import bloom_pixmap
from superbloom.window.theme import Space, Theme
from superbloom.window.widgets.buttons import IconButton
from superbloom.window.widgets.labels import label, paragraph
from superbloom.window.words import END_WORDS, count_words, speed_words

PARTS_AT_ONCE = 6
"""A long text is drawn in batches, so that the window stays responsive meanwhile."""

BUBBLE_PART = 0.8
"""The widest a question may be, as a part of the column."""

AVATAR = 26


class QuestionCard(QWidget):
    """What the user said, as it was typed."""

    def __init__(self, theme: Theme, message: Message) -> None:
        super().__init__()
        self.message = message
        bubble = QFrame()
        bubble.setProperty("kind", "question")
        self._text = ProseView(theme, "Your question")
        inside = QVBoxLayout(bubble)
        inside.setContentsMargins(Space.L, Space.M, Space.L, Space.S)
        inside.addWidget(self._text)
        self._text.show_plain(message.text)
        self._ideal = self._text.ideal_width() + 2 * Space.L + 4
        self._bubble = bubble
        row = QHBoxLayout(self)
        row.setContentsMargins(0, Space.S, 0, Space.S)
        row.addStretch(1)
        row.addWidget(bubble)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._bubble.setFixedWidth(min(self._ideal, round(self.width() * BUBBLE_PART)))


class AnswerCard(QWidget):
    """What the model says. Only the last part of a growing text is drawn again."""

    link_clicked = Signal(QUrl)

    def __init__(self, theme: Theme, message: Message) -> None:
        super().__init__()
        self.message = message
        self._theme = theme
        self._text = ""
        self._views: list[ProseView | CodeView] = []
        self._kinds: list[PartKind] = []
        self._tail = 0
        self._pending: list[Part] = []
        avatar = QLabel()
        avatar.setPixmap(bloom_pixmap(AVATAR, self.devicePixelRatio()))
        avatar.setAccessibleName("Answer")
        column = QVBoxLayout()
        column.setSpacing(Space.S)
        self._parts = QVBoxLayout()
        self._parts.setSpacing(Space.S)
        self._waiting = label(tone="muted")
        self._waiting.hide()
        self._notes = paragraph(scale=0.92)
        self._notes.hide()
        self._trouble = paragraph(tone="error")
        self._trouble.hide()
        self._figures = label(tone="muted", scale=0.88)
        self._copy = IconButton(theme, "copy", "Copy the answer", size=15, color="muted")
        self._copy.clicked.connect(self._copy_text)
        self._foot = QWidget()
        foot = QHBoxLayout(self._foot)
        foot.setContentsMargins(0, 0, 0, 0)
        foot.addWidget(self._copy)
        foot.addWidget(self._figures)
        foot.addStretch(1)
        column.addWidget(self._waiting)
        column.addLayout(self._parts)
        column.addWidget(self._notes)
        column.addWidget(self._trouble)
        column.addWidget(self._foot)
        self._foot.hide()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, Space.S, 0, Space.S)
        row.setSpacing(Space.M)
        side = QVBoxLayout()
        side.addWidget(avatar)
        side.addStretch(1)
        row.addLayout(side)
        row.addLayout(column, 1)

    @property
    def text(self) -> str:
        return self._text

    def show_text(self, text: str) -> None:
        """Draw `text`: from the last part on if it only grew, else all of it."""
        if text == self._text:
            return
        self._waiting.hide()
        if self._views and not self._pending and text.startswith(self._text):
            parts = split_markdown(text[self._tail :])
            self._redraw_tail(parts)
        else:
            self._remove_parts(0)
            self._tail = 0
            self._pending = list(split_markdown(text))
            self._draw_pending()
        self._text = text

    def show_running(self, words: str) -> None:
        """It goes on: what it does, for as long as there is no text; nothing of an end."""
        self._trouble.hide()
        self._foot.hide()
        self._show_waiting(words)

    def show_notes(self, notes: tuple[str, ...]) -> None:
        """What happened on the way and was overcome."""
        self._notes.setText("\n".join(notes))
        self._notes.setVisible(bool(notes))

    def _show_waiting(self, words: str) -> None:
        self._waiting.setText(f"{words} …" if words else "")
        self._waiting.setVisible(bool(words) and not self._text)

    def show_end(self, message: Message, failure: tuple[str, str] | None) -> None:
        """How the answer ended and the figures that stand under it."""
        self.message = message
        self._show_waiting("")
        self._trouble.hide()
        if failure is not None or message.end is EndReason.FAILED:
            sentence, step = failure or ("This answer broke off.", "Ask again.")
            self._trouble.setText(f"{sentence} {step}".strip())
            self._trouble.show()
        words = []
        if message.end is not None:
            words = [
                speed_words(message.tokens_per_second),
                count_words(message.tokens, "token") if message.tokens else "",
                END_WORDS[message.end],
            ]
        elif failure is None:
            words = ["broke off"]
        self._figures.setText("  ·  ".join(word for word in words if word))
        self._foot.setVisible(bool(self._text) or message.end is EndReason.STOPPED)
        self._copy.setVisible(bool(self._text))

    def _redraw_tail(self, parts: tuple[Part, ...]) -> None:
        if not parts:
            return
        if parts[0].kind is self._kinds[-1]:
            self._fill(self._views[-1], parts[0])
            fresh = parts[1:]
        else:
            self._remove_parts(len(self._views) - 1)
            fresh = parts
        base = self._tail
        for part in fresh:
            self._add(part)
        self._tail = base + parts[-1].start

    def _draw_pending(self) -> None:
        batch, self._pending = self._pending[:PARTS_AT_ONCE], self._pending[PARTS_AT_ONCE:]
        for part in batch:
            self._add(part)
            self._tail = part.start
        if self._pending:
            QTimer.singleShot(0, self, self._draw_pending)

    def _add(self, part: Part) -> None:
        view: ProseView | CodeView
        if part.kind is PartKind.CODE:
            view = CodeView(self._theme, part.language)
        else:
            view = ProseView(self._theme, "Answer")
            view.link_clicked.connect(self.link_clicked)
        self._fill(view, part)
        self._parts.addWidget(view)
        self._views.append(view)
        self._kinds.append(part.kind)

    def _fill(self, view: ProseView | CodeView, part: Part) -> None:
        if isinstance(view, CodeView):
            view.show_code(part.text)
        else:
            view.show_markdown(part.text)

    def _remove_parts(self, first: int) -> None:
        for view in self._views[first:]:
            self._parts.removeWidget(view)
            view.hide()
            view.deleteLater()
        del self._views[first:], self._kinds[first:]

    def _copy_text(self) -> None:
        QGuiApplication.clipboard().setText(self._text)


def is_shown(message: Message) -> bool:
    """System prompts are not part of the talk."""
    return message.role is not Role.SYSTEM
