"""The style sheet, written for one theme's colours."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from string import Template

from superbloom.window.colors import Colors

_SHEET = Template("""
QWidget#rail, QWidget#conversations { background: $ground; }
QWidget#conversations { border-right: 1px solid $border; }
QToolTip { background: $surface; color: $text; border: 1px solid $border; padding: 4px 6px; }

QLabel[tone="muted"] { color: $muted; }
QLabel[tone="good"] { color: $leaf; }
QLabel[tone="warning"] { color: $warning; }
QLabel[tone="error"] { color: $error; }

QFrame[kind="card"] {
    background: $surface; border: 1px solid $border; border-radius: 12px;
}
QFrame[kind="question"] { background: $lupine_soft; border: none; border-radius: 14px; }
QFrame[kind="code"] { background: $ground; border: 1px solid $border; border-radius: 10px; }
QFrame[kind="info"], QFrame[kind="warning"], QFrame[kind="error"] {
    border: none; border-radius: 10px; margin: 10px 16px 8px 16px;
}
QFrame[kind="info"] { background: $lupine_soft; }
QFrame[kind="warning"] { background: $warning_soft; }
QFrame[kind="error"] { background: $error_soft; }
QFrame[kind="composer"] {
    background: $surface; border: 1px solid $border; border-radius: 16px;
}
QFrame[kind="composer"][active="true"], QFrame[kind="code"][active="true"] {
    border-color: $accent;
}

QTextEdit, QPlainTextEdit, QTextBrowser { background: transparent; border: none; }
QTextEdit#code, QTextEdit#field, QPlainTextEdit#field {
    background: $page; border: 1px solid $border; border-radius: 8px; padding: 6px;
}
QTextEdit#field:focus, QPlainTextEdit#field:focus { border-color: $accent; }

QPushButton {
    background: $surface; color: $text; border: 1px solid $border; border-radius: 8px;
    padding: 6px 14px;
}
QPushButton:hover { background: $hover; }
QPushButton:focus { border-color: $accent; }
QPushButton:disabled { color: $muted; background: $page; }
QPushButton[kind="primary"] { background: $accent; color: $on_accent; border-color: $accent; }
QPushButton[kind="primary"]:hover { border-color: $text; }
QPushButton[kind="primary"]:focus { border-color: $text; }
QPushButton[kind="primary"]:disabled { background: $hover; color: $muted; border-color: $border; }
QPushButton[kind="prompt"] {
    padding: 0; border-radius: 12px; background: $surface;
}
QPushButton[kind="prompt"]:hover { border-color: $accent; background: $accent_soft; }

QToolButton { background: transparent; border: 1px solid transparent; border-radius: 8px;
    padding: 5px; color: $text; }
QToolButton:hover { background: $hover; }
QToolButton:focus { border-color: $accent; }
QToolButton[kind="nav"] { padding: 8px 2px; border-radius: 12px; color: $muted; }
QToolButton[kind="nav"]:checked { background: $accent_soft; color: $accent; }
QToolButton[kind="send"] { background: $accent; border-radius: 12px; padding: 8px; }
QToolButton[kind="send"]:hover, QToolButton[kind="send"]:focus { border-color: $text; }
QToolButton[kind="send"]:disabled { background: $hover; }
QToolButton[kind="jump"] { background: $surface; border: 1px solid $border; border-radius: 14px;
    padding: 7px 14px; }
QToolButton[kind="jump"]:hover { background: $hover; }

QListView { background: transparent; border: none; outline: none; }
QTableView { background: $surface; border: none; gridline-color: transparent;
    selection-background-color: $accent_soft; selection-color: $text; outline: none; }
QTableView::item { padding: 4px 10px; border-bottom: 1px solid $border; }
QTableView::item:selected { background: $accent_soft; color: $text; }
QHeaderView { background: $surface; border: none; }
QHeaderView::section { background: $surface; color: $muted; border: none;
    border-bottom: 1px solid $border; padding: 6px 13px; }

QLineEdit {
    background: $page; border: 1px solid $border; border-radius: 8px; padding: 5px 8px;
    selection-background-color: $accent; selection-color: $on_accent;
}
QLineEdit:focus { border-color: $accent; }

QComboBox { background: $page; border: 1px solid $border; border-radius: 8px; padding: 5px 8px; }
QComboBox:focus, QComboBox:on { border-color: $accent; }
QComboBox::drop-down { border: none; width: 24px; }
QComboBox::down-arrow { image: url("$fold"); width: 12px; height: 12px; }
QComboBox QAbstractItemView { background: $surface; border: 1px solid $border; padding: 4px;
    selection-background-color: $accent_soft; selection-color: $text; outline: none; }

QAbstractSpinBox { min-height: 26px; }

QCheckBox::indicator { width: 15px; height: 15px; border: 1px solid $muted; border-radius: 4px;
    background: $page; }
QCheckBox::indicator:checked { background: $accent; border-color: $accent; image: url("$tick"); }
QCheckBox::indicator:focus { border-color: $accent; }

QProgressBar { background: $hover; border: none; border-radius: 3px; }
QProgressBar::chunk { background: $accent; border-radius: 3px; }

QScrollArea, QScrollArea > QWidget#scrolled { background: transparent; border: none; }
QScrollBar:vertical { background: transparent; width: 12px; margin: 0; }
QScrollBar:horizontal { background: transparent; height: 12px; margin: 0; }
QScrollBar::handle { background: $border; border-radius: 4px; margin: 2px; }
QScrollBar::handle:vertical { min-height: 32px; }
QScrollBar::handle:horizontal { min-width: 32px; }
QScrollBar::handle:hover { background: $muted; }
QScrollBar::add-line, QScrollBar::sub-line { width: 0; height: 0; }
QScrollBar::add-page, QScrollBar::sub-page { background: transparent; }

QMenu { background: $surface; border: 1px solid $border; padding: 4px; }
QMenu::item { padding: 6px 24px 6px 12px; border-radius: 6px; }
QMenu::item:selected { background: $accent_soft; color: $text; }
QMenu::separator { height: 1px; background: $border; margin: 4px 8px; }
QDialog { background: $page; }
""")


def stylesheet(colors: Colors, tick: Path, fold: Path) -> str:
    """The whole program's style sheet.

    `tick` is the drawing in a checked box, `fold` the one at what opens a list.
    """
    return _SHEET.substitute(asdict(colors), tick=tick.as_posix(), fold=fold.as_posix())
