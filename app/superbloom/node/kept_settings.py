"""The settings as they are now, saved at every change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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
