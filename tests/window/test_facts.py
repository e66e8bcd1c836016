"""Facts are read out with their values."""

from __future__ import annotations

from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from superbloom.window.widgets.facts import Facts


def test_a_fact_says_its_value(qtbot: QtBot) -> None:
    facts = Facts("Blocks", "Device")
    qtbot.addWidget(facts)
    facts.show_fact("Blocks", "0-29 of 30")
    names = [one.accessibleName() for one in facts.findChildren(QLabel)]
    assert "Blocks: 0-29 of 30" in names
    assert "Device: –" in names
