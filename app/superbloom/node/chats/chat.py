"""Conversations and their answers: at most one running answer a conversation."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from superbloom.control.messages import (
    Answering,
    ConversationChanged,
    ConversationList,
    Event,
    NewConversation,
    SendMessage,
    Transcript,
)
from superbloom.domain.conversation import Conversation, Message, Role, title_from
from superbloom.domain.errors import InputRejected
from superbloom.domain.transcript import turns_of
from superbloom.node.chats.answer import Answerers, RunningAnswer
from superbloom.node.chats.conversations import Conversations

logger = logging.getLogger(__name__)

STOP_SECONDS = 10.0
"""An answer that does not stop in this time is cut short."""

UNTITLED = "New conversation"

LONGEST_TITLE = 200
LONGEST_MESSAGE_BYTES = 256 * 1024
"""Of a question or a system prompt, in UTF-8."""

LONGEST_CONVERSATION_BYTES = 4 * 1024 * 1024
"""Of a conversation's shown path. Its transcript is one line of the control wire, and JSON may
need six bytes for one of a text: what is shorter, and the answer to come, always fit."""

MESSAGE_FIELDS_BYTES = 512
"""What a message takes beside its text, at most."""


@dataclass(slots=True)
class _Running:
    answer: RunningAnswer
    task: asyncio.Task[None]


class ChatService:
    """The node's side of every chat request.

    `model` gives the model of new conversations, `exact` whether all answers are to be exact.
    """

    def __init__(
        self,
        conversations: Conversations,
        answerers: Answerers,
        notify: Callable[[Event], None],
        *,
        model: Callable[[], str],
        exact: Callable[[], bool] = lambda: False,
    ) -> None:
        self._conversations = conversations
        self._answerers = answerers
        self._notify = notify
        self._model = model
        self._exact = exact
        self._running: dict[str, _Running] = {}
        self._beginning: set[str] = set()
        self._closing = False

    async def list_conversations(self) -> ConversationList:
        return ConversationList(conversations=await self._conversations.all())

    async def transcript(self, conversation: str) -> Transcript:
        """Raises InputRejected for an unknown id."""
        before = self._running.get(conversation)
        head, messages = await self._conversations.transcript(conversation)
        # nothing may be awaited from here on: what is sent later is not in these texts
        now = self._running.get(conversation)
        live = {sent.id: sent for sent in (one.answer.as_sent() for one in (before, now) if one)}
        messages = tuple(live.get(message.id, message) for message in messages)
        writing = [one.id for one in messages if one.id in live and one.end is None]
        return Transcript(
            conversation=head, messages=messages, answering=writing[-1] if writing else ""
        )

    async def create(self, request: NewConversation, initiator: str) -> Conversation:
        """A new conversation, with its system prompt as the first message if there is one.

        Raises InputRejected for a title or a prompt that is too long.
        """
        _check_title(request.title)
        _check_length(request.system, "The system prompt")
        now = time.time()
        head = Conversation(
            id=uuid.uuid4().hex,
            title=request.title or UNTITLED,
            model=request.model or self._model(),
            created_at=now,
            updated_at=now,
        )
        await self._conversations.create(head)
        if request.system.strip():
            await self._conversations.add(_message(head.id, None, Role.SYSTEM, request.system))
        self._notify(ConversationChanged(conversation=head, initiator=initiator))
        return head

    async def rename(self, conversation: str, title: str, initiator: str) -> Conversation:
        """Raises InputRejected for an empty or too long title or an unknown id."""
        if not title.strip():
            raise InputRejected("A conversation needs a title.")
        _check_title(title.strip())
        await self._conversations.rename(conversation, title.strip())
        return await self._tell_changed(conversation, initiator)

    async def delete(self, conversation: str, initiator: str) -> None:
        """Stop its answer, then delete it. Raises InputRejected for an unknown id."""
        head = await self._conversations.head(conversation)
        await self.stop(conversation)
        await self._conversations.delete(conversation)
        self._notify(ConversationChanged(conversation=head, deleted=True, initiator=initiator))

    async def send(self, request: SendMessage, initiator: str) -> Answering:
        """Store the question and begin its answer. Raises InputRejected."""
        name = request.conversation
        if not request.text.strip():
            raise InputRejected("The message is empty.", "Write something first.")
        _check_length(request.text, "The message")
        if self._closing:
            raise InputRejected("The node is ending.", "Start it again and ask then.")
        if name in self._running or name in self._beginning:
            raise InputRejected(
                "The last question of this conversation is still being answered.",
                "Wait for the answer or stop it first.",
            )
        self._beginning.add(name)
        try:
            return await self._begin(request, initiator)
        finally:
            self._beginning.discard(name)

    async def stop(self, conversation: str) -> None:
        """Stop the running answer, if any; returns once every server knows or gave no sign."""
        running = self._running.get(conversation)
        if running is None:
            return
        running.answer.stop.set()
        _done, late = await asyncio.wait({running.task}, timeout=STOP_SECONDS)
        if late:
            logger.warning("an answer did not stop in %g s and is cut short", STOP_SECONDS)
            running.task.cancel()
            await asyncio.gather(running.task, return_exceptions=True)

    async def close(self) -> None:
        """Stop every answer, keeping its text."""
        self._closing = True
        await asyncio.gather(*(self.stop(name) for name in tuple(self._running)))

    async def _begin(self, request: SendMessage, initiator: str) -> Answering:
        head, path = await self._conversations.transcript(request.conversation)
        _check_room(path)
        question = _message(head.id, path[-1].id if path else None, Role.USER, request.text)
        answer = _message(head.id, question.id, Role.ASSISTANT, "")
        await self._conversations.add(question)
        await self._conversations.add(answer)
        first = all(message.role is not Role.USER for message in path)
        if first and head.title == UNTITLED:
            await self._conversations.rename(head.id, title_from(request.text))
        await self._tell_changed(head.id, initiator)
        running = RunningAnswer(
            answer,
            model=head.model,
            turns=turns_of((*path, question)),
            sampling=replace(request.sampling, exact=request.sampling.exact or self._exact()),
            answerers=self._answerers,
            store=self._conversations.update,
            notify=self._notify,
        )
        task = asyncio.create_task(self._run(head.id, running), name=f"answer {answer.id}")
        self._running[head.id] = _Running(running, task)
        return Answering(question=question, answer=answer)

    async def _run(self, conversation: str, running: RunningAnswer) -> None:
        try:
            await running.run()
        finally:
            self._running.pop(conversation, None)
        await self._tell_changed(conversation, "")

    async def _tell_changed(self, conversation: str, initiator: str) -> Conversation:
        head = await self._conversations.head(conversation)
        self._notify(ConversationChanged(conversation=head, initiator=initiator))
        return head


def _check_title(title: str) -> None:
    if len(title) > LONGEST_TITLE:
        raise InputRejected(f"A title has at most {LONGEST_TITLE} characters.", "Shorten it.")


def _check_length(text: str, what: str) -> None:
    if len(text.encode()) > LONGEST_MESSAGE_BYTES:
        raise InputRejected(
            f"{what} is too long: {LONGEST_MESSAGE_BYTES // 1024} kB of text is the most.",
            "Shorten it, or send it in parts.",
        )


def _check_room(path: Iterable[Message]) -> None:
    length = sum(len(message.text.encode()) + MESSAGE_FIELDS_BYTES for message in path)
    if length > LONGEST_CONVERSATION_BYTES:
        raise InputRejected(
            "This conversation has become too long to go on.", "Begin a new conversation."
        )


def _message(conversation: str, parent: str | None, role: Role, text: str) -> Message:
    return Message(
        id=uuid.uuid4().hex,
        conversation=conversation,
        parent=parent,
        role=role,
        text=text,
        created_at=time.time(),
    )
