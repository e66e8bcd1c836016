"""Under the composer: what the answer does now, and who can read what is typed."""

from __future__ import annotations

from PySide6.QtWidgets import QVBoxLayout, QWidget

from superbloom.domain.generation import ChatPhase
from superbloom.window.store import RunningAnswer
from superbloom.window.theme import Space
from superbloom.window.widgets.labels import ElidedLabel, paragraph, set_tone
from superbloom.window.words import count_words, speed_words

PHASE_WORDS: dict[ChatPhase, str] = {
    ChatPhase.CONNECTING: "Finding a chain of servers",
    ChatPhase.READING: "Reading",
    ChatPhase.WRITING: "Writing",
    ChatPhase.RECOVERING: "A server was lost: another one takes over",
    ChatPhase.WAITING: "Waiting for servers",
}

_TONES = {ChatPhase.RECOVERING: "warning", ChatPhase.WAITING: "warning"}


class StateLine(QWidget):
    """The first line is the answer's, the second says who can read."""

    def __init__(self) -> None:
        super().__init__()
        self.state = ElidedLabel(tone="muted")
        self.privacy = paragraph(scale=0.88)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(Space.XS, 0, Space.XS, 0)
        rows.setSpacing(3)
        rows.addWidget(self.state)
        rows.addWidget(self.privacy)

    def show_answer(self, running: RunningAnswer | None, hint: str) -> None:
        """What a running answer does, or `hint` when none runs."""
        self.state.details = "\n".join(map(str, running.hops)) if running is not None else ""
        if running is None:
            self.state.setText(hint)
            set_tone(self.state, "muted")
            return
        parts = [phase_words(running)]
        if running.phase is ChatPhase.WRITING:
            parts.append(speed_words(running.tokens_per_second))
            parts.append(count_words(running.tokens, "token") if running.tokens else "")
        if running.chain:
            parts.append("through " + " → ".join(running.chain))
        self.state.setText("  ·  ".join(part for part in parts if part))
        set_tone(self.state, _TONES.get(running.phase, "muted"))


def phase_words(running: RunningAnswer) -> str:
    """What an answer does now."""
    if running.stopping:
        return "Stopping on every server"
    if running.phase is ChatPhase.WRITING:
        return PHASE_WORDS[running.phase]  # the chain is shown beside it
    return running.words or PHASE_WORDS[running.phase]
