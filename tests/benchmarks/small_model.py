"""A small model that guesses in this process, as a node has it."""

from __future__ import annotations

from pathlib import Path

from superbloom.domain.draft_pace import DraftPace
from superbloom.inference.draft_model import DraftModel
from superbloom.machine.processor import usable_cores
from superbloom.pipeline.guessing import Guesser


class SmallModel:
    """`pipeline.guessing.GuessSource` of one model that is loaded already."""

    def __init__(self, folder: Path, vocabulary: int) -> None:
        model = DraftModel.load(folder)
        self.pace = DraftPace()
        self.failures = 0
        self._guesser = Guesser(
            lambda: model.text(vocabulary), threads=model.threads(usable_cores())
        )

    def guesser(self) -> Guesser | None:
        """As GuessSource."""
        return self._guesser

    def failed(self, guesser: Guesser) -> None:
        """As GuessSource; a benchmark may look at the count."""
        self.failures += 1

    def close(self) -> None:
        """Guess no more."""
        self._guesser.close()

    def __str__(self) -> str:
        state = "at work" if self.pace.on else "at rest"
        return f"{state}, {self.pace.gain:.2f} times the speed without it"
