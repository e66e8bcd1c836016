"""One server process seen from the node: started, talked to, ended, and why it ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence

from superbloom.control.codec import MAX_LINE_BYTES
from superbloom.domain.errors import SuperbloomError
from superbloom.node.serving.server_wire import ORDERS, REPORTS, Order, Report, Stop

logger = logging.getLogger(__name__)

LAST_WORDS = 30
"""Lines of the console that are kept to explain an end."""

POLITE_SECONDS = 8.0
"""A server asked to leave says goodbye to the swarm in this time."""

FIRM_SECONDS = 2.0
"""Between SIGTERM and SIGKILL."""

LOOK_AGAIN = 1.0
"""How often to look whether a process that says nothing is still there, in seconds."""


class ServerChild:
    """A running server process. Made by `start`; `end` must be awaited in every case."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._console = asyncio.create_task(self._read_console(), name="server console")

    @classmethod
    async def start(cls, command: Sequence[str]) -> ServerChild:
        """Start `command` in a process group of its own. Raises OSError when it cannot."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MAX_LINE_BYTES,
            start_new_session=True,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, order: Order) -> None:
        """Pass an order on; a server that is gone hears nothing, its end is noticed elsewhere."""
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._process.stdin.write(ORDERS.encode(order))

    async def reports(self, *, silent_after: float) -> AsyncIterator[Report | SuperbloomError]:
        """What the server says until it ends; TimeoutError when it says nothing for so long.

        An error is the reason for which the server is about to end. Lines that are no reports
        (a library that prints) go to the log.
        """
        while line := await self._line(silent_after):
            try:
                said = REPORTS.decode(line).message
            except SuperbloomError as error:
                logger.warning("the server process wrote what is no report: %s", error.message)
                continue
            yield said

    async def end(self) -> str:
        """Make sure that the process and everything it started is gone; why it ended, in words."""
        try:
            if self._process.returncode is None:
                self.send(Stop())
                self._close_stdin()
                if not await self._gone_within(POLITE_SECONDS):
                    self._signal(signal.SIGTERM)
                    if not await self._gone_within(FIRM_SECONDS):
                        logger.warning("the server process %d does not end: killed", self.pid)
        finally:
            self._kill_group()
        await self._process.wait()
        await self._empty_pipes()
        return self._reason()

    async def ended(self, timeout: float) -> bool:
        """True once the process has ended by itself within `timeout` seconds."""
        return await self._gone_within(timeout)

    def last_words(self) -> str:
        """The end of what the process wrote to its console."""
        return "\n".join(self._last_words)

    def _reason(self) -> str:
        code = self._process.returncode
        assert code is not None
        if code == 0:
            return "The server process ended."
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            guess = (
                ", most likely by the system for lack of memory"
                if name == "SIGKILL"
                else " (a fault in native code)"
                if name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE")
                else ""
            )
            return f"The server process was ended by {name}{guess}."
        words = next((line for line in reversed(self._last_words) if line.strip()), "")
        return f"The server process failed with code {code}" + (f": {words}" if words else ".")

    async def _line(self, silent_after: float) -> bytes:
        """The next line, empty at the end. A process the server left behind may hold the pipe."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + silent_after
        while True:
            try:
                async with asyncio.timeout(min(LOOK_AGAIN, silent_after)):
                    return await self._process.stdout.readline()
            except ValueError:  # longer than MAX_LINE_BYTES: the reader has dropped it
                logger.warning("the server process wrote a line that is too long")
            except TimeoutError:
                if self._process.returncode is not None:
                    return b""
                if time.monotonic() >= deadline:
                    raise

    async def _read_console(self) -> None:
        assert self._process.stderr is not None
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            self._last_words.append(text)
            logger.info("server: %s", text)

    async def _empty_pipes(self) -> None:
        """Read what is left, so that the pipes close."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._close_stdin()
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(FIRM_SECONDS):
                while await self._process.stdout.read(1 << 16):
                    pass
                await self._console
                await self._process.stdin.wait_closed()
        self._console.cancel()

    async def _gone_within(self, seconds: float) -> bool:
        """Looks at the return code: `wait` may wait for pipes that others hold."""
        deadline = time.monotonic() + seconds
        while self._process.returncode is None:
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    def _close_stdin(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._process.stdin.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _kill_group(self) -> None:
        """Whatever the server left running (its network daemon, if it crashed) goes with it."""
        if sys.platform == "win32":
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
