"""A view's end of the control wire, for programs with an asyncio loop."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from superbloom.control.address import NodeAddress
from superbloom.control.codec import MAX_LINE_BYTES, decode, encode
from superbloom.control.messages import Event, Hello, Reply, Request, Welcome
from superbloom.domain.errors import ControlRefused, NodeUnreachable, SuperbloomError

R = TypeVar("R")

WAITING_EVENTS = 10_000
"""A subscriber that leaves more events than this unread loses its connection."""


class ControlClient:
    """One connection to the node; requests may overlap. Made by `connect`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.name = ""
        """What events give as the initiator of what this client asked for."""
        self.node_version = ""
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._failure: SuperbloomError | None = None
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls, address: NodeAddress, *, client: str = "", timeout: float = 5.0
    ) -> ControlClient:
        """Open a connection and show the token.

        Raises NodeUnreachable when nothing answers within `timeout` seconds, ControlRefused when
        the node does not want us.
        """
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", address.port, limit=MAX_LINE_BYTES
                )
        except (OSError, TimeoutError) as error:
            raise NodeUnreachable("No node answers.") from error
        connection = cls(reader, writer)
        connection._reading = asyncio.create_task(connection._read(), name="control client")
        try:
            hello = Hello(token=address.token, client=client)
            welcome = await connection.ask(hello, Welcome, timeout=timeout)
        except (Exception, asyncio.CancelledError):  # not GeneratorExit: no loop is left to wait in
            await connection.close()
            raise
        connection.name, connection.node_version = welcome.client, welcome.version
        return connection

    async def request(self, message: Request, timeout: float = 30.0) -> Reply:
        """Send a request and wait for its reply.

        Raises the error the node replied with, or NodeUnreachable when the connection broke off
        or no reply came within `timeout` seconds.
        """
        if self._failure is not None:
            raise self._failure
        number = next(self._numbers)
        line = encode(message, number)
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(timeout):
                self._writer.write(line)
                await self._writer.drain()
                return await answer
        except TimeoutError as error:
            raise NodeUnreachable(
                f"The node did not answer within {timeout:g} s.", "Try again, or restart it."
            ) from error
        except OSError as error:
            raise self._why() from error
        finally:
            self._waiting.pop(number, None)

    async def ask(self, message: Request, reply: type[R], timeout: float = 30.0) -> R:
        """`request` whose reply must be a `reply`; ControlRefused otherwise."""
        answer: object = await self.request(message, timeout)
        if not isinstance(answer, reply):
            raise ControlRefused(f"The node answered with {type(answer).__name__}.")
        return answer

    async def events(self) -> AsyncIterator[Event]:
        """Events in order, after a Subscribe, for one reader.

        Ends after `close`; raises NodeUnreachable when the node broke off.
        """
        while (event := await self._events.get()) is not None:
            yield event
        self._events.put_nowait(None)
        if self._failure is not None and self._reading is not None:
            raise self._failure

    async def close(self) -> None:
        """End the connection; waiting requests raise NodeUnreachable."""
        if self._reading is not None:
            reading, self._reading = self._reading, None
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        self._fail(NodeUnreachable("The connection to the node was closed."))
        self._writer.close()

    async def _read(self) -> None:
        failure: SuperbloomError = _broken()
        try:
            while (line := await self._reader.readline()).endswith(b"\n"):
                opened = decode(line)
                if opened.id is None and isinstance(opened.message, SuperbloomError):
                    failure = opened.message
                    break
                self._deliver(opened.id, opened.message)
        except SuperbloomError as error:
            failure = error
        except (OSError, EOFError, ValueError):
            pass
        finally:
            self._fail(failure)
            self._writer.close()

    def _deliver(self, number: int | None, message: Any) -> None:
        if number is None:
            if self._events.qsize() >= WAITING_EVENTS:
                raise NodeUnreachable("This view fell too far behind the node.", "Open it again.")
            self._events.put_nowait(message)
            return
        waiting = self._waiting.get(number)
        if waiting is None or waiting.done():
            return
        if isinstance(message, SuperbloomError):
            waiting.set_exception(message)
        else:
            waiting.set_result(message)

    def _why(self) -> SuperbloomError:
        return self._failure or _broken()

    def _fail(self, failure: SuperbloomError) -> None:
        if self._failure is not None:
            return
        self._failure = failure
        self._events.put_nowait(None)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(failure)


def _broken() -> NodeUnreachable:
    return NodeUnreachable(
        "The node ended or broke off.", "Start it again; its log has the reason."
    )
