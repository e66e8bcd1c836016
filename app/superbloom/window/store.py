"""What the window knows of the node: read by every view, written by replies and events only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from PySide6.QtCore import QObject, Signal

from superbloom.control.messages import (
    Answering,
    ChatDelta,
    ChatFinished,
    ChatNotice,
    ConversationChanged,
    ConversationList,
    Event,
    ModelInfo,
    ModelProgress,
    ModelsChanged,
    NodeStatus,
    Notice,
    NoticeLevel,
    SettingsChanged,
    ShareChanged,
    SwarmChanged,
    SwarmStatus,
    Transcript,
)
from superbloom.domain.conversation import Conversation, Message
from superbloom.domain.generation import ChainHop, ChatPhase
from superbloom.domain.sharing import ShareStatus

WENT_AWAY = ("The node went away in the middle of this answer.", "Ask again when it is back.")
"""A failure until the answer is seen to go on or to have ended well."""


@dataclass(slots=True)
class RunningAnswer:
    """An answer while it is written."""

    message: str
    text: str = ""
    phase: ChatPhase = ChatPhase.CONNECTING
    words: str = ""
    chain: tuple[str, ...] = ()
    hops: tuple[ChainHop, ...] = ()
    tokens: int = 0
    tokens_per_second: float = 0.0
    stopping: bool = False


class Store(QObject):
    """One signal a noun. Views read the attributes and never write them."""

    share_changed = Signal()
    swarm_changed = Signal()
    models_changed = Signal()
    """The models, the one in use, or how far a download is."""
    settings_changed = Signal()
    conversations_changed = Signal()
    current_changed = Signal()
    """Another conversation is shown, or its head line changed."""
    transcript_changed = Signal(str)
    """Messages of this conversation came, went or were replaced."""
    answer_grew = Signal(str)
    """More text of this conversation's running answer."""
    answer_changed = Signal(str)
    """It began, ended, or is in another phase."""
    transcript_wanted = Signal(str)
    """Something happened to a conversation that only the node can tell."""
    noticed = Signal(object)
    """A Notice for the user."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.node: NodeStatus | None = None
        self.share: ShareStatus | None = None
        self.swarm: SwarmStatus | None = None
        self.models: tuple[ModelInfo, ...] = ()
        self.model = ""
        """The model that chats use."""
        self.guess_ahead = True
        """A small model may guess how answers go on."""
        self.exact = False
        """No prompt is rounded on its way over a slow link."""
        self.progress: dict[str, ModelProgress] = {}
        self.conversations: dict[str, Conversation] = {}
        """Newest first."""
        self.current = ""
        """The conversation that is shown; empty for one that begins with the next question."""
        self.transcripts: dict[str, tuple[Message, ...]] = {}
        self.answers: dict[str, RunningAnswer] = {}
        """By conversation."""
        self.failures: dict[str, tuple[str, str]] = {}
        """What went wrong with an answer, by message: sentence and next step."""
        self.notes: dict[str, tuple[str, ...]] = {}
        """What happened to an answer and was overcome, by message: sentences."""
        self._early: dict[str, Message] = {}
        """Answers that ended before we heard that they had begun."""

    def model_info(self, model: str = "") -> ModelInfo | None:
        """A model by its id; without one, the model in use."""
        wanted = model or self.model
        return next((one for one in self.models if one.id == wanted), None)

    def show(self, conversation: str) -> None:
        """Make a conversation the shown one; empty begins a new one."""
        if conversation != self.current:
            self.current = conversation
            self.current_changed.emit()

    # --- replies ----------------------------------------------------------------------------

    def take_status(self, status: NodeStatus) -> None:
        self.node = status
        self.model, self.models = status.model, status.models
        self.share, self.swarm = status.share, status.swarm
        self.models_changed.emit()
        self.share_changed.emit()
        self.swarm_changed.emit()
        self._take_settings(status.guess_ahead, status.exact)

    def take_share(self, status: ShareStatus) -> None:
        self.share = status
        self.share_changed.emit()

    def take_swarm(self, status: SwarmStatus) -> None:
        self.swarm = status
        self.swarm_changed.emit()

    def take_model(self, model: ModelInfo) -> None:
        known = any(one.id == model.id for one in self.models)
        kept = tuple(model if one.id == model.id else one for one in self.models)
        self.models = kept if known else (*kept, model)
        self.models_changed.emit()

    def take_conversations(self, listed: ConversationList) -> None:
        self._set_conversations(listed.conversations)
        if self.current and self.current not in self.conversations:
            self.show("")

    def take_conversation(self, conversation: Conversation) -> None:
        self._set_conversations({**self.conversations, conversation.id: conversation}.values())
        if conversation.id == self.current:
            self.current_changed.emit()

    def take_transcript(self, transcript: Transcript) -> None:
        """A running answer's text may be older here than what came in as deltas: it is kept."""
        name = transcript.conversation.id
        self.transcripts[name] = transcript.messages
        last = transcript.messages[-1] if transcript.messages else None
        for message in transcript.messages:
            if message.end is not None and self.failures.get(message.id) == WENT_AWAY:
                del self.failures[message.id]
        before = self.answers.get(name)
        running = self._running(name, transcript.answering) if transcript.answering else before
        if running and last and running.message == last.id:
            if last.end is not None:
                del self.answers[name]
                self.answer_changed.emit(name)
            elif len(last.text) > len(running.text):
                running.text = last.text
        self.transcript_changed.emit(name)
        if running is not before:
            self.answer_changed.emit(name)

    def take_answering(self, begun: Answering) -> None:
        name = begun.answer.conversation
        known = {message.id for message in self.transcripts.get(name, ())}
        ended = self._early.pop(begun.answer.id, None)
        pair = (begun.question, ended or begun.answer)
        fresh = (one for one in pair if one.id not in known)
        self.transcripts[name] = (*self.transcripts.get(name, ()), *fresh)
        if begun.answer.id not in known and ended is None:
            self._running(name, begun.answer.id)
        self.transcript_changed.emit(name)
        self.answer_changed.emit(name)

    def mark_stopping(self, conversation: str, *, stopping: bool = True) -> None:
        """The user has asked to stop; the node has not said yet that it did."""
        running = self.answers.get(conversation)
        if running is not None and running.stopping is not stopping:
            running.stopping = stopping
            self.answer_changed.emit(conversation)

    def forget_answers(self) -> None:
        """The node went away in the middle of whatever it was writing: keep the text."""
        answers, self.answers = self.answers, {}
        for name, running in answers.items():
            self.transcripts[name] = tuple(
                replace(message, text=running.text) if message.id == running.message else message
                for message in self.transcripts.get(name, ())
            )
            self.failures[running.message] = WENT_AWAY
            self.transcript_changed.emit(name)
            self.answer_changed.emit(name)

    # --- events -----------------------------------------------------------------------------

    def take_event(self, event: Event) -> None:
        match event:
            case ChatDelta():
                self._take_delta(event)
            case ChatNotice():
                self._take_notice(event)
            case ChatFinished():
                self._take_finished(event)
            case ConversationChanged():
                self._take_changed(event)
            case ShareChanged():
                self.take_share(event.status)
            case SwarmChanged():
                self.take_swarm(event.status)
            case ModelProgress():
                self._take_progress(event)
            case ModelsChanged():
                self.models, self.model = event.models, event.model
                self.models_changed.emit()
            case SettingsChanged():
                self._take_settings(event.guess_ahead, event.exact)
            case Notice():
                self.noticed.emit(event)

    def _take_settings(self, guess_ahead: bool, exact: bool) -> None:
        self.guess_ahead, self.exact = guess_ahead, exact
        self.settings_changed.emit()

    def _take_notice(self, notice: ChatNotice) -> None:
        running = self._running(notice.conversation, notice.message)
        recovered = running.phase is ChatPhase.RECOVERING and notice.phase is ChatPhase.WRITING
        if recovered and running.words:
            told = self.notes.get(running.message, ())
            others = (one for one in told if one != running.words)
            self.notes[running.message] = (*others, running.words)
        running.phase, running.words = notice.phase, notice.words
        running.chain = notice.chain or running.chain
        running.hops = notice.hops or running.hops
        self.answer_changed.emit(notice.conversation)

    def _take_delta(self, delta: ChatDelta) -> None:
        running = self._running(delta.conversation, delta.message)
        running.text += delta.text
        running.tokens, running.tokens_per_second = delta.tokens, delta.tokens_per_second
        if running.phase is not ChatPhase.WRITING:
            running.phase, running.words = ChatPhase.WRITING, ""
            self.answer_changed.emit(delta.conversation)
        self.answer_grew.emit(delta.conversation)

    def _take_finished(self, finished: ChatFinished) -> None:
        name, answer = finished.conversation, finished.answer
        self.answers.pop(name, None)
        self.failures.pop(answer.id, None)
        if finished.error:
            self.failures[answer.id] = (finished.error, finished.next_step)
        known = self.transcripts.get(name, ())
        if any(message.id == answer.id for message in known):
            self.transcripts[name] = tuple(
                answer if message.id == answer.id else message for message in known
            )
            self.transcript_changed.emit(name)
        else:
            self._early[answer.id] = answer
        self.answer_changed.emit(name)

    def _take_changed(self, changed: ConversationChanged) -> None:
        conversation = changed.conversation
        if not changed.deleted:
            self.take_conversation(conversation)
            return
        self.transcripts.pop(conversation.id, None)
        self.answers.pop(conversation.id, None)
        self._set_conversations(
            one for one in self.conversations.values() if one.id != conversation.id
        )
        if self.current == conversation.id:
            self.show("")

    def _take_progress(self, progress: ModelProgress) -> None:
        if progress.finished or progress.error:
            self.progress.pop(progress.model, None)
        else:
            self.progress[progress.model] = progress
        self.models_changed.emit()
        if progress.error and not progress.cancelled:
            said = Notice(
                level=NoticeLevel.ERROR, message=progress.error, next_step=progress.next_step
            )
            self.noticed.emit(said)

    def _running(self, conversation: str, message: str) -> RunningAnswer:
        """The running answer, made if this is the first we hear of it."""
        running = self.answers.get(conversation)
        if running is None or running.message != message:
            running = self.answers[conversation] = RunningAnswer(message)
            self.failures.pop(message, None)  # whatever was thought of it: it goes on
            known = self.transcripts.get(conversation, ())
            shown = next((one for one in known if one.id == message), None)
            if shown is not None:
                running.text = shown.text
            elif conversation in self.transcripts:
                self.transcript_wanted.emit(conversation)
        return running

    def _set_conversations(self, conversations: Iterable[Conversation]) -> None:
        newest_first = sorted(conversations, key=lambda one: one.updated_at, reverse=True)
        self.conversations = {one.id: one for one in newest_first}
        self.conversations_changed.emit()
