"""The swarm's servers as rows of a table."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt

from superbloom.domain.swarm_map import ServerInfo, ServerState
from superbloom.window.store import Store
from superbloom.window.theme import Theme, scaled_font
from superbloom.window.widgets.tips import plain_tip
from superbloom.window.words import latency_words, speed_words

COLUMNS = ("Name", "Blocks", "State", "Speed", "Precision", "Latency", "Version")
STATE_COLUMN = COLUMNS.index("State")

STATE_WORDS: dict[ServerState, str] = {
    ServerState.JOINING: "Joining",
    ServerState.ONLINE: "Online",
    ServerState.DRAINING: "Finishing",
    ServerState.OFFLINE: "Offline",
}

STATE_COLORS: dict[ServerState, str] = {
    ServerState.JOINING: "warning",
    ServerState.ONLINE: "leaf",
    ServerState.DRAINING: "warning",
    ServerState.OFFLINE: "muted",
}

Index = QModelIndex | QPersistentModelIndex


class ServerRows(QAbstractTableModel):
    """Servers by the blocks they hold."""

    def __init__(self, store: Store, theme: Theme) -> None:
        super().__init__()
        self._store = store
        self._theme = theme
        self.servers: tuple[ServerInfo, ...] = ()
        store.swarm_changed.connect(self.take)
        store.share_changed.connect(self.take)

    def take(self) -> None:
        """Read the store anew; the selection stays if the same servers are there."""
        swarm = self._store.swarm
        servers = sorted(swarm.servers if swarm else (), key=lambda one: (one.model, one.span))
        if [one.peer for one in servers] == [one.peer for one in self.servers]:
            self.servers = tuple(servers)
            if servers:
                last = self.index(len(servers) - 1, len(COLUMNS) - 1)
                self.dataChanged.emit(self.index(0, 0), last)
            return
        self.beginResetModel()
        self.servers = tuple(servers)
        self.endResetModel()

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008 (Qt's signature)
        return 0 if parent.isValid() else len(self.servers)

    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008 (Qt's signature)
        return 0 if parent.isValid() else len(COLUMNS)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation is Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return COLUMNS[section]
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        return None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not 0 <= index.row() < len(self.servers):
            return None
        server = self.servers[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return self._cells(server)[index.column()]
        if role == Qt.ItemDataRole.ToolTipRole:
            return plain_tip("\n".join((server.peer, server.device, *server.addresses)))
        if role == Qt.ItemDataRole.ForegroundRole and index.column() == STATE_COLUMN:
            return self._theme.color(STATE_COLORS[server.state])
        if role == Qt.ItemDataRole.FontRole and index.column() == 0:
            return scaled_font(1.0, bold=self.is_mine(server))
        return None

    def is_mine(self, server: ServerInfo) -> bool:
        """Whether it is this computer's own."""
        share = self._store.share
        return share is not None and bool(share.peer) and share.peer == server.peer

    def _cells(self, server: ServerInfo) -> tuple[str, ...]:
        swarm = self._store.swarm
        mine = self.is_mine(server)
        trip = swarm.round_trip_seconds.get(server.peer) if swarm else None
        speed = speed_words(1 / server.step_seconds) if server.step_seconds > 0 else ""
        name = server.name or server.peer[-8:]
        return (
            f"{name} (this computer)" if mine else name,
            str(server.span),
            STATE_WORDS[server.state],
            speed or "–",
            server.precision.value,
            latency_words(trip),
            server.version,
        )
