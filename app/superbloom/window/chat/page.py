"""The chat page: conversations at the left, the talk and the composer at the right."""

from __future__ import annotations

from PySide6.QtWidgets import QHBoxLayout, QStackedWidget, QVBoxLayout, QWidget

from superbloom.control.messages import ModelInfo, Reach, SwarmStatus
from superbloom.window.actions import Actions
from superbloom.window.chat.composer import Composer
from superbloom.window.chat.conversation_list import ConversationList
from superbloom.window.chat.preparation import Preparation
from superbloom.window.chat.readiness import privacy_words, readiness
from superbloom.window.chat.state_line import StateLine
from superbloom.window.chat.transcript_view import COLUMN_WIDTH, TranscriptView
from superbloom.window.chat.welcome import Welcome
from superbloom.window.store import Store
from superbloom.window.theme import Space, Theme
from superbloom.window.widgets.labels import ElidedLabel, label

HINT = "Enter sends, Shift+Enter begins a new line"


class ChatPage(QWidget):
    """Everything a talk needs."""

    def __init__(self, store: Store, actions: Actions, theme: Theme) -> None:
        super().__init__()
        self._store = store
        self._actions = actions
        self.list = ConversationList(store, actions, theme)
        self.list.new_wanted.connect(self.begin_new)
        self.transcript = TranscriptView(store, theme)
        self.welcome = Welcome()
        self.welcome.chosen.connect(self._use_example)
        self.preparation = Preparation()
        self.composer = Composer(theme)
        self.composer.sent.connect(actions.send)
        self.composer.stopped.connect(self._stop)
        self.state_line = StateLine()
        self._title = ElidedLabel()
        self._title.setFont(label(bold=True).font())
        self._model = ElidedLabel(tone="muted", scale=0.92)
        self._middle = QStackedWidget()
        self._middle.addWidget(self.welcome)
        self._middle.addWidget(self.transcript)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(self.list)
        row.addLayout(self._make_pane(), 1)
        actions.refused.connect(self.composer.give_back)
        store.current_changed.connect(self._draw)
        store.models_changed.connect(self._draw)
        store.share_changed.connect(self._draw)
        store.swarm_changed.connect(self._draw)
        store.answer_changed.connect(self._draw_answer)
        store.answer_grew.connect(self._draw_answer)
        self._draw()

    def begin_new(self) -> None:
        """An empty pane; the conversation is made with its first question."""
        self._actions.open_conversation("")
        self.composer.field.setFocus()

    def set_reachable(self, reachable: bool) -> None:
        """Whether there is a node to send to."""
        self.composer.set_reachable(reachable)

    def stop(self) -> None:
        """Stop the shown conversation's answer, if one runs that is not stopping already."""
        running = self._store.answers.get(self._store.current)
        if running is not None and not running.stopping:
            self._stop()

    def _make_pane(self) -> QVBoxLayout:
        head = QHBoxLayout()
        head.setContentsMargins(Space.XL, Space.M, Space.XL, Space.XS)
        head.addWidget(self._title, 1)
        head.addWidget(self._model)
        bottom = QVBoxLayout()
        bottom.setSpacing(Space.S)
        bottom.addWidget(self.preparation)
        bottom.addWidget(self.composer)
        bottom.addWidget(self.state_line)
        column = QWidget()
        column.setMaximumWidth(COLUMN_WIDTH + 2 * Space.M)
        column.setLayout(bottom)
        bottom.setContentsMargins(0, 0, 0, 0)
        foot = QHBoxLayout()
        foot.setContentsMargins(Space.XL, 0, Space.XL, Space.M)
        foot.addStretch(1)
        foot.addWidget(column, 100)
        foot.addStretch(1)
        pane = QVBoxLayout()
        pane.setContentsMargins(0, 0, 0, 0)
        pane.setSpacing(Space.S)
        pane.addLayout(head)
        pane.addWidget(self._middle, 1)
        pane.addLayout(foot)
        return pane

    def _draw(self) -> None:
        store = self._store
        shown = store.conversations.get(store.current)
        self._title.setText(shown.title if shown else "")
        info = store.model_info(shown.model if shown else "")
        self._model.setText(info.name if info else "")
        page = self.transcript if store.current else self.welcome
        self._middle.setCurrentWidget(page)
        now = readiness(
            info, store.progress.get(info.id) if info else None, store.share, store.swarm
        )
        self.preparation.show_readiness(now)
        self.state_line.privacy.setText(privacy_words(store.swarm))
        self.welcome.show_model(_welcome_words(info, store.swarm))
        self._draw_answer(store.current)

    def _draw_answer(self, conversation: str) -> None:
        if conversation != self._store.current:
            return
        running = self._store.answers.get(conversation)
        self.composer.set_answering(
            running is not None, stopping=running.stopping if running else False
        )
        self.state_line.show_answer(running, HINT)

    def _use_example(self, text: str) -> None:
        self.composer.write(text)

    def _stop(self) -> None:
        self._actions.stop_answer(self._store.current)


def _welcome_words(model: ModelInfo | None, swarm: SwarmStatus | None) -> str:
    if model is None or swarm is None:
        return ""
    if swarm.reach is Reach.LOCAL:
        return f"{model.name} answers, computed on this computer."
    return f"{model.name} answers, computed by the members of “{swarm.name}”."
