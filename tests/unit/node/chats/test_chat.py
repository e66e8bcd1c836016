"""The chat service with a real store and a model that answers as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from superbloom.control.codec import encode
from superbloom.control.messages import (
    ChatDelta,
    ChatFinished,
    ChatNotice,
    ConversationChanged,
    Event,
    NewConversation,
    SendMessage,
)
from superbloom.domain.conversation import ChatTurn, Conversation, Message, Role
from superbloom.domain.errors import BlocksMissing, InputRejected, ModelNotHere
from superbloom.domain.generation import (
    ChainHop,
    ChatPhase,
    GenerationEnd,
    GenerationEvent,
    PhaseChange,
    TextDelta,
)
from superbloom.domain.sampling import EndReason, SamplingSettings
from superbloom.domain.span import Span
from superbloom.node.chats import chat as chat_module
from superbloom.node.chats.answer import Answerer
from superbloom.node.chats.chat import (
    LONGEST_CONVERSATION_BYTES,
    LONGEST_MESSAGE_BYTES,
    LONGEST_TITLE,
    ChatService,
)
from superbloom.node.chats.conversations import Conversations

Script = Callable[[asyncio.Event], AsyncGenerator[GenerationEvent, None]]


class FakeModel:
    """Answers by a script and remembers what it was asked."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[tuple[ChatTurn, ...]] = []
        self.samplings: list[SamplingSettings] = []
        self.closed = 0

    async def generate(
        self, turns: Sequence[ChatTurn], sampling: SamplingSettings, stop: asyncio.Event
    ) -> AsyncGenerator[GenerationEvent, None]:
        self.asked.append(tuple(turns))
        self.samplings.append(sampling)
        try:
            async for event in self.script(stop):
                yield event
        finally:
            self.closed += 1


class FakeModels:
    """Gives one model, at once or when `ready` is set."""

    def __init__(self, model: FakeModel) -> None:
        self.model = model
        self.ready = asyncio.Event()
        self.ready.set()
        self.error: Exception | None = None

    async def answerer(self, model: str, tell: Callable[[str], None]) -> Answerer:
        if self.error is not None:
            raise self.error
        if not self.ready.is_set():
            tell("Fetching the model: 3 %.")
            await self.ready.wait()
        return self.model


class Events:
    def __init__(self) -> None:
        self.seen: list[Event] = []
        self._changed = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.seen.append(event)
        self._changed.set()

    async def until(self, holds: Callable[[Event], bool]) -> Event:
        async with asyncio.timeout(20):
            while True:
                for event in self.seen:
                    if holds(event):
                        return event
                self._changed.clear()
                await self._changed.wait()

    async def finished(self) -> ChatFinished:
        event = await self.until(lambda event: isinstance(event, ChatFinished))
        assert isinstance(event, ChatFinished)
        return event

    def text(self) -> str:
        return "".join(event.text for event in self.seen if isinstance(event, ChatDelta))


HOP = ChainHop(name="a", blocks=Span(0, 4), seconds=0.01)


async def hello(stop: asyncio.Event) -> AsyncGenerator[GenerationEvent, None]:
    yield PhaseChange(phase=ChatPhase.WRITING, words="Writing.", chain=("a",), hops=(HOP,))
    for number, text in enumerate(("Hel", "lo", " there."), 1):
        yield TextDelta(text=text, tokens=number, tokens_per_second=10.0)
    yield end(EndReason.END_OF_TEXT, 3)


async def endless(stop: asyncio.Event) -> AsyncGenerator[GenerationEvent, None]:
    yield TextDelta(text="begun", tokens=1, tokens_per_second=1.0)
    await stop.wait()
    yield end(EndReason.STOPPED, 1)


async def deaf(stop: asyncio.Event) -> AsyncGenerator[GenerationEvent, None]:
    yield TextDelta(text="begun", tokens=1, tokens_per_second=1.0)
    await asyncio.Event().wait()


