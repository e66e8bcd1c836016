"""The control server and its client, over real loopback sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from superbloom.control import server as server_module
from superbloom.control.address import NodeAddress
from superbloom.control.client import ControlClient
from superbloom.control.codec import MAX_LINE_BYTES, MAX_REQUEST_BYTES, decode, encode
from superbloom.control.messages import (
    FINDER,
    PROTOCOL,
    ConversationList,
    DeleteConversation,
    Done,
    Event,
    GetStatus,
    GetTranscript,
    Hello,
    ListConversations,
    Notice,
    NoticeLevel,
    Reply,
    Request,
    StopNode,
    Subscribe,
    Welcome,
)
from superbloom.control.server import Caller, ControlServer
from superbloom.domain.errors import (
    ControlRefused,
    InputRejected,
    NodeUnreachable,
    OtherVersion,
    SuperbloomError,
)

TOKEN = "right"


@dataclass
class Fixture:
    """A server whose handler the tests steer."""

    release: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    callers: list[str] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    news: list[Event] = field(default_factory=list)
    server: ControlServer = field(init=False)
    port: int = 0

    def __post_init__(self) -> None:
        self.server = ControlServer(TOKEN, self.handle, news=lambda: self.news)

    @property
    def address(self) -> NodeAddress:
        return NodeAddress(port=self.port, token=TOKEN, pid=1, version="1")

    async def handle(self, request: Request, caller: Caller) -> Reply:
        self.callers.append(caller.name)
        match request:
            case GetStatus():
                self.started.set()
                try:
                    await self.release.wait()
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
                self.finished.set()
                return Done()
            case ListConversations():
                return ConversationList(conversations=())
            case DeleteConversation():
                raise InputRejected("There is none.", "Look again.")
            case GetTranscript():
                raise KeyError("a bug")
        return Done()


@pytest.fixture
async def node() -> AsyncIterator[Fixture]:
    made = Fixture()
    made.port = await made.server.start()
    yield made
    await made.server.close()


@pytest.fixture
async def client(node: Fixture) -> AsyncIterator[ControlClient]:
    made = await ControlClient.connect(node.address, client="test")
    yield made
    await made.close()


def notice(text: str) -> Notice:
    return Notice(level=NoticeLevel.INFO, message=text)


async def next_event(client: ControlClient) -> Event:
    async with asyncio.timeout(10):
        return await anext(client.events())


async def test_a_request_gets_its_reply(node: Fixture, client: ControlClient) -> None:
    assert await client.request(ListConversations()) == ConversationList(conversations=())
    assert node.callers == [client.name]
    assert client.node_version


async def test_a_long_request_holds_nobody_up(node: Fixture, client: ControlClient) -> None:
    long = asyncio.create_task(client.request(GetStatus()))
    await node.started.wait()
    assert await client.request(ListConversations()) == ConversationList(conversations=())
    assert not long.done()
    node.release.set()
    assert await long == Done()


async def test_errors_come_with_their_class_and_words(client: ControlClient) -> None:
    with pytest.raises(InputRejected) as caught:
        await client.request(DeleteConversation(conversation="x"))
    assert caught.value.message == "There is none."
    assert caught.value.next_step == "Look again."


async def test_a_bug_is_logged_and_answered(
    client: ControlClient, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SuperbloomError, match="inside the node"):
        await client.request(GetTranscript(conversation="x"))
    assert "a bug" in caplog.text
    assert await client.request(StopNode()) == Done()


async def test_a_reply_of_another_type_is_refused(client: ControlClient) -> None:
    with pytest.raises(ControlRefused):
        await client.ask(StopNode(), Welcome)


async def test_events_reach_subscribers_in_order_and_nobody_else(node: Fixture) -> None:
    hears = await ControlClient.connect(node.address)
    deaf = await ControlClient.connect(node.address)
    await hears.request(Subscribe())
    for number in range(100):
        node.server.broadcast(notice(str(number)))
    assert [await next_event(hears) for _ in range(100)] == [notice(str(n)) for n in range(100)]
    await deaf.request(Subscribe())
    node.server.broadcast(notice("now"))
    assert await next_event(deaf) == notice("now")
    await hears.close()
    await deaf.close()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (encode(Hello(token="wrong"), 1), ControlRefused),
        (encode(Hello(token=""), 1), ControlRefused),
        (encode(Hello(token="ä"), 1), ControlRefused),
        (encode(StopNode(), 1), ControlRefused),
        (encode(Done(), 1), ControlRefused),
        (b"GET / HTTP/1.1\r\n", ControlRefused),
        (encode(Hello(token=TOKEN, protocol=PROTOCOL + 1), 1), OtherVersion),
    ],
)
async def test_without_the_token_nothing_goes(
    node: Fixture, line: bytes, error: type[SuperbloomError]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(line + encode(StopNode(), 2))
    answer = decode(await reader.readline())
    assert type(answer.message) is error
    assert await reader.read() == b""
    assert node.callers == []
    writer.close()


async def test_a_silent_connection_ends(node: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HELLO_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()


async def test_the_client_hears_why_it_is_refused(node: Fixture) -> None:
    wrong = NodeAddress(port=node.port, token="wrong", pid=1, version="1")
    with pytest.raises(ControlRefused, match="token"):
        await ControlClient.connect(wrong)


async def test_nobody_listens(unused_tcp_port: int) -> None:
    nobody = NodeAddress(port=unused_tcp_port, token=TOKEN, pid=1, version="1")
    with pytest.raises(NodeUnreachable):
        await ControlClient.connect(nobody)


async def raw(node: Fixture) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection past the greeting."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port, limit=MAX_LINE_BYTES)
    writer.write(encode(Hello(token=TOKEN), 0))
    assert isinstance(decode(await reader.readline()).message, Welcome)
    return reader, writer


async def test_a_malformed_message_is_answered_and_the_connection_lives(node: Fixture) -> None:
    reader, writer = await raw(node)
    for number, type_ in enumerate(("Nothing", "Done", "Hello", "GetTranscript"), 1):
        writer.write(json.dumps({"id": number, "type": type_, "body": {}}).encode() + b"\n")
        answer = decode(await reader.readline())
        assert answer.id == number
        assert type(answer.message) is ControlRefused
    writer.write(encode(StopNode(), 9))
    assert decode(await reader.readline()).message == Done()
    writer.close()


@pytest.mark.parametrize(
    "line", [b"nonsense\n", b"\xff\xff\n", b"x" * (MAX_REQUEST_BYTES + 2) + b"\n"], ids=len
)
async def test_what_is_no_line_ends_the_connection(node: Fixture, line: bytes) -> None:
    reader, writer = await raw(node)
    writer.write(line)
    answer = decode(await reader.readline())
    assert answer.id is None
    assert type(answer.message) is ControlRefused
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()


async def test_a_slow_reader_is_dropped_and_others_go_on(
    node: Fixture, client: ControlClient, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await raw(node)
    writer.write(encode(Subscribe(), 1))
    assert decode(await reader.readline()).message == Done()
    writer.transport.pause_reading()
    big = notice("x" * (MAX_LINE_BYTES // 2))
    for _ in range(100):
        node.server.broadcast(big)
        await asyncio.sleep(0)
        if "too slowly" in caplog.text:
            break
    assert "too slowly" in caplog.text
    assert await client.request(StopNode()) == Done()
    writer.transport.abort()


async def test_a_broken_node_is_noticed_by_requests_and_events(
    node: Fixture, client: ControlClient
) -> None:
    await client.request(Subscribe())
    waiting = asyncio.create_task(client.request(GetStatus()))
    await node.started.wait()
    for connection in tuple(node.server._connections.values()):
        connection._writer.transport.abort()
    with pytest.raises(NodeUnreachable):
        await waiting
    with pytest.raises(NodeUnreachable):
        await next_event(client)
    with pytest.raises(NodeUnreachable):
        await client.request(StopNode())


async def test_a_request_outlives_the_view_that_left(
    node: Fixture, client: ControlClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "CLOSE_SECONDS", 0.05)
    _reader, writer = await raw(node)
    writer.write(encode(GetStatus(), 1))
    await node.started.wait()
    writer.close()
    async with asyncio.timeout(10):
        while len(node.server.views) > 1:
            await asyncio.sleep(0.01)
    assert not node.cancelled.is_set()
    node.release.set()
    async with asyncio.timeout(10):
        await node.finished.wait()
    assert await client.request(StopNode()) == Done()


async def test_a_request_of_a_view_that_left_ends_with_the_node(
    node: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "CLOSE_SECONDS", 0.05)
    _reader, writer = await raw(node)
    writer.write(encode(GetStatus(), 1))
    await node.started.wait()
    writer.close()
    async with asyncio.timeout(10):
        while node.server.views:
            await asyncio.sleep(0.01)
        await node.server.close()
    assert node.cancelled.is_set()


async def test_closing_waits_for_a_request_of_a_view_that_left(node: Fixture) -> None:
    _reader, writer = await raw(node)
    writer.write(encode(GetStatus(), 1))
    await node.started.wait()
    writer.transport.abort()
    closing = asyncio.create_task(node.server.close())
    await asyncio.sleep(0.05)
    node.release.set()
    async with asyncio.timeout(10):
        await closing
    assert node.finished.is_set()
    assert not node.cancelled.is_set()


async def test_who_comes_at_the_end_is_not_let_in(node: Fixture, client: ControlClient) -> None:
    late, writer = await asyncio.open_connection("127.0.0.1", node.port)
    await asyncio.sleep(0.05)
    node.server.begin_close()
    writer.write(encode(Hello(token=TOKEN), 0))
    assert await late.read() == b""
    writer.close()
    with pytest.raises(NodeUnreachable):
        await ControlClient.connect(node.address)
    with pytest.raises(NodeUnreachable, match="ending"):
        await client.request(ListConversations())


async def test_views_are_those_connected_that_do_not_merely_look(
    node: Fixture, client: ControlClient
) -> None:
    looks = await ControlClient.connect(node.address, client=FINDER)
    other = await ControlClient.connect(node.address)
    assert node.server.views == {client.name, other.name}
    await looks.close()
    await other.close()
    async with asyncio.timeout(10):
        while node.server.views != {client.name}:
            await asyncio.sleep(0.01)


async def test_news_come_first_to_every_subscriber(node: Fixture) -> None:
    node.news.append(notice("It was damaged."))
    for _ in range(2):
        view = await ControlClient.connect(node.address)
        await view.request(Subscribe())
        node.server.broadcast(notice("later"))
        assert await next_event(view) == notice("It was damaged.")
        assert await next_event(view) == notice("later")
        await view.close()


async def test_no_reply_in_time(node: Fixture, client: ControlClient) -> None:
    with pytest.raises(NodeUnreachable, match="within"):
        await client.request(GetStatus(), timeout=0.05)
    node.release.set()
    assert await client.request(StopNode()) == Done()


async def test_closing_lets_a_running_request_finish(node: Fixture, client: ControlClient) -> None:
    long = asyncio.create_task(client.request(GetStatus()))
    await node.started.wait()
    closing = asyncio.create_task(node.server.close())
    node.release.set()
    assert await long == Done()
    async with asyncio.timeout(10):
        await closing
    with pytest.raises(NodeUnreachable):
        await client.request(StopNode())


async def test_events_end_quietly_after_our_own_close(client: ControlClient) -> None:
    await client.request(Subscribe())
    await client.close()
    assert [event async for event in client.events()] == []
