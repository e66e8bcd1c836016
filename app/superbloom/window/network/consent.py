"""Asking whether a swarm's secret may lie in a file, where the system has no keyring."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtWidgets import QMessageBox, QWidget

from superbloom.domain.errors import SecretsUnavailable
from superbloom.window.widgets.confirm import confirm


def ask_to_keep_in_file(
    parent: QWidget, error: SecretsUnavailable, act: Callable[[], None]
) -> QMessageBox:
    """Ask, and `act` on consent. Without it the swarm would be forgotten with the node's end."""
    return confirm(
        parent,
        "Keep the swarm's secret in a file?",
        f"{error.message} Whoever has the secret can join the swarm; "
        "the file would be one that only you can read.",
        "Keep it in a file",
        act,
    )
