"""Which model chats use: the owner's choice, or the starter while that one is gone."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from superbloom.control.messages import ModelState, Notice, NoticeLevel
from superbloom.domain.catalogue import STARTER
from superbloom.domain.errors import UnknownModel
from superbloom.node.kept_settings import KeptSettings

logger = logging.getLogger(__name__)


class ChosenModel:
    """The choice in the settings; a stand-in for it holds this time only."""

    def __init__(self, settings: KeptSettings) -> None:
        self._settings = settings
        self._stand_in = ""

    @property
    def name(self) -> str:
        return self._stand_in or self._settings.value.model

    def is_owners(self, model: str) -> bool:
        """True if the owner chose this very model and nothing stands in for it."""
        return not self._stand_in and model == self._settings.value.model

    def choose(self, model: str) -> None:
        """Use `model` from now on, also after the next start. Raises DiskFull, StorageFailed."""
        self._settings.change(lambda settings: replace(settings, model=model))
        self._stand_in = ""

    async def state(
        self, stored: Callable[[str], Awaitable[ModelState]], tell: Callable[[Notice], None]
    ) -> ModelState:
        """Where its files stand. For a model that is gone the starter stands in, and that is told.

        `stored` gives a model's state, or raises UnknownModel.
        """
        try:
            return await stored(self.name)
        except UnknownModel:
            gone, self._stand_in = self.name, STARTER
        logger.warning("the chosen model %s is gone", gone)
        words = f"The chosen model {gone} is not on this computer any more; chats use {STARTER}."
        step = "Import it again, or choose another with `superbloom model use`."
        tell(Notice(level=NoticeLevel.WARNING, message=words, next_step=step))
        return await stored(STARTER)
