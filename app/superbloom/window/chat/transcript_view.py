"""The talk: one card a message, following the stream until the reader scrolls away."""

from __future__ import annotations

import time

from PySide6.QtCore import QEvent, QObject, Qt, QTimer, QUrl
from PySide6.QtGui import QDesktopServices, QKeyEvent, QResizeEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QScrollArea, QToolButton, QVBoxLayout, QWidget

from superbloom.domain.conversation import Message, Role
from superbloom.window.chat.message_card import AnswerCard, QuestionCard, is_shown
from superbloom.window.chat.narration import Narrator
from superbloom.window.chat.reading_keys import scrolls_talk
from superbloom.window.chat.reading_place import ReadingPlace, place_at
from superbloom.window.chat.state_line import phase_words
from superbloom.window.chat.tab_order import first_seen, put_in_order
from superbloom.window.store import Store
from superbloom.window.theme import Space, Theme

COLUMN_WIDTH = 780
FRAME_SECONDS = 1 / 30
"""Text that comes faster is drawn together."""

CARDS_AT_ONCE = 12
NEAR_END = 24
"""Pixels from the end within which the reader counts as being there."""

SETTLED_MILLISECONDS = 250
"""So long after its height has changed, the talk is taken to stand still."""


class TranscriptView(QScrollArea):
    """Shows the store's current conversation."""

    def __init__(self, store: Store, theme: Theme) -> None:
        super().__init__()
        self._store = store
        self._theme = theme
        self._conversation = ""
        self._cards: dict[str, QuestionCard | AnswerCard] = {}
        self._earlier: list[Message] = []
        self._following = True
        self._place: ReadingPlace | None = None
        self._keeping_place = False
        self._drawn_for = 0.0
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setAccessibleName("Conversation")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._body = QWidget()
        self._rows = self._make_rows()
        self.setWidget(self._body)
        self._jump = self._make_jump()
        theme.changed.connect(self._paint)
        self._paint()
        self._narrator = Narrator(store, self)
        self._frame = QTimer(self)
        self._frame.setSingleShot(True)
        self._frame.timeout.connect(self._draw_growth)
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.setInterval(SETTLED_MILLISECONDS)
        self._settled.timeout.connect(self._settle)
        bar = self.verticalScrollBar()
        bar.valueChanged.connect(self._scrolled)
        bar.rangeChanged.connect(self._range_changed)
        store.transcript_changed.connect(self._transcript_changed)
        store.current_changed.connect(self._current_changed)
        store.answer_grew.connect(self._grew)
        store.answer_changed.connect(self._transcript_changed)

    @property
    def cards(self) -> tuple[QuestionCard | AnswerCard, ...]:
        """Oldest first."""
        return tuple(self._cards.values())

    @property
    def following(self) -> bool:
        return self._following

    def follow(self) -> None:
        """Go to the end and stay there."""
        self._following = True
        self._jump.hide()
        bar = self.verticalScrollBar()
        bar.setValue(bar.maximum())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        bar = self.verticalScrollBar()
        if not scrolls_talk(event):
            super().keyPressEvent(event)
        elif event.key() == Qt.Key.Key_Home:
            bar.setValue(bar.minimum())
        elif event.key() == Qt.Key.Key_End:
            self.follow()
        else:
            super().keyPressEvent(event)

    def focusNextPrevChild(self, forward: bool) -> bool:
        """Tab begins with what can be seen and not with the oldest message."""
        if forward and self.hasFocus():
            first = first_seen(self._cards.values())
            if first is not None:
                first.setFocus(Qt.FocusReason.TabFocusReason)
                return True
        return super().focusNextPrevChild(forward)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._place_jump()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() is QEvent.Type.Resize:
            self._place_jump()
        return super().eventFilter(watched, event)

    def _make_rows(self) -> QVBoxLayout:
        self._body.setObjectName("scrolled")
        outer = QHBoxLayout(self._body)
        outer.setContentsMargins(Space.XL, Space.L, Space.XL, Space.L)
        column = QWidget()
        column.setMaximumWidth(COLUMN_WIDTH)
        outer.addStretch(1)
        outer.addWidget(column, 100)
        outer.addStretch(1)
        rows = QVBoxLayout(column)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(Space.XS)
        rows.addStretch(1)
        return rows

    def _make_jump(self) -> QToolButton:
        jump = QToolButton(self)
        jump.setProperty("kind", "jump")
        jump.setText("Jump to the end")
        jump.setAccessibleName("Jump to the end")
        jump.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        jump.clicked.connect(self.follow)
        jump.hide()
        return jump

    def _current_changed(self) -> None:
        if self._store.current != self._conversation:
            self._conversation = self._store.current
            self._clear()
            self._draw()
            self.follow()

    def _transcript_changed(self, conversation: str) -> None:
        if conversation == self._conversation:
            self._draw()

    def _clear(self) -> None:
        self._frame.stop()
        self._earlier.clear()
        self._place = None
        for card in self._cards.values():
            self._rows.removeWidget(card)
            card.hide()
            card.deleteLater()
        self._cards.clear()

    def _draw(self) -> None:
        """Bring the cards in line with the messages; those that stand already are kept."""
        known = self._store.transcripts.get(self._conversation, ())
        messages = [message for message in known if is_shown(message)]
        ids = {message.id for message in messages}
        if not self._cards.keys() <= ids:
            self._clear()
        asked = bool(self._cards) and any(
            message.role is Role.USER
            for message in messages
            if message.id not in self._cards and message not in self._earlier
        )
        if not self._cards and len(messages) > CARDS_AT_ONCE:
            self._earlier, messages = messages[:-CARDS_AT_ONCE], messages[-CARDS_AT_ONCE:]
            QTimer.singleShot(0, self, self._draw_earlier)
        waiting = {message.id for message in self._earlier}
        for message in messages:
            if message.id in waiting:
                continue
            if message.id not in self._cards:
                self._cards[message.id] = card = self._card(message)
                self._rows.addWidget(card)
            self._update(self._cards[message.id], message)
        if asked:
            self.follow()

    def _draw_earlier(self) -> None:
        """Older messages come in batches while the reader reads the newest."""
        batch, self._earlier = self._earlier[-CARDS_AT_ONCE:], self._earlier[:-CARDS_AT_ONCE]
        older: dict[str, QuestionCard | AnswerCard] = {}
        for number, message in enumerate(batch):
            older[message.id] = card = self._card(message)
            self._rows.insertWidget(number + 1, card)
            self._update(card, message)
        self._cards = {**older, **self._cards}
        if self._earlier:
            QTimer.singleShot(0, self, self._draw_earlier)

    def _card(self, message: Message) -> QuestionCard | AnswerCard:
        if message.role is Role.USER:
            return QuestionCard(self._theme, message)
        card = AnswerCard(self._theme, message)
        card.link_clicked.connect(_open_in_browser)
        return card

    def _update(self, card: QuestionCard | AnswerCard, message: Message) -> None:
        if isinstance(card, QuestionCard):
            return
        card.show_notes(self._store.notes.get(message.id, ()))
        running = self._store.answers.get(self._conversation)
        if running is not None and running.message == message.id:
            card.show_text(running.text)
            card.show_running(phase_words(running))
        else:
            card.show_text(message.text)
            card.show_end(message, self._store.failures.get(message.id))

    def _grew(self, conversation: str) -> None:
        if conversation == self._conversation and not self._frame.isActive():
            # a slow drawing gets slower frames: the window's other work goes on
            pause = max(FRAME_SECONDS, 3 * self._drawn_for)
            self._frame.start(round(1000 * pause))

    def _draw_growth(self) -> None:
        running = self._store.answers.get(self._conversation)
        card = self._cards.get(running.message) if running else None
        if running is not None and isinstance(card, AnswerCard):
            began = time.perf_counter()
            card.show_text(running.text)
            self._drawn_for = time.perf_counter() - began

    def _scrolled(self, value: int) -> None:
        if not self._keeping_place:
            self._following = self.verticalScrollBar().maximum() - value <= NEAR_END
            self._jump.setVisible(not self._following)
            self._note_place()

    def _note_place(self) -> None:
        top = self.verticalScrollBar().value()
        cards = self._cards.values()
        self._place = None if self._following else place_at(cards, self._body, top)

    def _range_changed(self, least: int, most: int) -> None:
        """The talk has another height: a reader stays at the same text."""
        self._settled.start()
        bar = self.verticalScrollBar()
        if self._following or most == least:
            self.follow()
        elif self._place is not None:
            self._lay_out()
            self._keeping_place = True
            bar.setValue(self._place.top(self._body))
            self._keeping_place = False

    def _settle(self) -> None:
        put_in_order(self, self._cards.values())
        place = self._place
        if place is not None and place.top(self._body) == self.verticalScrollBar().value():
            self._note_place()  # with the card's size as it is now

    def _lay_out(self) -> None:
        """The range is told before the cards are where they belong."""
        layout = self._body.layout()
        assert layout is not None
        layout.activate()
        layout.setGeometry(self._body.rect())

    def _place_jump(self) -> None:
        size = self._jump.sizeHint()
        self._jump.resize(size)
        self._jump.move((self.width() - size.width()) // 2, self.height() - size.height() - Space.M)

    def _paint(self) -> None:
        self._jump.setIcon(self._theme.icon("down"))
        self._place_jump()


def _open_in_browser(url: QUrl) -> None:
    QDesktopServices.openUrl(url)
