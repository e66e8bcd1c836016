"""A connection to the node for a program that waits: the event loop runs in a thread beside it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import queue
import sys
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from superbloom.cli.terminal import printable
from superbloom.control.address import NodeAddress
from superbloom.control.client import ControlClient
from superbloom.control.messages import Done, Event, Notice, NoticeLevel, Request, Subscribe
from superbloom.domain.errors import SuperbloomError

R = TypeVar("R")

SLICE_SECONDS = 0.2
"""Waits are cut into such pieces, so that Ctrl-C gets through on every system."""


class NodeLink:
    """Requests and events for the main thread. Raises what ControlClient raises."""

    def __init__(self, address: NodeAddress, client: str = "terminal") -> None:
        """`client` is how it presents itself to the node."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._thread.start()
        self._events: queue.SimpleQueue[Event | SuperbloomError | None] = queue.SimpleQueue()
        self._listening = False
        self._pump: concurrent.futures.Future[None] | None = None
        try:
            self._client = self._run(ControlClient.connect(address, client=client))
        except BaseException:
            self._end_loop()
            raise

    def ask(self, message: Request, reply: type[R], timeout: float = 30.0) -> R:
        """Send a request and wait for its reply."""
        return self._run(self._client.ask(message, reply, timeout))

    def begin(
        self, message: Request, reply: type[R], timeout: float
    ) -> concurrent.futures.Future[R]:
        """Send a request; its reply comes to the future."""
        return asyncio.run_coroutine_threadsafe(
            self._client.ask(message, reply, timeout), self._loop
        )

    def listen(self) -> None:
        """Collect events from now on, for `next_event`; older ones are forgotten."""
        while not self._events.empty():
            self._events.get_nowait()
        self._listening = True
        if self._pump is None:
            self._pump = asyncio.run_coroutine_threadsafe(self._collect(), self._loop)
            self.ask(Subscribe(), Done)

    def pause(self) -> None:
        """Let events pass by until `listen`."""
        self._listening = False

    def wake(self) -> None:
        """Let `next_event` return at once; may be called by a signal handler."""
        self._events.put(None)

    def next_event(self, timeout: float = SLICE_SECONDS) -> Event | None:
        """The next event, or None if none comes within `timeout` seconds or before `wake`."""
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(event, SuperbloomError):
            self._events.put(event)
            raise event
        return event

    def __enter__(self) -> NodeLink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result(2.0)
        self._end_loop()

    async def _collect(self) -> None:
        try:
            async for event in self._client.events():
                if isinstance(event, Notice):
                    _say(event)
                elif self._listening:
                    self._events.put(event)
        except SuperbloomError as error:
            self._events.put(error)

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while True:
                concurrent.futures.wait((future,), timeout=SLICE_SECONDS)
                if future.done():
                    return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def _end_loop(self) -> None:
        if self._pump is not None:
            with contextlib.suppress(TimeoutError, concurrent.futures.CancelledError):
                self._pump.result(1.0)
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_end_tasks(), self._loop).result(2.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(2.0)
        if not self._thread.is_alive():
            self._loop.close()


async def _end_tasks() -> None:
    """Cancel what an interruption has left, and let it close what it holds."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=1.0)


def _say(notice: Notice) -> None:
    """A warning or an error that belongs to no request, on stderr."""
    if notice.level is NoticeLevel.INFO:
        return
    lines = [f"superbloom: {notice.message}"]
    if notice.next_step:
        lines.append(f"  {notice.next_step}")
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""  # a line of progress may stand there
    with contextlib.suppress(OSError):
        sys.stderr.write(clear + printable("\n".join(lines)) + "\n")
        sys.stderr.flush()