async def failing(stop: asyncio.Event) -> AsyncGenerator[GenerationEvent, None]:
    yield TextDelta(text="so far", tokens=1, tokens_per_second=1.0)
    raise BlocksMissing("Nobody holds block 3.")


async def bug(stop: asyncio.Event) -> AsyncGenerator[GenerationEvent, None]:
    yield TextDelta(text="so far", tokens=1, tokens_per_second=1.0)
    raise ZeroDivisionError


def end(reason: EndReason, tokens: int) -> GenerationEnd:
    return GenerationEnd(
        reason=reason,
        token_ids=tuple(range(tokens)),
        prompt_tokens=5,
        tokens_per_second=12.0,
        first_token_seconds=0.25,
    )


class Desk:
    """A chat service with what stands around it."""

    def __init__(self, path: Path, script: Script) -> None:
        self.path = path
        self.model = FakeModel(script)
        self.models = FakeModels(self.model)
        self.events = Events()
        self.conversations = Conversations(path)
        self.exact = False
        self.chat = ChatService(
            self.conversations,
            self.models,
            self.events,
            model=lambda: "tiny",
            exact=lambda: self.exact,
        )

    async def begin(self, system: str = "") -> Conversation:
        return await self.chat.create(NewConversation(system=system), "view-1")

    async def ask(self, conversation: Conversation, text: str = "Hi?") -> ChatFinished:
        self.events.seen.clear()
        await self.chat.send(SendMessage(conversation=conversation.id, text=text), "view-1")
        return await self.events.finished()

    async def close(self) -> None:
        await self.chat.close()
        await self.conversations.close()


Make = Callable[[Script], Desk]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Desk] = []

    def build(script: Script) -> Desk:
        made.append(Desk(tmp_path / f"{len(made)}.sqlite3", script))
        return made[-1]

    yield build
    for desk in made:
        await desk.close()


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("kept", [False, True])
async def test_an_answer_is_exact_if_it_or_all_are_to_be(
    make: Make, asked: bool, kept: bool
) -> None:
    desk = make(hello)
    desk.exact = kept
    head = await desk.begin()
    sampling = SamplingSettings(seed=3, exact=asked)
    request = SendMessage(conversation=head.id, text="Hi?", sampling=sampling)
    await desk.chat.send(request, "view-1")
    await desk.events.finished()
    assert desk.model.samplings == [SamplingSettings(seed=3, exact=asked or kept)]


async def test_an_answer_is_streamed_stored_and_titled(make: Make) -> None:
    desk = make(hello)
    head = await desk.begin()
    assert head.model == "tiny"
    finished = await desk.ask(head, "What is a\nflower?")
    assert desk.events.text() == "Hello there."
    assert (finished.answer.text, finished.answer.end) == ("Hello there.", EndReason.END_OF_TEXT)
    assert (finished.answer.tokens, finished.answer.tokens_per_second) == (3, 12.0)
    assert (finished.error, finished.next_step) == ("", "")
    transcript = await desk.chat.transcript(head.id)
    assert [message.text for message in transcript.messages] == [
        "What is a\nflower?",
        "Hello there.",
    ]
    assert transcript.messages[1] == finished.answer
    assert transcript.conversation.title == "What is a"
    notices = [event for event in desk.events.seen if isinstance(event, ChatNotice)]
    assert [(notice.chain, notice.hops) for notice in notices] == [(("a",), (HOP,))]


async def test_events_name_who_began_them(make: Make) -> None:
    desk = make(hello)
    head = await desk.begin()
    await desk.ask(head)
    changed = [event for event in desk.events.seen if isinstance(event, ConversationChanged)]
    assert changed[0].initiator == "view-1"


async def test_pieces_are_coalesced(make: Make) -> None:
    async def quick(stop: asyncio.Event) -> AsyncGenerator[GenerationEvent, None]:
        for number in range(1, 501):
            yield TextDelta(text="x", tokens=number, tokens_per_second=1.0)
        yield end(EndReason.LENGTH, 500)

    desk = make(quick)
    finished = await desk.ask(await desk.begin())
    deltas = [event for event in desk.events.seen if isinstance(event, ChatDelta)]
    assert finished.answer.text == desk.events.text() == "x" * 500
    assert len(deltas) < 100
    assert deltas[0].text == "x", "the first piece goes out at once"
    assert isinstance(desk.events.seen[-1], ChatFinished | ConversationChanged)


