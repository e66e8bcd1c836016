"""A rounded surface with a title, on which a page groups what belongs together."""

from __future__ import annotations

from PySide6.QtWidgets import QFrame, QHBoxLayout, QScrollArea, QVBoxLayout, QWidget

from superbloom.window.theme import Space
from superbloom.window.widgets.labels import label, paragraph

PAGE_WIDTH = 860


class Card(QFrame):
    """Add rows to `rows`; `head` holds the title and has room for buttons at its right."""

    def __init__(self, title: str = "", explanation: str = "") -> None:
        super().__init__()
        self.setProperty("kind", "card")
        self.rows = QVBoxLayout(self)
        self.rows.setContentsMargins(Space.XL, Space.L + 2, Space.XL, Space.XL - 4)
        self.rows.setSpacing(Space.M)
        self.head = QHBoxLayout()
        self.head.setSpacing(Space.S)
        if title:
            self.head.addWidget(label(title, scale=1.15, bold=True))
            self.head.addStretch(1)
            self.rows.addLayout(self.head)
        if explanation:
            self.rows.addWidget(paragraph(explanation))


class ScrolledPage(QScrollArea):
    """A page of cards in one column of a comfortable width."""

    def __init__(self, title: str, explanation: str) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setAccessibleName(title)
        body = QWidget()
        body.setObjectName("scrolled")
        outer = QHBoxLayout(body)
        outer.setContentsMargins(Space.XL, Space.XL, Space.XL, Space.XL)
        column = QWidget()
        column.setMaximumWidth(PAGE_WIDTH)
        outer.addStretch(1)
        outer.addWidget(column, 100)
        outer.addStretch(1)
        self.column = QVBoxLayout(column)
        self.column.setContentsMargins(0, 0, 0, 0)
        self.column.setSpacing(Space.L)
        heading = QVBoxLayout()
        heading.setSpacing(Space.XS)
        heading.addWidget(label(title, scale=1.7, bold=True))
        heading.addWidget(paragraph(explanation))
        self.head = QHBoxLayout()
        self.head.setSpacing(Space.S)
        self.head.addLayout(heading, 1)
        self.column.addLayout(self.head)
        self.setWidget(body)
