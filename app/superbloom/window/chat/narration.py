"""What a screen reader says of an answer while it is written: its phases and its sentences."""

from __future__ import annotations

import re

from PySide6.QtCore import QObject, QTimer
from PySide6.QtWidgets import QWidget

from superbloom.domain.generation import ChatPhase
from superbloom.window.chat.markdown_parts import PartKind, split_markdown
from superbloom.window.chat.state_line import phase_words
from superbloom.window.store import RunningAnswer, Store
from superbloom.window.widgets.announce import announce
from superbloom.window.words import END_WORDS

PAUSE_MILLISECONDS = 2000
"""Sentences that come faster are said together."""

_MARKS = re.compile(r"[*`#>|]+")
_ENDS = re.compile(r"[.!?…:](?=\s)|[。！？]|\n")


class Narrator(QObject):
    """Speaks for the shown conversation; `source` is the widget that the words belong to."""

    def __init__(self, store: Store, source: QWidget) -> None:
        super().__init__(source)
        self._store = store
        self._source = source
        self._conversation = store.current
        self._message = ""
        self._phase: tuple[ChatPhase, bool] | None = None
        self._said = 0
        self._pause = QTimer(self)
        self._pause.setSingleShot(True)
        self._pause.setInterval(PAUSE_MILLISECONDS)
        self._pause.timeout.connect(self._say_sentences)
        store.current_changed.connect(self._current_changed)
        store.answer_changed.connect(self._answer_changed)
        store.answer_grew.connect(self._answer_grew)

    def _current_changed(self) -> None:
        if self._store.current != self._conversation:
            self._conversation = self._store.current
            running = self._store.answers.get(self._conversation)
            self._begin(running)
            if running is not None:
                # what stands there already is read like any other text
                self._said = finished(spoken(running.text))
                self._phase = (running.phase, running.stopping)

    def _begin(self, running: RunningAnswer | None) -> None:
        self._pause.stop()
        self._message = running.message if running else ""
        self._phase = None
        self._said = 0

    def _answer_changed(self, conversation: str) -> None:
        if conversation != self._conversation:
            return
        running = self._store.answers.get(conversation)
        if running is None:
            self._say_end()
            self._begin(None)
            return
        if running.message != self._message:
            self._begin(running)
        phase = (running.phase, running.stopping)
        if phase != self._phase:
            self._phase = phase
            if running.phase is not ChatPhase.WRITING or running.stopping:
                announce(self._source, phase_words(running))

    def _answer_grew(self, conversation: str) -> None:
        if conversation == self._conversation and not self._pause.isActive():
            self._pause.start()

    def _say_sentences(self) -> None:
        running = self._store.answers.get(self._conversation)
        if running is not None and running.message == self._message:
            words = spoken(running.text)
            end = finished(words)
            announce(self._source, words[self._said : end].strip())
            self._said = max(self._said, end)

    def _say_end(self) -> None:
        """What has not been said yet, and how it ended."""
        known = self._store.transcripts.get(self._conversation, ())
        ended = next((one for one in known if one.id == self._message), None)
        if ended is None:
            return
        failure = self._store.failures.get(ended.id)
        how = END_WORDS[ended.end] if ended.end is not None else ""
        end = " ".join(failure) if failure else f"End of the answer. {how}"
        announce(self._source, f"{spoken(ended.text)[self._said :].strip()}\n{end}".strip())


def spoken(markdown: str) -> str:
    """Markdown as it is said: without its marks, and with a word in place of code."""
    said = []
    for part in split_markdown(markdown):
        if part.kind is PartKind.CODE:
            said.append(f"Code: {part.language}.\n" if part.language else "Code.\n")
        else:
            said.append(_MARKS.sub("", part.text))
    return "".join(said)


def finished(words: str) -> int:
    """Where the last finished sentence ends."""
    return max((end.end() for end in _ENDS.finditer(words)), default=0)
