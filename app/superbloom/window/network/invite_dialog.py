"""Making an invite: how long it is good for, by which address, and the code to copy."""

from __future__ import annotations

import time
from datetime import datetime

from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QComboBox, QFormLayout, QLineEdit, QWidget

from superbloom.control.messages import CreateInvite, Invitation
from superbloom.domain.errors import SecretsUnavailable, SuperbloomError
from superbloom.window.actions import Actions
from superbloom.window.network.consent import ask_to_keep_in_file
from superbloom.window.theme import Space
from superbloom.window.widgets.buttons import button
from superbloom.window.widgets.labels import label
from superbloom.window.widgets.sheet import Sheet, code_field

LIFETIMES = (("1 hour", 1.0), ("1 day", 24.0), ("1 week", 168.0), ("30 days", 720.0))
USUAL = 2


class InviteDialog(Sheet):
    """Stays open after the code is made, so that it can be copied."""

    def __init__(self, actions: Actions, parent: QWidget) -> None:
        super().__init__(
            parent,
            "Invite a computer",
            "Whoever has the code can join your swarm: compute with it, and read what passes "
            "through their blocks. It also opens this computer's ports to your network.",
        )
        self._actions = actions
        self._opening = 0
        """Counts openings: a code that was asked for in an earlier one is not shown."""
        self.hours = QComboBox()
        self.hours.setAccessibleName("Good for")
        self.hours.view().setAccessibleName("Good for")
        for words, hours in LIFETIMES:
            self.hours.addItem(words, hours)
        self.hours.setCurrentIndex(USUAL)
        self.address = QLineEdit()
        self.address.setAccessibleName("Address")
        self.address.setPlaceholderText("found by itself; or a host name or IP")
        self.code = code_field()
        self.code.setReadOnly(True)
        self.make = button("Make a code", kind="primary")
        self.make.clicked.connect(self._make)
        self.copy = button("Copy the code", kind="primary")
        self.copy.clicked.connect(self._copy)
        leave = button("Close")
        leave.clicked.connect(self.reject)
        form = QFormLayout()
        form.setHorizontalSpacing(Space.L)
        form.setVerticalSpacing(Space.M)
        form.addRow(label("Good for"), self.hours)
        form.addRow(label("Address"), self.address)
        self.rows.addLayout(form)
        self.rows.addWidget(self.code)
        for one in (leave, self.make, self.copy):
            self.foot.addWidget(one)
        self._show_code("")

    def begin(self) -> None:
        """Open without the code of an earlier time: it may be of a swarm that was left."""
        self._opening += 1
        self._show_code("")
        self.make.setEnabled(True)
        self.say("")
        self.open()

    def _make(self, *, keep_in_file: bool = False) -> None:
        self.make.setEnabled(False)
        self.say("Making the code …")
        request = CreateInvite(
            hours=float(self.hours.currentData()),
            address=self.address.text().strip(),
            keep_in_file=keep_in_file,
        )
        opening = self._opening

        def made(invitation: Invitation) -> None:
            if opening == self._opening:
                self._made(invitation)

        def failed(error: SuperbloomError) -> None:
            if opening == self._opening and self.isVisible():
                self._failed(error)
            else:
                self._actions.report(error)

        self._actions.create_invite(request, made, failed)

    def _made(self, invitation: Invitation) -> None:
        self.make.setEnabled(True)
        self._show_code(invitation.code)
        until = datetime.fromtimestamp(invitation.expires_at)
        days = (invitation.expires_at - time.time()) / 86400
        day = f"{until:%A}, {until.day} {until:%B}, " if days > 0.5 else ""
        self.say(f"Good until {day}{until:%H:%M}. On the other computer: Swarm, then Join.")

    def _failed(self, error: SuperbloomError) -> None:
        self.make.setEnabled(True)
        self.say(str(error), "error")
        if isinstance(error, SecretsUnavailable):
            ask_to_keep_in_file(self, error, lambda: self._make(keep_in_file=True))

    def _show_code(self, code: str) -> None:
        self.code.setPlainText(code)
        self.code.setVisible(bool(code))
        self.copy.setVisible(bool(code))
        self.make.setProperty("kind", "" if code else "primary")
        self.make.setText("Make another" if code else "Make a code")
        self.make.style().polish(self.make)

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(self.code.toPlainText())
        self.say("Copied. Send it on a way that only the right person can read.")
