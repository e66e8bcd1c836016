"""Joining a swarm with a code that somebody sent."""

from __future__ import annotations

from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QWidget

from superbloom.control.messages import JoinSwarm, SwarmStatus
from superbloom.domain.errors import SecretsUnavailable, SuperbloomError
from superbloom.window.actions import Actions
from superbloom.window.network.consent import ask_to_keep_in_file
from superbloom.window.widgets.buttons import button
from superbloom.window.widgets.sheet import Sheet, code_field

PREFIX = "superbloom:"


class JoinDialog(Sheet):
    """Closes once the swarm is joined; says here why it was not."""

    def __init__(self, actions: Actions, parent: QWidget) -> None:
        super().__init__(
            parent,
            "Join a swarm",
            "This computer leaves its present swarm. From then on the computers of the new one "
            "that do the work can read what you ask and what is answered.",
        )
        self._actions = actions
        self._joining = False
        self.code = code_field()
        self.code.setPlaceholderText("Paste the code here")
        self.code.textChanged.connect(self._typed)
        self.join = button("Join", kind="primary")
        self.join.clicked.connect(self._join)
        self.cancel = button("Cancel")
        self.cancel.clicked.connect(self.reject)
        self.rows.addWidget(self.code)
        self.foot.addWidget(self.cancel)
        self.foot.addWidget(self.join)
        self._typed()

    def begin(self) -> None:
        """Open, with the code from the clipboard if one is there and none is being joined by."""
        if self._joining:
            self.open()
            return
        self.say("")
        found = QGuiApplication.clipboard().text().strip()
        self.code.setPlainText(found if found.startswith(PREFIX) else "")
        self.open()
        self.code.setFocus()

    def _typed(self) -> None:
        self.join.setEnabled(bool(self.code.toPlainText().strip()) and not self._joining)

    def _join(self, *, keep_in_file: bool = False) -> None:
        self._show_joining(True)
        self.say("This goes on when you close it; should it fail, the main window says so.")
        code = "".join(self.code.toPlainText().split())
        request = JoinSwarm(code=code, keep_in_file=keep_in_file)
        self._actions.join_swarm(request, self._joined, self._failed)

    def _joined(self, status: SwarmStatus) -> None:
        self._show_joining(False)
        self.accept()

    def _failed(self, error: SuperbloomError) -> None:
        self._show_joining(False)
        self.say(str(error), "error")
        if not self.isVisible():
            self._actions.report(error)
        elif isinstance(error, SecretsUnavailable):
            ask_to_keep_in_file(self, error, lambda: self._join(keep_in_file=True))

    def _show_joining(self, joining: bool) -> None:
        """A request on its way cannot be taken back: there is nothing to cancel any more."""
        self._joining = joining
        self.join.setText("Joining …" if joining else "Join")
        words = "Close" if joining else "Cancel"
        self.cancel.setText(words)
        self.cancel.setAccessibleName(words)
        self.code.setReadOnly(joining)
        self._typed()
