"""What to share: precision, memory with the blocks it holds, and which blocks."""

from __future__ import annotations

from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtGui import QStandardItemModel
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

MOST_STEPS = 2**31 - 1
"""The largest number that Qt's slider knows."""


class ShareForm(QWidget):
    """Gives a ShareRequest; everything left automatic is chosen by the server."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._model: ModelInfo | None = None
        self._wish: ShareRequest | None = None
        self._memory_bytes = 0
        """What is chosen; the slider shows it in whole STEP_BYTES."""
        self._untouched: object = None
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
        self.precision.currentIndexChanged.connect(self._precision_changed)
        self.limit.toggled.connect(self._draw)
        self.pick.toggled.connect(self._draw)
        self.slider.valueChanged.connect(self._slid)
        self.amount.valueChanged.connect(self._typed)
        self.first.valueChanged.connect(self._first_changed)
        self.last.valueChanged.connect(self._draw)
        self._untouched = self._choices()

    @property
    def is_edited(self) -> bool:
        """Whether something else is chosen than what was asked for last."""
        return self._choices() != self._untouched

    def show_share(self, model: ModelInfo | None, wish: ShareRequest | None) -> None:
        """Fit the ranges to a model, and show what the owner asked for last when that is new."""
        if model is None or not model.block_bytes:
            return
        edited = self.is_edited
        if model != self._model:
            self._fit(model)
        if wish is not None and wish != self._wish:
            self._fill(wish, model)
            edited = False
        if not edited:
            self._untouched = self._choices()
        self._draw()

    def request(self) -> ShareRequest:
        """What is chosen now; what the form has no field for stays as it was asked for last."""
        span, memory, precision = self._choices()
        return ShareRequest(
            model=self._model.id if self._model else "",
            span=span,
            memory_bytes=memory,
            precision=precision,
            device=self._wish.device if self._wish else None,
            threads=self._wish.threads if self._wish else None,
        )

    def _choices(self) -> tuple[Span | None, int | None, Precision | None]:
        return (
            Span(self.first.value(), self.last.value() + 1) if self.pick.isChecked() else None,
            self._memory_bytes if self.limit.isChecked() else None,
            self._chosen_precision(),
        )

    def _fit(self, model: ModelInfo) -> None:
        """Choices are kept as far as the model has room for them."""
        other = self._model is None or model.id != self._model.id
        self._model = model
        if other:
            self._wish = None  # chosen blocks are blocks of one model
        self._offer_precisions(model)
        if other and not self.limit.isChecked():
            self._memory_bytes = bytes_for(model, Precision.BF16, model.blocks)
        self._show_memory(model)
        first, last = self.first.value(), self.last.value()
        if other and not self.pick.isChecked():
            first, last = 0, model.blocks - 1
        self._show_blocks(model, first, last)

    def _offer_precisions(self, model: ModelInfo) -> None:
        """Only those that the model can be held in."""
        items = self.precision.model()
        for row, precision in enumerate(PRECISION_WORDS, 1):
            flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
            offered = flags if precision in model.block_bytes else Qt.ItemFlag.NoItemFlags
            assert isinstance(items, QStandardItemModel)
            items.item(row).setFlags(offered)
        if self._chosen_precision() not in (None, *model.block_bytes):
            with QSignalBlocker(self.precision):
                self.precision.setCurrentIndex(0)

    def _fill(self, wish: ShareRequest, model: ModelInfo) -> None:
        self._wish = wish
        span = wish.span if wish.model == model.id else None
        with QSignalBlocker(self.precision), QSignalBlocker(self.limit), QSignalBlocker(self.pick):
            held = wish.precision if wish.precision in model.block_bytes else None
            self.precision.setCurrentIndex(max(0, self.precision.findData(held)))
            self.limit.setChecked(wish.memory_bytes is not None)
            self.pick.setChecked(span is not None)
        if wish.memory_bytes is not None:
            self._memory_bytes = wish.memory_bytes
            self._show_memory(model)
        if span is not None:
            self._show_blocks(model, span.start, span.end - 1)

    def _show_memory(self, model: ModelInfo) -> None:
        """What is chosen is inside the range, however small or large it is."""
        chosen = min(self._memory_bytes // STEP_BYTES, MOST_STEPS)
        least = bytes_for(model, self._precision(), 1) // STEP_BYTES
        whole = bytes_for(model, Precision.BF16, model.blocks) // STEP_BYTES
        low, high = min(least, chosen), max(least + 1, SPARE * whole, chosen)
        with QSignalBlocker(self.slider), QSignalBlocker(self.amount):
            self.slider.setRange(low, high)
            self.slider.setValue(chosen)
            self.amount.setRange(low * STEP_BYTES / GIB, high * STEP_BYTES / GIB)
            self.amount.setValue(self._memory_bytes / GIB)

    def _show_blocks(self, model: ModelInfo, first: int, last: int) -> None:
        with QSignalBlocker(self.first), QSignalBlocker(self.last):
            self.first.setRange(0, model.blocks - 1)
            self.first.setValue(first)
            self.last.setRange(self.first.value(), model.blocks - 1)
            self.last.setValue(last)

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
        return self._chosen_precision() or Precision.BF16

    def _chosen_precision(self) -> Precision | None:
        chosen = self.precision.currentData()  # Qt keeps a StrEnum's text only
        return None if chosen is None else Precision(chosen)

    def _precision_changed(self) -> None:
        if self._model is not None:
            self._show_memory(self._model)
        self._draw()

    def _slid(self) -> None:
        self._memory_bytes = self.slider.value() * STEP_BYTES
        with QSignalBlocker(self.amount):
            self.amount.setValue(self._memory_bytes / GIB)
        self._draw()

    def _typed(self, amount: float) -> None:
        with QSignalBlocker(self.slider):
            self.slider.setValue(round(amount * GIB / STEP_BYTES))
        self._memory_bytes = self.slider.value() * STEP_BYTES
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
            held = blocks_held(self._model, self._precision(), self._memory_bytes)
            self.holds.setText(
                f"{in_words(self._memory_bytes)} hold {held} of "
                f"{count_words(self._model.blocks, 'block')}"
            )
        self.changed.emit()
