"""Qt's application object, which hears when the system wants the program to end."""

from __future__ import annotations

from PySide6.QtCore import QEvent, Signal
from PySide6.QtWidgets import QApplication


class Program(QApplication):
    """Says so, and ends nothing by itself: by Cmd+Q, the Dock, the end of the session.

    An event filter would do the same, at the price of one call for every event of the program.
    """

    quit_asked = Signal()
    _ending = False

    def end(self) -> None:
        """Leave the event loop, if it runs."""
        self._ending = True
        self.quit()
        self._ending = False

    def event(self, event: QEvent) -> bool:
        """Qt's."""
        if event.type() is not QEvent.Type.Quit or self._ending:
            return super().event(event)
        event.accept()
        self.quit_asked.emit()
        return True
