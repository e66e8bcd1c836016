"""Facts in two columns: what it is, quietly, and its value."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QLabel, QWidget

from superbloom.window.theme import Space
from superbloom.window.widgets.labels import label

PAIRS_A_ROW = 3


class Facts(QWidget):
    """A grid of facts; one without a value shows a dash."""

    def __init__(self, *names: str, pairs: int = PAIRS_A_ROW) -> None:
        super().__init__()
        self._values: dict[str, QLabel] = {}
        grid = QGridLayout(self)
        grid.setContentsMargins(0, Space.XS, 0, 0)
        grid.setHorizontalSpacing(Space.XL)
        grid.setVerticalSpacing(2)
        for number, name in enumerate(names):
            row, column = 3 * (number // pairs), number % pairs
            if row:
                grid.setRowMinimumHeight(row - 1, Space.S)
            grid.addWidget(label(name, tone="muted", scale=0.9), row, column)
            value = label()
            value.setWordWrap(True)
            value.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
            value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            self._values[name] = value
            self.show_fact(name, "")
            grid.addWidget(value, row + 1, column)
            grid.setColumnStretch(column, 1)

    def show_fact(self, name: str, value: str) -> None:
        label = self._values[name]
        label.setText(value or "–")
        label.setAccessibleName(f"{name}: {label.text()}")

    def fact(self, name: str) -> str:
        """What is shown."""
        return self._values[name].text()