async def test_later_questions_carry_the_conversation(make: Make) -> None:
    desk = make(hello)
    head = await desk.begin(system="Be brief.")
    await desk.ask(head, "One?")
    await desk.ask(head, "Two?")
    assert desk.model.asked[1] == (
        ChatTurn(Role.SYSTEM, "Be brief."),
        ChatTurn(Role.USER, "One?"),
        ChatTurn(Role.ASSISTANT, "Hello there."),
        ChatTurn(Role.USER, "Two?"),
    )


async def test_a_title_given_stays(make: Make) -> None:
    desk = make(hello)
    head = await desk.chat.create(NewConversation(title="Flowers"), "view-1")
    await desk.ask(head, "One?")
    assert (await desk.chat.transcript(head.id)).conversation.title == "Flowers"


async def test_stopping_keeps_what_is_there(make: Make) -> None:
    desk = make(endless)
    head = await desk.begin()
    await desk.chat.send(SendMessage(conversation=head.id, text="Hi?"), "view-1")
    await desk.events.until(lambda event: isinstance(event, ChatDelta))
    await desk.chat.stop(head.id)
    finished = await desk.events.finished()
    assert (finished.answer.text, finished.answer.end) == ("begun", EndReason.STOPPED)
    assert desk.model.closed == 1
    await desk.chat.stop(head.id)  # nothing runs any more: no matter


