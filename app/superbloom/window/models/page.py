"""The models page: what there is, what is on this computer, what chats use, what helps them."""

from __future__ import annotations

from superbloom.window.actions import Actions
from superbloom.window.models.guess_ahead_card import guess_ahead_card
from superbloom.window.models.model_row import ModelRow
from superbloom.window.store import Store
from superbloom.window.theme import Theme
from superbloom.window.widgets.card import ScrolledPage
from superbloom.window.widgets.labels import paragraph


class ModelsPage(ScrolledPage):
    """One row a model, in the catalogue's order."""

    def __init__(self, store: Store, actions: Actions, theme: Theme) -> None:
        super().__init__(
            "Models", "The model in use is the one that new conversations and the share take."
        )
        self._store = store
        self._actions = actions
        self._theme = theme
        self.rows: dict[str, ModelRow] = {}
        self._waiting = paragraph("The list comes from the node.")
        self.guess_ahead = guess_ahead_card(store, actions, theme)
        self.column.addWidget(self._waiting)
        self.column.addWidget(self.guess_ahead)
        self.column.addStretch(1)
        store.models_changed.connect(self._draw)
        self._draw()

    def _draw(self) -> None:
        store = self._store
        ids = [model.id for model in store.models]
        if list(self.rows) != ids:
            self._rebuild(ids)
        self._waiting.setVisible(not ids)
        for model in store.models:
            progress = store.progress.get(model.id)
            self.rows[model.id].show_model(model, progress, used=model.id == store.model)

    def _rebuild(self, ids: list[str]) -> None:
        for row in self.rows.values():
            self.column.removeWidget(row)
            row.hide()
            row.deleteLater()
        self.rows = {one: ModelRow(self._actions, self._theme) for one in ids}
        for number, row in enumerate(self.rows.values()):
            self.column.insertWidget(self.column.indexOf(self.guess_ahead), row)
            row.setObjectName(f"model-{number}")
