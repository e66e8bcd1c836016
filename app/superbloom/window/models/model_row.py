"""One model: what it is, how large, where its files stand, and what can be done with it."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QMenu, QProgressBar, QVBoxLayout

from superbloom.control.messages import ModelInfo, ModelProgress, ModelState
from superbloom.domain.model_card import Precision
from superbloom.window.actions import Actions
from superbloom.window.theme import Space, Theme
from superbloom.window.widgets.buttons import IconButton, button
from superbloom.window.widgets.card import Card
from superbloom.window.widgets.confirm import confirm
from superbloom.window.widgets.labels import ElidedLabel, label, set_tone
from superbloom.window.widgets.tips import plain_tip
from superbloom.window.words import count_words, parameter_words, size_words

STATE_WORDS: dict[ModelState, str] = {
    ModelState.ABSENT: "Not here",
    ModelState.FETCHING: "Fetching",
    ModelState.PARTIAL: "Partly here",
    ModelState.READY: "On this computer",
    ModelState.DAMAGED: "Damaged",
}

_TONES = {ModelState.READY: "good", ModelState.PARTIAL: "warning", ModelState.DAMAGED: "error"}

_FETCH_WORDS = {
    ModelState.ABSENT: "Fetch",
    ModelState.PARTIAL: "Fetch the rest",
    ModelState.DAMAGED: "Mend",
}

STEPS = 1000


class ModelRow(Card):
    """A card with one main button and a menu."""

    def __init__(self, actions: Actions, theme: Theme) -> None:
        super().__init__()
        self._actions = actions
        self._model: ModelInfo | None = None
        self.name = ElidedLabel(scale=1.1, bold=True)
        self.state = label(tone="muted")
        self.about = ElidedLabel(tone="muted")
        self.main = button("")
        self.main.clicked.connect(self._act)
        self.more = IconButton(theme, "more", "More")
        self.more.clicked.connect(self._show_menu)
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.progress.setFixedHeight(6)
        self.progress_words = label(tone="muted", scale=0.9)
        words = QVBoxLayout()
        words.setSpacing(3)
        head = QHBoxLayout()
        head.setSpacing(Space.M)
        head.addWidget(self.name)
        head.addWidget(self.state)
        head.addStretch(1)
        words.addLayout(head)
        words.addWidget(self.about)
        row = QHBoxLayout()
        row.setSpacing(Space.S)
        row.addLayout(words, 1)
        row.addWidget(self.main)
        row.addWidget(self.more)
        self.rows.setContentsMargins(Space.L, Space.M, Space.M, Space.M)
        self.rows.setSpacing(Space.S)
        self.rows.addLayout(row)
        self.rows.addWidget(self.progress)
        self.rows.addWidget(self.progress_words)

    def show_model(self, model: ModelInfo, progress: ModelProgress | None, *, used: bool) -> None:
        """Draw the model as it is now."""
        self._model = model
        self.name.setText(model.name)
        self.about.setText(_about(model))
        self.about.setToolTip(plain_tip(model.note))
        fetching = progress is not None or model.state is ModelState.FETCHING
        words = "In use" if used and model.state is ModelState.READY else STATE_WORDS[model.state]
        self.state.setText("" if fetching else words)
        set_tone(self.state, _TONES.get(model.state, "muted"))
        self._show_main(model, fetching=fetching, used=used)
        self.more.rename(f"More for {model.name}")
        self.more.setVisible(model.state is not ModelState.ABSENT and not fetching)
        self._show_progress(model, progress, fetching=fetching)

    def _show_main(self, model: ModelInfo, *, fetching: bool, used: bool) -> None:
        words = "Cancel" if fetching else _FETCH_WORDS.get(model.state, "Use")
        self.main.setText(words)
        self.main.setAccessibleName(f"{words} {model.name}")
        self.main.setVisible(fetching or not (used and model.state is ModelState.READY))

    def _show_progress(
        self, model: ModelInfo, progress: ModelProgress | None, *, fetching: bool
    ) -> None:
        self.progress.setVisible(fetching)
        self.progress_words.setVisible(fetching)
        self.progress.setAccessibleName(f"Progress of {model.name}")
        words = progress.words if progress else STATE_WORDS[ModelState.FETCHING]
        if progress is None or not progress.total_bytes:
            self.progress.setRange(0, 0)
        else:
            self.progress.setRange(0, STEPS)
            self.progress.setValue(STEPS * progress.done_bytes // progress.total_bytes)
            words += f" · {size_words(progress.done_bytes)} of {size_words(progress.total_bytes)}"
        self.progress_words.setText(words)

    def _act(self) -> None:
        assert self._model is not None
        if self.progress.isVisibleTo(self):
            self._actions.cancel_fetch(self._model.id)
        elif self._model.state is ModelState.READY:
            self._actions.use_model(self._model.id)
        else:
            self._actions.fetch_model(self._model.id)

    def _show_menu(self) -> None:
        assert self._model is not None
        model = self._model
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction("Check every file", lambda: self._actions.verify_model(model.id))
        menu.addAction("Remove from this computer …", self.ask_remove)
        menu.popup(self.more.mapToGlobal(self.more.rect().bottomLeft()))

    def ask_remove(self) -> None:
        """Delete the model's files once the user has said so twice."""
        assert self._model is not None
        model = self._model
        confirm(
            self,
            f"Remove {model.name}?",
            f"This frees {size_words(model.disk_bytes)}. It can be fetched again.",
            "Remove",
            lambda: self._actions.remove_model(model.id),
        )


def _about(model: ModelInfo) -> str:
    whole = model.block_bytes.get(Precision.BF16, 0) * model.blocks + model.client_bytes
    parts = [
        parameter_words(model.parameters),
        count_words(model.blocks, "block"),
        f"{size_words(whole)} in 16 bits",
        f"{size_words(model.disk_bytes)} on disk" if model.disk_bytes else "",
        model.licence,
        "" if model.chat else "continues text, does not chat",
    ]
    return "  ·  ".join(part for part in parts if part)
