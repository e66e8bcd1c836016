"""The first screen in small windows: all words can be read, and nothing is pushed out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_node import FakeNode, Until
from PySide6.QtCore import QPoint
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QPushButton, QWidget

from superbloom.control.messages import ModelsChanged, NoticeLevel
from superbloom.window.application import Application
from superbloom.window.errors import UserMessage

LONG_NAME = "A model with a name that is a good deal longer than names of models should be, 70B"


def lies_within(inner: QWidget, outer: QWidget) -> bool:
    place = inner.mapTo(outer, QPoint(0, 0))
    return place.x() >= 0 and place.x() + inner.width() <= outer.width()


@pytest.mark.parametrize("size", [(760, 520), (900, 620)])
@pytest.mark.parametrize("banner", [False, True])
def test_the_examples_have_room_for_their_words(
    program: Application, size: tuple[int, int], banner: bool
) -> None:
    window = program.window
    if banner:
        program.board.post(UserMessage(NoticeLevel.ERROR, "It broke.", "Mend it."))
    window.resize(*size)
    QTest.qWait(50)
    assert (window.width(), window.height()) == size
    examples = window.chat.welcome.findChildren(QPushButton)
    assert len(examples) == 3
    for one in examples:
        assert one.height() >= one.heightForWidth(one.width())
        assert lies_within(one, window.chat.welcome.viewport())
    bloom = window.chat.welcome._bloom
    assert bloom.isHidden() or bloom.height() >= bloom.pixmap().deviceIndependentSize().height()


def test_a_long_name_gives_way(program: Application, node: FakeNode, until: Until) -> None:
    window = program.window
    node.models = (replace(node.models[0], name=LONG_NAME), *node.models[1:])
    node.tell(ModelsChanged(models=node.models, model=node.model))
    until(lambda: window.chat._model.text() == LONG_NAME)
    window.resize(760, 520)
    QTest.qWait(50)
    assert lies_within(window.chat._model, window)
    assert lies_within(window.chat.composer, window)
    assert lies_within(window.chat.preparation.words, window)
    window.show_page(3)
    QTest.qWait(50)
    row = next(iter(window.models.rows.values()))
    assert lies_within(row.more, window)
    assert lies_within(row.main, window)