async def test_an_answer_that_does_not_stop_is_cut_short(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("superbloom.node.chats.chat.STOP_SECONDS", 0.1)
    desk = make(deaf)
    head = await desk.begin()
    await desk.chat.send(SendMessage(conversation=head.id, text="Hi?"), "view-1")
    await desk.events.until(lambda event: isinstance(event, ChatDelta))
    await desk.chat.stop(head.id)
    finished = await desk.events.finished()
    assert (finished.answer.text, finished.answer.end) == ("begun", EndReason.STOPPED)
    assert desk.model.closed == 1


async def test_one_answer_a_conversation_at_a_time(make: Make) -> None:
    desk = make(endless)
    head, other = await desk.begin(), await desk.begin()
    ask = SendMessage(conversation=head.id, text="Hi?")
    results = await asyncio.gather(
        desk.chat.send(ask, "a"), desk.chat.send(ask, "b"), return_exceptions=True
    )
    assert sum(isinstance(result, InputRejected) for result in results) == 1
    with pytest.raises(InputRejected, match="still being answered"):
        await desk.chat.send(ask, "c")
    await desk.chat.send(SendMessage(conversation=other.id, text="Hi?"), "a")
    assert len((await desk.chat.transcript(head.id)).messages) == 2


async def test_a_failed_answer_says_why_and_keeps_its_text(make: Make) -> None:
    desk = make(failing)
    head = await desk.begin()
    finished = await desk.ask(head)
    assert finished.error == "Nobody holds block 3."
    assert finished.next_step.startswith("Share this computer")
    assert (finished.answer.text, finished.answer.end) == ("so far", EndReason.FAILED)
    desk.model.script = hello
    assert (await desk.ask(head)).answer.end is EndReason.END_OF_TEXT


async def test_a_mistake_of_ours_ends_the_answer_too(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    desk = make(bug)
    finished = await desk.ask(await desk.begin())
    assert finished.answer.end is EndReason.FAILED
    assert "did not expect" in finished.error
    assert "ZeroDivisionError" in caplog.text
    caplog.clear()


async def test_the_answer_waits_for_the_model_in_words(make: Make) -> None:
    desk = make(hello)
    desk.models.ready.clear()
    head = await desk.begin()
    await desk.chat.send(SendMessage(conversation=head.id, text="Hi?"), "view-1")
    notice = await desk.events.until(lambda event: isinstance(event, ChatNotice))
    assert isinstance(notice, ChatNotice)
    assert (notice.phase, notice.words) == (ChatPhase.WAITING, "Fetching the model: 3 %.")
    desk.models.ready.set()
    assert (await desk.events.finished()).answer.text == "Hello there."


async def test_a_stop_ends_the_wait_for_a_model(make: Make) -> None:
    desk = make(hello)
    desk.models.ready.clear()
    head = await desk.begin()
    await desk.chat.send(SendMessage(conversation=head.id, text="Hi?"), "view-1")
    await desk.events.until(lambda event: isinstance(event, ChatNotice))
    await desk.chat.stop(head.id)
    finished = await desk.events.finished()
    assert (finished.answer.text, finished.answer.end) == ("", EndReason.STOPPED)
    assert desk.model.asked == []


async def test_a_model_that_is_not_coming_is_said(make: Make) -> None:
    desk = make(hello)
    desk.models.error = ModelNotHere("The model tiny is not on this computer.")
    finished = await desk.ask(await desk.begin())
    assert finished.error == "The model tiny is not on this computer."
    desk.models.error = None


async def test_deleting_stops_the_answer(make: Make) -> None:
    desk = make(endless)
    head = await desk.begin()
    await desk.chat.send(SendMessage(conversation=head.id, text="Hi?"), "view-1")
    await desk.events.until(lambda event: isinstance(event, ChatDelta))
    await desk.chat.delete(head.id, "view-1")
    assert desk.model.closed == 1
    assert (await desk.chat.list_conversations()).conversations == ()
    with pytest.raises(InputRejected, match="no such conversation"):
        await desk.chat.transcript(head.id)


async def test_the_end_of_the_node_keeps_what_was_written(make: Make) -> None:
    desk = make(endless)
    head = await desk.begin()
    await desk.chat.send(SendMessage(conversation=head.id, text="Hi?"), "view-1")
    await desk.events.until(lambda event: isinstance(event, ChatDelta))
    await desk.chat.close()
    with pytest.raises(InputRejected, match="ending"):
        await desk.chat.send(SendMessage(conversation=head.id, text="More?"), "view-1")
    again = Conversations(desk.path)
    _head, messages = await again.transcript(head.id)
    await again.close()
    assert (messages[-1].text, messages[-1].end) == ("begun", EndReason.STOPPED)


async def test_a_growing_answer_is_on_the_disk_before_it_ends(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("superbloom.node.chats.answer.STORE_EVERY", 0.0)
    desk = make(endless)
    head = await desk.begin()
    await desk.chat.send(SendMessage(conversation=head.id, text="Hi?"), "view-1")
    await desk.events.until(lambda event: isinstance(event, ChatDelta))
    _head, messages = await desk.conversations.transcript(head.id)
    assert (messages[-1].text, messages[-1].end) == ("begun", None)


async def test_a_transcript_has_exactly_what_was_sent_of_a_running_answer(make: Make) -> None:
    more = asyncio.Event()

    async def slow(stop: asyncio.Event) -> AsyncGenerator[GenerationEvent, None]:
        for number in range(40):
            yield TextDelta(text=f"{number} ", tokens=number, tokens_per_second=1.0)
        await more.wait()
        yield TextDelta(text="the end", tokens=41, tokens_per_second=1.0)
        yield end(EndReason.END_OF_TEXT, 41)

    desk = make(slow)
    head = await desk.begin()
    begun = await desk.chat.send(SendMessage(conversation=head.id, text="Hi?"), "view-1")
    await desk.events.until(lambda event: isinstance(event, ChatDelta))
    running = await desk.chat.transcript(head.id)
    assert running.messages[-1].text == desk.events.text() == "".join(f"{n} " for n in range(40))
    assert running.answering == begun.answer.id
    reading = asyncio.create_task(desk.chat.transcript(head.id))
    more.set()
    await desk.events.finished()
    assert (await reading).messages[-1].text.startswith(running.messages[-1].text)
    ended = await desk.chat.transcript(head.id)
    assert ended.answering == ""
    assert ended.messages[-1].text.endswith("the end")


async def test_a_transcript_read_while_its_answer_ends_is_not_older_than_the_end(
    make: Make,
) -> None:
    desk = make(endless)
    head = await desk.begin()
    await desk.chat.send(SendMessage(conversation=head.id, text="Hi?"), "view-1")
    await desk.events.until(lambda event: isinstance(event, ChatDelta))
    read = desk.conversations.transcript

    async def slow_read(conversation: str) -> tuple[Conversation, tuple[Message, ...]]:
        found = await read(conversation)
        await desk.chat.stop(conversation)
        return found

    desk.conversations.transcript = slow_read  # type: ignore[method-assign]
    transcript = await desk.chat.transcript(head.id)
    assert (transcript.messages[-1].text, transcript.messages[-1].end) == (
        "begun",
        EndReason.STOPPED,
    )
    assert transcript.answering == ""


@pytest.mark.parametrize("text", ["", "  \n"])
async def test_empty_questions_and_titles_are_refused(make: Make, text: str) -> None:
    desk = make(hello)
    head = await desk.begin()
    with pytest.raises(InputRejected):
        await desk.chat.send(SendMessage(conversation=head.id, text=text), "view-1")
    with pytest.raises(InputRejected):
        await desk.chat.rename(head.id, text, "view-1")
    assert (await desk.chat.rename(head.id, " Flowers ", "view-1")).title == "Flowers"


async def test_unknown_conversations_are_refused(make: Make) -> None:
    desk = make(hello)
    for asking in (
        desk.chat.send(SendMessage(conversation="nobody", text="Hi?"), "view-1"),
        desk.chat.delete("nobody", "view-1"),
        desk.chat.transcript("nobody"),
        desk.chat.rename("nobody", "Title", "view-1"),
    ):
        with pytest.raises(InputRejected):
            await asking


async def test_a_message_is_bounded_in_bytes(make: Make) -> None:
    desk = make(hello)
    head = await desk.begin()
    for text in ("x" * (LONGEST_MESSAGE_BYTES + 1), "ä" * (LONGEST_MESSAGE_BYTES // 2 + 1)):
        with pytest.raises(InputRejected, match="256 kB") as caught:
            await desk.ask(head, text)
        assert caught.value.next_step
        with pytest.raises(InputRejected, match="system prompt"):
            await desk.begin(system=text)
    assert (await desk.chat.transcript(head.id)).messages == ()
    await desk.ask(head, "x" * LONGEST_MESSAGE_BYTES)


async def test_the_longest_conversation_can_be_opened(make: Make) -> None:
    desk = make(hello)
    head = await desk.begin()
    text = "\x01" * LONGEST_MESSAGE_BYTES  # six bytes each in JSON
    for _ in range(LONGEST_CONVERSATION_BYTES // LONGEST_MESSAGE_BYTES):
        await desk.ask(head, text)
    with pytest.raises(InputRejected, match="too long to go on") as caught:
        await desk.ask(head, "More?")
    assert "new conversation" in caught.value.next_step
    transcript = await desk.chat.transcript(head.id)
    assert transcript.messages[0].text == text
    encode(transcript, 1)


async def test_many_short_messages_fill_a_conversation_too(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_module, "LONGEST_CONVERSATION_BYTES", 2000)
    desk = make(hello)
    head = await desk.begin()
    await desk.ask(head)
    await desk.ask(head)
    with pytest.raises(InputRejected, match="too long to go on"):
        await desk.ask(head)


async def test_a_title_is_bounded(make: Make) -> None:
    desk = make(hello)
    head = await desk.begin()
    title = "x" * (LONGEST_TITLE + 1)
    with pytest.raises(InputRejected, match="title"):
        await desk.chat.rename(head.id, title, "view-1")
    with pytest.raises(InputRejected, match="title"):
        await desk.chat.create(NewConversation(title=title), "view-1")
