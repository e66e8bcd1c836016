"""The swarm page: who holds which blocks, and how to let others in."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from superbloom.control.messages import ModelInfo, Reach, SwarmStatus
from superbloom.domain.swarm_map import ServerInfo, ServerState, coverage
from superbloom.window.actions import Actions
from superbloom.window.network.exact_card import exact_card
from superbloom.window.network.invite_dialog import InviteDialog
from superbloom.window.network.join_dialog import JoinDialog
from superbloom.window.network.server_rows import ServerRows
from superbloom.window.store import Store
from superbloom.window.theme import Space, Theme
from superbloom.window.widgets.block_bar import BlockBar, BlockHolders
from superbloom.window.widgets.buttons import button
from superbloom.window.widgets.card import Card, ScrolledPage
from superbloom.window.widgets.confirm import confirm
from superbloom.window.widgets.facts import Facts
from superbloom.window.widgets.labels import label, paragraph, set_tone
from superbloom.window.words import count_words

BAR_ROWS = 4
ROW_HEIGHT = 38
MOST_ROWS = 12
"""A longer table scrolls by itself."""

REACH_WORDS: dict[Reach, str] = {
    Reach.LOCAL: "Only this computer",
    Reach.OPEN: "Open to invited computers",
}


class SwarmPage(ScrolledPage):
    """Draws the store's swarm."""

    def __init__(self, store: Store, actions: Actions, theme: Theme) -> None:
        super().__init__("Swarm", "The computers that run the model together.")
        self._store = store
        self._actions = actions
        self._theme = theme
        self.invite_dialog = InviteDialog(actions, self)
        self.join_dialog = JoinDialog(actions, self)
        self.invite = button("Invite a computer …", kind="primary")
        self.invite.clicked.connect(self.invite_dialog.begin)
        self.join = button("Join …")
        self.join.clicked.connect(self.join_dialog.begin)
        self.leave = button("Leave")
        self.leave.clicked.connect(self._ask_leave)
        for one in (self.leave, self.join, self.invite):
            self.head.addWidget(one, 0, Qt.AlignmentFlag.AlignTop)
        self.facts = Facts("Name", "Reach", "Connection", "Servers", pairs=4)
        self.problem = paragraph(tone="warning")
        self.bar = BlockBar(theme, "Coverage", rows=BAR_ROWS)
        self.verdict = label()
        self._model = label(tone="muted")
        self.rows = ServerRows(store, theme)
        self.rows.setParent(self)
        self.table = self._make_table()
        self.exact = exact_card(store, actions, theme)
        self.nobody = paragraph("No server is here yet. Share this computer, or invite another.")
        self._add_cards()
        store.swarm_changed.connect(self._draw)
        store.models_changed.connect(self._draw)
        store.share_changed.connect(self._draw)
        theme.changed.connect(self._draw)
        self._draw()

    def _add_cards(self) -> None:
        first = Card()
        first.rows.addWidget(self.facts)
        first.rows.addWidget(self.problem)
        second = Card("Coverage")
        second.head.addWidget(self._model)
        second.rows.addWidget(self.bar)
        second.rows.addWidget(self.verdict)
        second.rows.setSpacing(Space.S)
        third = Card("Servers")
        third.rows.addWidget(self.table)
        third.rows.addWidget(self.nobody)
        for card in (first, second, third, self.exact):
            self.column.addWidget(card)
        self.column.addStretch(1)

    def _make_table(self) -> QTableView:
        table = QTableView()
        table.setModel(self.rows)
        table.setAccessibleName("Servers")
        table.setShowGrid(False)
        table.setWordWrap(False)
        table.setTabKeyNavigation(False)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        header = table.horizontalHeader()
        header.setHighlightSections(False)
        header.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(64)
        return table

    def _draw(self) -> None:
        swarm, model = self._store.swarm, self._store.model_info()
        for one in (self.invite, self.join, self.leave):
            one.setEnabled(swarm is not None)
        if swarm is None:
            return
        self._draw_facts(swarm)
        self._draw_coverage(swarm, model)
        self.rows.take()
        count = len(self.rows.servers)
        self.table.setVisible(count > 0)
        self.nobody.setVisible(count == 0)
        height = self.table.horizontalHeader().sizeHint().height()
        self.table.setFixedHeight(height + min(count, MOST_ROWS) * ROW_HEIGHT + 4)

    def _draw_facts(self, swarm: SwarmStatus) -> None:
        self.facts.show_fact("Name", swarm.name)
        self.facts.show_fact("Reach", REACH_WORDS[swarm.reach])
        self.facts.show_fact("Connection", "Connected" if swarm.connected else "Not connected yet")
        online = sum(one.state is ServerState.ONLINE for one in swarm.servers)
        self.facts.show_fact("Servers", f"{online} online of {len(swarm.servers)}")
        self.problem.setText(swarm.problem)
        self.problem.setVisible(bool(swarm.problem))

    def _draw_coverage(self, swarm: SwarmStatus, model: ModelInfo | None) -> None:
        self._model.setText(f"{model.name} · {count_words(model.blocks, 'block')}" if model else "")
        if model is None:
            return
        servers = [
            one
            for one in swarm.servers
            if one.model == model.id and one.state is ServerState.ONLINE
        ]
        counts = coverage(servers, model.blocks)
        words, tone = coverage_words(counts)
        blocks = tuple(self._holders(servers, block) for block in range(model.blocks))
        self.bar.show_blocks(blocks, words)
        self.verdict.setText(words)
        set_tone(self.verdict, tone)

    def _holders(self, servers: list[ServerInfo], block: int) -> BlockHolders:
        holding = [one for one in servers if one.span.start <= block < one.span.end]
        holding.sort(key=self.rows.is_mine, reverse=True)
        mine = any(self.rows.is_mine(one) for one in holding)
        return BlockHolders(mine, tuple(one.name or one.peer[-8:] for one in holding))

    def _ask_leave(self) -> None:
        confirm(
            self,
            "Leave this swarm?",
            "This computer goes on alone, in a fresh swarm of its own. To come back you need "
            "an invite.",
            "Leave",
            self._actions.leave_swarm,
        )


def coverage_words(counts: tuple[int, ...]) -> tuple[str, str]:
    """What the coverage means, and its tone."""
    missing = [number for number, count in enumerate(counts) if count == 0]
    if missing:
        return f"Missing: blocks {runs_words(missing)}. Answers wait until they come.", "warning"
    least = min(counts, default=0)
    if least == 1:
        once = [number for number, count in enumerate(counts) if count == 1]
        part = "Every block is" if len(once) == len(counts) else f"Blocks {runs_words(once)} are"
        return f"Complete. {part} held by one server only.", "muted"
    return f"Complete. Every block is held by at least {least} servers.", "good"


def runs_words(numbers: list[int]) -> str:
    """`0-3, 7, 9-11`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
