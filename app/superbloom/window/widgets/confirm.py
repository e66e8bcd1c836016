"""A question before something cannot be taken back."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QMessageBox, QWidget


def confirm(
    parent: QWidget, question: str, explanation: str, verb: str, act: Callable[[], None]
) -> QMessageBox:
    """Ask, and `act` if the answer is `verb`. Does not block."""
    box = QMessageBox(parent)
    box.setWindowTitle("Superbloom")
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText(question)
    box.setInformativeText(explanation)
    yes = box.addButton(verb, QMessageBox.ButtonRole.AcceptRole)
    no = box.addButton("Cancel", QMessageBox.ButtonRole.RejectRole)
    for one in (yes, no):
        one.setAccessibleName(one.text())
    box.setDefaultButton(no)

    def answered() -> None:
        if box.clickedButton() is yes:
            act()
        box.deleteLater()

    box.finished.connect(answered)
    box.open()
    return box
