"""The node's end of the control wire: answers requests and tells events on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass

from superbloom import __version__
from superbloom.control.codec import CONTROL as CODEC
from superbloom.control.codec import MAX_LINE_BYTES, MAX_REQUEST_BYTES, Envelope, decode, encode
from superbloom.control.messages import (
    FINDER,
    PROTOCOL,
    Done,
    Event,
    Hello,
    Reply,
    Request,
    Subscribe,
    Welcome,
)
from superbloom.domain.errors import (
    ControlRefused,
    NodeUnreachable,
    OtherVersion,
    SuperbloomError,
)

logger = logging.getLogger(__name__)

HELLO_SECONDS = 5.0
"""A connection that has not shown the token by then ends."""

QUEUE_LINES = 2000
QUEUE_BYTES = 2 * MAX_LINE_BYTES
"""A reader with more than this waiting for it is too slow and is dropped."""

REQUESTS_AT_ONCE = 64
"""A connection with as many unanswered requests is not read further until one is answered."""

CLOSE_SECONDS = 2.0
"""How long closing waits for running requests, and then for the last lines to go out; a view that
has said its last has as long to hear the replies."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks; `name` is what events give as their initiator, `client` as in Hello."""

    name: str
    client: str = ""


Handler = Callable[[Request, Caller], Awaitable[Reply]]
"""Answers every request but Hello and Subscribe; a SuperbloomError reaches the caller as such."""


class ControlServer:
    """Listens on 127.0.0.1; used from one event loop.

    A request once begun runs to its end, also when the view that asked is gone: what it changes
    must not stop half way. `close` waits for those under way.
    """

    def __init__(
        self, token: str, handle: Handler, *, news: Callable[[], Iterable[Event]] = tuple
    ) -> None:
        """`news` gives the events that every new subscriber hears first."""
        self._token = token
        self._handle = handle
        self._news = news
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._requests: set[asyncio.Task[None]] = set()
        self._count = 0
        self._ending = False

    @property
    def views(self) -> frozenset[str]:
        """The names of those who are connected; one that only looks for a node is none."""
        return frozenset(c.name for c in self._connections.values() if c.is_view)

    async def start(self) -> int:
        """Begin to listen; gives the port."""
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, limit=MAX_REQUEST_BYTES
        )
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def broadcast(self, event: Event) -> None:
        """Send `event` to every subscriber; never waits."""
        try:
            line = encode(event)
        except ControlRefused:
            logger.exception("an event could not be sent")
            return
        for connection in tuple(self._connections.values()):
            if connection.subscribed:
                connection.put(line)

    def begin_close(self) -> None:
        """Let nobody in and begin no request any more; those under way go on."""
        self._ending = True
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """Let running requests finish for a moment, send their replies, end everything."""
        self.begin_close()
        await self._end_requests()
        tasks = tuple(self._connections)
        for connection in self._connections.values():
            connection.begin_close()
        if tasks:
            _done, late = await asyncio.wait(tasks, timeout=3 * CLOSE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _end_requests(self) -> None:
        if not self._requests:
            return
        _done, late = await asyncio.wait(self._requests, timeout=CLOSE_SECONDS)
        for task in late:
            logger.warning("cut short at the end: %s", task.get_name())
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=CLOSE_SECONDS)

    def _begin_request(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)
        return task

    async def _answer(self, request: Request, caller: Caller) -> Reply:
        if self._ending:
            raise NodeUnreachable("The node is ending.", "Start it again and ask then.")
        return await self._handle(request, caller)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count += 1
        connection = _Connection(
            reader,
            writer,
            f"view-{self._count}",
            answer=self._answer,
            begin=self._begin_request,
            news=self._news,
        )
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = connection
        try:
            if await connection.greet(self._token, lambda: not self._ending):
                await connection.run()
        except (OSError, EOFError):
            logger.debug("%s broke off", connection.name, exc_info=True)
        finally:
            del self._connections[task]
            writer.close()


