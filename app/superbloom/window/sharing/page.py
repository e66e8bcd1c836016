"""The share page: what this computer gives, and the switch that stops it."""

from __future__ import annotations

from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout

from superbloom.domain.budget import in_words
from superbloom.domain.sharing import SHARE_WORDS, ShareState, ShareStatus
from superbloom.window.actions import Actions
from superbloom.window.sharing.share_form import ShareForm
from superbloom.window.store import Store
from superbloom.window.theme import Space, Theme
from superbloom.window.widgets.block_bar import BlockBar, BlockHolders
from superbloom.window.widgets.buttons import button
from superbloom.window.widgets.card import Card, ScrolledPage
from superbloom.window.widgets.facts import Facts
from superbloom.window.widgets.labels import label, paragraph, set_tone
from superbloom.window.widgets.switch import Switch
from superbloom.window.words import PRECISION_WORDS, count_words

TONES: dict[ShareState, str] = {
    ShareState.SERVING: "good",
    ShareState.FAILED: "error",
    ShareState.RESTARTING: "warning",
    ShareState.DRAINING: "warning",
}

FACTS = ("Model", "Blocks", "Precision", "Memory", "Device", "Open sessions", "Tokens served")


class SharePage(ScrolledPage):
    """Draws the store's share."""

    def __init__(self, store: Store, actions: Actions, theme: Theme) -> None:
        super().__init__(
            "Share",
            "Lend memory and computing time to your swarm. Stopping gives all of it back at once.",
        )
        self._store = store
        self._actions = actions
        self.switch = Switch(theme, "Share this computer")
        self.switch.clicked.connect(self._toggle)
        self.state = label(scale=1.3, bold=True)
        self.reason = paragraph()
        self.finish = button("Finish and stop")
        self.finish.setToolTip("Takes no new answers and stops when the open ones are done")
        self.finish.clicked.connect(lambda: actions.stop_share(drain=True))
        self.bar = BlockBar(theme, "Blocks served", rows=1)
        self.facts = Facts(*FACTS, pairs=4)
        self.form = ShareForm()
        self.apply = button("Share like this", kind="primary")
        self.apply.clicked.connect(lambda: actions.start_share(self.form.request()))
        self.column.addWidget(self._make_state_card())
        self.column.addWidget(self._make_form_card())
        self.column.addStretch(1)
        store.share_changed.connect(self._draw)
        store.models_changed.connect(self._draw)
        self._draw()

    def _make_state_card(self) -> Card:
        card = Card()
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(self.state)
        words.addWidget(self.reason)
        head = QHBoxLayout()
        head.setSpacing(Space.L)
        head.addWidget(self.switch)
        head.addLayout(words, 1)
        head.addWidget(self.finish)
        card.rows.addLayout(head)
        card.rows.addWidget(self.bar)
        card.rows.addWidget(self.facts)
        return card

    def _make_form_card(self) -> Card:
        card = Card("What to share")
        card.rows.addWidget(self.form)
        foot = QHBoxLayout()
        foot.addStretch(1)
        foot.addWidget(self.apply)
        card.rows.addLayout(foot)
        return card

    def _toggle(self, wanted: bool) -> None:
        if wanted:
            # as last time, unless something else has been chosen in the form since
            self._actions.start_share(self.form.request() if self.form.is_edited else None)
        else:
            self._actions.stop_share()

    def _draw(self) -> None:
        share = self._store.share
        known = share is not None and self._store.model_info() is not None
        self.switch.setEnabled(known)
        self.apply.setEnabled(known)
        if share is None:
            self.state.setText("Getting ready")
            self.finish.hide()
            return
        self.switch.setChecked(share.wanted)
        self.state.setText(SHARE_WORDS[share.state])
        set_tone(self.state, TONES.get(share.state, ""))
        self.reason.setText(share.reason or _explanation(share))
        self.finish.setVisible(share.state is ShareState.SERVING)
        self._draw_blocks(share)
        self._draw_facts(share)
        self.form.show_share(self._store.model_info(), share.wish)

    def _draw_blocks(self, share: ShareStatus) -> None:
        model = self._store.model_info(share.model)
        held = share.span if share.state in (ShareState.SERVING, ShareState.DRAINING) else None
        count = model.blocks if model else 0
        mine = set(held) if held else set()
        blocks = tuple(
            BlockHolders(one in mine, ("this computer",) if one in mine else ())
            for one in range(count)
        )
        self.bar.show_blocks(blocks, f"Blocks {held} of {count}" if held else "No blocks")
        self.bar.setVisible(bool(blocks))

    def _draw_facts(self, share: ShareStatus) -> None:
        model = self._store.model_info(share.model)
        show = self.facts.show_fact
        show("Model", model.name if model and share.model else share.model)
        blocks = f"{share.span} of {model.blocks}" if share.span and model else ""
        show("Blocks", blocks)
        show("Precision", PRECISION_WORDS[share.precision] if share.precision else "")
        show("Memory", in_words(share.memory_bytes) if share.memory_bytes else "")
        show("Device", share.device)
        show("Open sessions", str(share.sessions))
        show("Tokens served", count_words(share.tokens_served, "token"))


def _explanation(share: ShareStatus) -> str:
    if share.state is ShareState.SERVING:
        return "Your swarm can compute with the blocks below."
    if share.state is ShareState.OFF:
        return "This computer computes nothing for anybody, you included."
    return "This takes a moment."
