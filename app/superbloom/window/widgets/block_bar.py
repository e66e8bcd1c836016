"""All blocks of a model in a row, drawn by who holds them."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QEvent, QRectF, QSize, Qt
from PySide6.QtGui import QHelpEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from superbloom.window.theme import Theme, scaled_font
from superbloom.window.widgets.tips import plain_tip

CELL_HEIGHT = 14
GAP = 2
AXIS = 18


@dataclass(frozen=True, slots=True)
class BlockHolders:
    """Who holds one block: this computer or not, and the names of all."""

    mine: bool
    names: tuple[str, ...]


class BlockBar(QWidget):
    """One column a block, one cell a holder (at most `rows`); a hollow cell where nobody is.

    It is as high as the column with the most holders.
    """

    def __init__(self, theme: Theme, name: str, *, rows: int) -> None:
        super().__init__()
        self._theme = theme
        self._rows = rows
        self._name = name
        self.blocks: tuple[BlockHolders, ...] = ()
        self.setAccessibleName(name)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        theme.changed.connect(self.update)

    def show_blocks(self, blocks: tuple[BlockHolders, ...], description: str) -> None:
        """`description` says in words what the drawing shows."""
        self.setAccessibleDescription(description)
        if blocks != self.blocks:
            self.blocks = blocks
            self.updateGeometry()
            self.update()

    def sizeHint(self) -> QSize:
        return QSize(400, self._cells_height() + AXIS)

    def minimumSizeHint(self) -> QSize:
        return QSize(120, self.sizeHint().height())

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent) and event.type() is QEvent.Type.ToolTip:
            words = plain_tip(self.words_at(event.pos().x()))
            QToolTip.showText(event.globalPos(), words, self)
            return True
        return super().event(event)

    def words_at(self, x: int) -> str:
        """What stands under the pointer."""
        if not self.blocks:
            return ""
        number = min(len(self.blocks) - 1, max(0, x * len(self.blocks) // max(1, self.width())))
        names = self.blocks[number].names
        return f"Block {number}: " + (", ".join(names) if names else "held by nobody")

    def paintEvent(self, event: QPaintEvent) -> None:
        if not self.blocks:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        width = self.width() / len(self.blocks)
        gap = GAP if width >= 6 else width * 0.2
        bottom = self._cells_height()
        for number, block in enumerate(self.blocks):
            for row in range(max(1, min(self._rows, len(block.names)))):
                top = bottom - (row + 1) * (CELL_HEIGHT + GAP)
                cell = QRectF(number * width + gap / 2, top, width - gap, CELL_HEIGHT)
                self._draw_cell(painter, cell, block, row)
        self._draw_axis(painter, bottom)

    def _cells_height(self) -> int:
        most = max((len(block.names) for block in self.blocks), default=1)
        return max(1, min(self._rows, most)) * (CELL_HEIGHT + GAP)

    def _draw_cell(self, painter: QPainter, cell: QRectF, block: BlockHolders, row: int) -> None:
        radius = min(3.0, cell.width() / 3)
        if not block.names:
            painter.setPen(QPen(self._theme.color("muted"), 1))
            painter.setBrush(self._theme.color("page"))
            cell = cell.adjusted(0.5, 0.5, -0.5, -0.5)
        else:
            painter.setPen(Qt.PenStyle.NoPen)
            mine = block.mine and row == 0
            painter.setBrush(self._theme.color("accent" if mine else "lupine"))
        painter.drawRoundedRect(cell, radius, radius)

    def _draw_axis(self, painter: QPainter, top: int) -> None:
        painter.setPen(self._theme.color("muted"))
        painter.setFont(scaled_font(0.82))
        area = QRectF(0, top, self.width(), AXIS)
        painter.drawText(area, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, "0")
        last = str(len(self.blocks) - 1)
        painter.drawText(area, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, last)
