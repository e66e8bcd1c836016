"""The settings as they are now, saved at every change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from superbloom.control.messages import ChangeSettings
from superbloom.domain.settings import Settings
from superbloom.storage.settings_file import load_settings, save_settings


class KeptSettings:
    """Used from the event loop alone; a change is on the disk when `change` returns."""

    def __init__(self, path: Path) -> None:
        """Raises StorageFailed when the file cannot be read."""
        self._path = path
        self._value, self.problem = load_settings(path)
        """`problem`: a sentence for the user if the file was damaged, else empty."""

    @property
    def value(self) -> Settings:
        return self._value

    def change(self, update: Callable[[Settings], Settings]) -> Settings:
        """Replace the settings by `update(settings)`. Raises DiskFull or StorageFailed."""
        changed = update(self._value)
        if changed != self._value:
            save_settings(self._path, changed)
            self._value = changed
        return changed


def with_changes(settings: Settings, changes: ChangeSettings) -> Settings:
    """The settings with what a view asks for."""
    if changes.guess_ahead is not None:
        settings = replace(settings, guess_ahead=changes.guess_ahead)
    if changes.exact is not None:
        settings = replace(settings, exact=changes.exact)
    return settings