class _Connection:
    """One view: reads requests, runs them side by side, and writes what comes of them."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        name: str,
        *,
        answer: Handler,
        begin: Callable[[Coroutine[None, None, None], str], asyncio.Task[None]],
        news: Callable[[], Iterable[Event]],
    ) -> None:
        """`begin` starts a request as a task that somebody else owns."""
        self.name = name
        self.is_view = False
        """True once it has shown the token, unless it only looks whether a node is there."""
        self.subscribed = False
        self._reader = reader
        self._writer = writer
        self._handle = answer
        self._begin = begin
        self._news = news
        self._caller = Caller(name)
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting_bytes = 0
        self._requests: set[asyncio.Task[None]] = set()
        self._free = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._closing = asyncio.Event()
        self._over = False

    async def run(self) -> None:
        """Serve the connection until either side ends it; what it has begun goes on."""
        writing = asyncio.create_task(self._write_lines(), name=f"{self.name} writes")
        reading = asyncio.create_task(self._read_lines(), name=f"{self.name} reads")
        closing = asyncio.create_task(self._closing.wait(), name=f"{self.name} closes")
        try:
            await asyncio.wait({writing, reading, closing}, return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()
            if self._requests and not writing.done():
                await asyncio.wait(set(self._requests), timeout=CLOSE_SECONDS)
            self._lines.put_nowait(None)
            await asyncio.wait({writing}, timeout=CLOSE_SECONDS)
        finally:
            self._over, self.subscribed = True, False
            pending = {writing, reading, closing}
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    def put(self, line: bytes) -> None:
        """Queue a line; a reader that lets too many pile up is dropped."""
        if self._over:
            return
        self._waiting_bytes += len(line)
        if self._lines.qsize() >= QUEUE_LINES or self._waiting_bytes > QUEUE_BYTES:
            logger.warning("%s reads too slowly and is dropped", self.name)
            self._writer.transport.abort()
            self.subscribed = False
            return
        self._lines.put_nowait(line)

    def begin_close(self) -> None:
        """Read no further; what runs may finish."""
        self._closing.set()

    async def greet(self, token: str, welcome: Callable[[], bool]) -> bool:
        """Whether it has shown the token, while anybody is `welcome`."""
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                line = await self._reader.readline()
        except (TimeoutError, ValueError):
            return False
        if not line or not welcome():
            return False
        number = None
        try:
            opened = decode(line)
            number = opened.id
            answer = self._check(opened.message, token)
        except SuperbloomError as error:
            logger.warning("a connection was refused: %s", error.message)
            await self._write(encode(error, number))
            return False
        await self._write(encode(answer, number))
        return True

    def _check(self, hello: object, token: str) -> Welcome:
        if not isinstance(hello, Hello) or not hmac.compare_digest(
            hello.token.encode(), token.encode()
        ):
            raise ControlRefused("The node was not shown the right token.")
        if hello.protocol != PROTOCOL:
            raise OtherVersion(
                f"The running node is another version of Superbloom ({__version__}).",
                f"End it (process {os.getpid()}) and start the program again.",
            )
        self.is_view = hello.client != FINDER
        self._caller = Caller(self.name, hello.client)
        return Welcome(version=__version__, protocol=PROTOCOL, client=self.name)

    async def _read_lines(self) -> None:
        while True:
            await self._free.acquire()
            try:
                line = await self._reader.readline()
                if not line.endswith(b"\n"):
                    return
                envelope = CODEC.open(line)
            except (OSError, EOFError):
                return
            except ValueError:
                self.put(encode(ControlRefused("A line is too long for the wire.")))
                return
            except ControlRefused as error:
                self.put(encode(error))
                return
            task = self._begin(self._answer(envelope), f"{self.name} {envelope.type[:40]}")
            self._requests.add(task)
            task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        self._free.release()

    async def _answer(self, envelope: Envelope) -> None:
        try:
            reply = await self._reply(envelope)
            line = encode(reply, envelope.id)
        except SuperbloomError as error:
            line = encode(error, envelope.id)
        except Exception as error:
            logger.exception("%s failed", envelope.type)
            line = encode(
                SuperbloomError(f"Something went wrong inside the node: {type(error).__name__}."),
                envelope.id,
            )
        self.put(line)

    async def _reply(self, envelope: Envelope) -> Reply:
        message = CODEC.read(envelope)
        if isinstance(message, Subscribe):
            self.subscribed = True
            for event in self._news():
                self.put(encode(event))
            return Done()
        if isinstance(message, Hello) or not isinstance(message, Request):
            raise ControlRefused(f"{envelope.type} is not a request.")
        return await self._handle(message, self._caller)

    async def _write_lines(self) -> None:
        with contextlib.suppress(OSError):
            while (line := await self._lines.get()) is not None:
                self._waiting_bytes -= len(line)
                await self._write(line)

    async def _write(self, line: bytes) -> None:
        self._writer.write(line)
        await self._writer.drain()
