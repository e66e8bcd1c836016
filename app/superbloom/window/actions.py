"""Everything a user can ask for, one method each; what fails lands on the message board."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject, Signal

from superbloom.control.messages import (
    Answering,
    CancelFetch,
    ChangeSettings,
    CreateInvite,
    DeleteConversation,
    FetchModel,
    GetStatus,
    GetTranscript,
    Invitation,
    JoinSwarm,
    LeaveSwarm,
    ListConversations,
    NewConversation,
    Notice,
    RemoveModel,
    RenameConversation,
    Request,
    SendMessage,
    StartShare,
    StopAnswer,
    StopShare,
    SwarmStatus,
    Transcript,
    UseModel,
    VerifyModel,
)
from superbloom.domain.conversation import Conversation
from superbloom.domain.errors import SuperbloomError
from superbloom.domain.sharing import ShareRequest
from superbloom.window.errors import MessageBoard, UserMessage
from superbloom.window.link import REPLY_SECONDS, Fail, Link, Receive
from superbloom.window.store import Store

DRAIN_SECONDS = 3600.0
"""Open answers may take as long as they like; the node itself gives up before this."""

SLOW_SECONDS = 90.0
"""For what waits for other computers."""

VERIFY_SECONDS = 3600.0
"""Hashing a large model takes as long as reading its disk."""


class Actions(QObject):
    """Sends requests and hands their replies to the store."""

    refused = Signal(str)
    """A question could not be asked: its text, so that it is not lost."""

    def __init__(self, link: Link, store: Store, board: MessageBoard) -> None:
        super().__init__()
        self._link = link
        self._store = store
        self._board = board
        self._loading: set[str] = set()
        self._sending = False
        link.opened.connect(self.refresh)
        link.closed.connect(self._link_closed)
        link.told.connect(store.take_event)
        store.transcript_wanted.connect(self.load_transcript)
        store.noticed.connect(self._show_notice)

    # --- the node as a whole ----------------------------------------------------------------

    def refresh(self) -> None:
        """Ask for everything anew, as after a reconnection."""
        self._ask(GetStatus(), self._store.take_status)
        self._ask(ListConversations(), self._store.take_conversations)
        self._store.transcripts.clear()
        if self._store.current:
            self.load_transcript(self._store.current)

    # --- conversations ----------------------------------------------------------------------

    def open_conversation(self, conversation: str) -> None:
        """Show a conversation; empty begins a new one."""
        self._store.show(conversation)
        if conversation and conversation not in self._store.transcripts:
            self.load_transcript(conversation)

    def load_transcript(self, conversation: str) -> None:
        """Ask for a conversation's messages unless they are on their way."""
        if conversation in self._loading:
            return
        self._loading.add(conversation)

        def received(transcript: Transcript) -> None:
            self._loading.discard(conversation)
            self._store.take_transcript(transcript)

        def failed(error: SuperbloomError) -> None:
            self._loading.discard(conversation)
            self._board.report(error)

        self._link.ask(GetTranscript(conversation=conversation), received, failed)

    def rename_conversation(self, conversation: str, title: str) -> None:
        if title.strip():
            request = RenameConversation(conversation=conversation, title=title.strip())
            self._ask(request, self._store.take_conversation)

    def delete_conversation(self, conversation: str) -> None:
        self._ask(DeleteConversation(conversation=conversation), _nothing)

    # --- chat -------------------------------------------------------------------------------

    def send(self, text: str) -> None:
        """Ask in the shown conversation, or in a new one if none is shown."""
        if not text.strip():
            return
        if self._sending:
            self.refused.emit(text)  # the node has not said yet that the last one is answered
            return
        self._sending = True

        def begun(answering: Answering) -> None:
            self._sending = False
            self._store.take_answering(answering)

        def failed(error: SuperbloomError) -> None:
            self._sending = False
            self._board.report(error)
            self.refused.emit(text)

        def made(conversation: Conversation) -> None:
            self._store.take_conversation(conversation)
            self._store.transcripts.setdefault(conversation.id, ())
            self._store.show(conversation.id)
            ask_in(conversation.id)

        def ask_in(conversation: str) -> None:
            self._link.ask(SendMessage(conversation=conversation, text=text), begun, failed)

        if self._store.current:
            ask_in(self._store.current)
        else:
            self._link.ask(NewConversation(), made, failed)

    def stop_answer(self, conversation: str) -> None:
        """Stop the answer; should it go on all the same, it can be stopped again."""
        self._store.mark_stopping(conversation)

        def over(reply: Any) -> None:
            self._store.mark_stopping(conversation, stopping=False)

        def failed(error: SuperbloomError) -> None:
            over(None)
            self._board.report(error)

        self._ask(StopAnswer(conversation=conversation), over, failed)

    # --- share ------------------------------------------------------------------------------

    def start_share(self, request: ShareRequest | None = None) -> None:
        """Share; without a request, as the owner asked for last."""
        self._ask(StartShare(request=request), self._store.take_share, self._share_failed)

    def stop_share(self, *, drain: bool = False) -> None:
        """Share no more; `drain` lets open answers end first and waits as long for the reply."""
        timeout = DRAIN_SECONDS if drain else REPLY_SECONDS
        self._ask(StopShare(drain=drain), self._store.take_share, self._share_failed, timeout)

    # --- swarm ------------------------------------------------------------------------------

    def create_invite(
        self, request: CreateInvite, receive: Callable[[Invitation], None], fail: Fail
    ) -> None:
        self._link.ask(request, receive, fail, SLOW_SECONDS)

    def join_swarm(
        self, request: JoinSwarm, receive: Callable[[SwarmStatus], None], fail: Fail
    ) -> None:
        def joined(status: SwarmStatus) -> None:
            self._store.take_swarm(status)
            receive(status)

        self._link.ask(request, joined, fail, SLOW_SECONDS)

    def leave_swarm(self) -> None:
        self._ask(LeaveSwarm(), self._store.take_swarm, timeout=SLOW_SECONDS)

    # --- models -----------------------------------------------------------------------------

    def fetch_model(self, model: str) -> None:
        self._ask(FetchModel(model=model), self._store.take_model)

    def cancel_fetch(self, model: str) -> None:
        self._ask(CancelFetch(model=model), _nothing)

    def verify_model(self, model: str) -> None:
        self._ask(VerifyModel(model=model), self._store.take_model, timeout=VERIFY_SECONDS)

    def remove_model(self, model: str) -> None:
        self._ask(RemoveModel(model=model), _nothing)

    def use_model(self, model: str) -> None:
        self._ask(UseModel(model=model), self._store.take_status, timeout=SLOW_SECONDS)

    def guess_ahead(self, wanted: bool) -> None:
        """Let a small model of this computer guess ahead, or not."""
        self._ask(
            ChangeSettings(guess_ahead=wanted), self._store.take_status, self._settings_failed
        )

    def exact(self, wanted: bool) -> None:
        """Send every prompt unrounded, or let slow links have it rounded."""
        self._ask(ChangeSettings(exact=wanted), self._store.take_status, self._settings_failed)

    def report(self, error: SuperbloomError) -> None:
        """A failure of which the view that asked can no longer tell."""
        self._board.report(error)

    def _ask(
        self,
        request: Request,
        receive: Receive,
        fail: Fail | None = None,
        timeout: float = REPLY_SECONDS,
    ) -> None:
        self._link.ask(request, receive, fail or self._board.report, timeout)

    def _share_failed(self, error: SuperbloomError) -> None:
        self._board.report(error)
        self._store.share_changed.emit()  # the switch goes back to how things are

    def _settings_failed(self, error: SuperbloomError) -> None:
        self._board.report(error)
        self._store.settings_changed.emit()  # the switch goes back to how things are

    def _show_notice(self, notice: Notice) -> None:
        self._board.post(UserMessage(notice.level, notice.message, notice.next_step))

    def _link_closed(self, error: SuperbloomError) -> None:
        self._loading.clear()
        self._store.forget_answers()


def _nothing(reply: Any) -> None:
    """The reply says no more than that it is done: what changed comes as an event."""
