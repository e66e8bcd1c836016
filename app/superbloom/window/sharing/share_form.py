"""What to share: precision, memory with the blocks it holds, and which blocks."""

from __future__ import annotations

from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QSlider,
    QSpinBox,
    QWidget,
)

from superbloom.control.messages import ModelInfo
from superbloom.domain.budget import GIB, in_words
from superbloom.domain.model_card import Precision
from superbloom.domain.sharing import ShareRequest
from superbloom.domain.span import Span
from superbloom.window.sharing.budget import STEP_BYTES, blocks_held, bytes_for
from superbloom.window.theme import Space
from superbloom.window.widgets.labels import label, paragraph
from superbloom.window.words import PRECISION_WORDS, count_words

SPARE = 4
"""The slider ends where every block has this many times the least cache."""


class ShareForm(QWidget):
    """Gives a ShareRequest; everything left automatic is chosen by the server."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._model: ModelInfo | None = None
        self.precision = QComboBox()
        self.precision.setAccessibleName("Precision")
        self.precision.view().setAccessibleName("Precision")
        self.precision.addItem("Automatic", None)
        for precision, words in PRECISION_WORDS.items():
            self.precision.addItem(words, precision)
        self.limit = QCheckBox("Use at most")
        self.limit.setAccessibleName("Limit the memory")
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setAccessibleName("Memory budget")
        self.amount = QDoubleSpinBox()
        self.amount.setAccessibleName("Memory budget in GB")
        self.amount.setSuffix(" GB")
        self.amount.setDecimals(2)
        self.amount.setSingleStep(0.25)
        self.holds = label(tone="muted")
        self.pick = QCheckBox("Only blocks")
        self.pick.setAccessibleName("Choose the blocks")
        self._to = label("to")
        self.first, self.last = QSpinBox(), QSpinBox()
        self.first.setAccessibleName("First block")
        self.last.setAccessibleName("Last block")
        self._automatic = paragraph(
            "Without a choice, this computer takes the blocks that the fewest others hold, and a "
            "careful part of the memory that is free.",
            scale=0.92,
        )
        self._arrange()
        self.precision.currentIndexChanged.connect(self._draw)
        self.limit.toggled.connect(self._draw)
        self.pick.toggled.connect(self._draw)
        self.slider.valueChanged.connect(self._slid)
        self.amount.valueChanged.connect(self._typed)
        self.first.valueChanged.connect(self._first_changed)
        self.last.valueChanged.connect(self._draw)

    def show_model(self, model: ModelInfo | None) -> None:
        """Fit the ranges to a model; choices that still make sense are kept."""
        if model is None or not model.block_bytes or model == self._model:
            return
        self._model = model
        with QSignalBlocker(self.slider), QSignalBlocker(self.amount):
            least = bytes_for(model, self._precision(), 1)
            most = max(least + STEP_BYTES, SPARE * bytes_for(model, Precision.BF16, model.blocks))
            self.slider.setRange(least // STEP_BYTES, most // STEP_BYTES)
            self.amount.setRange(least / GIB, most / GIB)
            self.slider.setValue(bytes_for(model, Precision.BF16, model.blocks) // STEP_BYTES)
            self.amount.setValue(self._memory() / GIB)
        with QSignalBlocker(self.first), QSignalBlocker(self.last):
            self.first.setRange(0, model.blocks - 1)
            self.last.setRange(0, model.blocks - 1)
            self.first.setValue(0)
            self.last.setValue(model.blocks - 1)
        self._draw()

    def request(self) -> ShareRequest:
        """What is chosen now."""
        return ShareRequest(
            model=self._model.id if self._model else "",
            span=Span(self.first.value(), self.last.value() + 1) if self.pick.isChecked() else None,
            memory_bytes=self._memory() if self.limit.isChecked() else None,
            precision=self.precision.currentData(),
        )

    def _arrange(self) -> None:
        memory = QHBoxLayout()
        memory.setSpacing(Space.M)
        memory.addWidget(self.slider, 1)
        memory.addWidget(self.amount)
        blocks = QHBoxLayout()
        blocks.setSpacing(Space.S)
        blocks.addWidget(self.first)
        blocks.addWidget(self._to)
        blocks.addWidget(self.last)
        blocks.addStretch(1)
        precision = QHBoxLayout()
        precision.addWidget(self.precision)
        precision.addStretch(1)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(Space.L)
        grid.setVerticalSpacing(Space.M)
        grid.setColumnStretch(1, 1)
        grid.addWidget(label("Precision"), 0, 0)
        grid.addLayout(precision, 0, 1)
        grid.addWidget(self.limit, 1, 0)
        grid.addLayout(memory, 1, 1)
        grid.addWidget(self.holds, 2, 1)
        grid.addWidget(self.pick, 3, 0)
        grid.addLayout(blocks, 3, 1)
        grid.addWidget(self._automatic, 4, 0, 1, 2)

    def _precision(self) -> Precision:
        chosen = self.precision.currentData()
        return chosen if isinstance(chosen, Precision) else Precision.BF16

    def _memory(self) -> int:
        return self.slider.value() * STEP_BYTES

    def _slid(self) -> None:
        with QSignalBlocker(self.amount):
            self.amount.setValue(self._memory() / GIB)
        self._draw()

    def _typed(self, amount: float) -> None:
        with QSignalBlocker(self.slider):
            self.slider.setValue(round(amount * GIB / STEP_BYTES))
        self._draw()

    def _first_changed(self, first: int) -> None:
        self.last.setMinimum(first)
        self._draw()

    def _draw(self) -> None:
        limited, picked = self.limit.isChecked(), self.pick.isChecked()
        memory: tuple[QWidget, ...] = (self.slider, self.amount, self.holds)
        for one in memory:
            one.setVisible(limited)
        blocks: tuple[QWidget, ...] = (self.first, self._to, self.last)
        for one in blocks:
            one.setVisible(picked)
        self._automatic.setVisible(not (limited and picked))
        if self._model is not None:
            held = blocks_held(self._model, self._precision(), self._memory())
            self.holds.setText(
                f"{in_words(self._memory())} hold {held} of "
                f"{count_words(self._model.blocks, 'block')}"
            )
        self.changed.emit()
