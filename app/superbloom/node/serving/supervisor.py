"""Keeps a server process running while the owner shares: starts, watches, restarts, ends it."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from superbloom.domain.errors import (
    BudgetTooSmall,
    InputRejected,
    ModelError,
    SuperbloomError,
)
from superbloom.domain.sharing import ShareRequest, ShareState, ShareStatus
from superbloom.node.serving.server_child import ServerChild
from superbloom.node.serving.server_wire import (
    Alive,
    Drain,
    Draining,
    EnterSwarm,
    Loading,
    Report,
    Serving,
    StartServing,
)

logger = logging.getLogger(__name__)

HOPELESS = (ModelError, BudgetTooSmall, InputRejected)
"""Errors that a restart does not cure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the supervisor waits for what, in seconds."""

    backoff: tuple[float, ...] = (1.0, 2.0, 5.0, 15.0, 60.0)
    """Before each restart after a quick crash; after the last one it gives up."""
    quick: float = 60.0
    """A server that lived longer begins anew with the first back-off."""
    silent_after: float = 60.0
    drain: float = 600.0


def server_command(data_dir: str) -> tuple[str, ...]:
    """The command that starts a supervised server of this installation."""
    module = (sys.executable, "-P", "-m", "superbloom")  # -P: no modules of the current folder
    return (*module, "serve", "--supervised", "--data-dir", data_dir)


class Supervisor:
    """At most one server process at a time. `tell` hears every change of the status."""

    def __init__(
        self,
        command: Sequence[str],
        tell: Callable[[ShareStatus], None],
        *,
        patience: Patience | None = None,
    ) -> None:
        self._command = tuple(command)
        self._tell = tell
        self._patience = patience or Patience()
        self._status = ShareStatus(state=ShareState.OFF, wanted=False)
        self._order: StartServing | None = None
        self._swarm: EnterSwarm | None = None
        self._child: ServerChild | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: SuperbloomError | None = None
        self._closed = False

    @property
    def status(self) -> ShareStatus:
        return self._status

    @property
    def server_pid(self) -> int | None:
        """The running server's process id, None while there is none."""
        return None if self._child is None else self._child.pid

    async def start(self, order: StartServing) -> None:
        """Serve by this order from now on; a server that runs by another one is ended first."""
        await self._end_task()
        if self._closed:
            return
        self._order = order
        self._set(_beginning(order.request))
        self._task = asyncio.create_task(self._keep_running(), name="server supervisor")

    async def enter_swarm(self, swarm: EnterSwarm) -> None:
        """Tell the server, and every later one, whom to serve.

        A server that is in another swarm is replaced: what that swarm needs may differ.
        """
        before, self._swarm = self._swarm, swarm
        if self._child is not None and before is None:
            self._child.send(swarm)
        elif before not in (None, swarm) and self._order is not None and self._status.wanted:
            await self.start(self._order)

    def say(self, state: ShareState, request: ShareRequest, reason: str) -> None:
        """Give a state in which no server runs yet, in words."""
        self._set(replace(_beginning(request), state=state, reason=reason))

    async def stop(self, *, drain: bool = False) -> ShareStatus:
        """End the server; with `drain` once its open sessions are done. Nothing is left running."""
        child, task = self._child, self._task
        if drain and child is not None and self._status.state is ShareState.SERVING:
            seconds = self._patience.drain
            self._set(replace(self._status, state=ShareState.DRAINING, wanted=False, reason=""))
            child.send(Drain(seconds=seconds))
            if not await child.ended(seconds + 10.0):
                logger.warning("the server did not finish draining")
            if self._task is not task:  # asked to share again meanwhile
                return self._status
        await self.end()
        self._set(ShareStatus(state=ShareState.OFF, wanted=False))
        return self._status

    async def end(self) -> None:
        """End the server, if any, before another order: nobody hears that sharing is off."""
        await self._end_task()
        self._order = None

    async def close(self) -> None:
        """End the server without a word to the views; no later order starts one again."""
        self._closed = True
        self._tell = _nobody
        await self._end_task()

    async def _end_task(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep_running(self) -> None:
        """Start the server again and again, later each time it crashes quickly."""
        quick_crashes = 0
        while True:
            began = time.monotonic()
            reason = await self._run_once()
            if not self._status.wanted:  # drained: `stop` says the rest
                return
            if isinstance(self._failure, HOPELESS):
                self._set(_failed(self._status, self._failure.message, self._failure.next_step))
                return
            if self._failure is not None:
                reason = self._failure.message
            if time.monotonic() - began > self._patience.quick:
                quick_crashes = 0
            if quick_crashes == len(self._patience.backoff):
                self._set(_failed(self._status, reason, "Turn sharing on again to try once more."))
                return
            wait = self._patience.backoff[quick_crashes]
            quick_crashes += 1
            logger.warning("%s Starting it again in %g s.", reason, wait)
            words = f"{reason} Starting again in {wait:g} s."
            self._set(replace(self._status, state=ShareState.RESTARTING, reason=words, sessions=0))
            await asyncio.sleep(wait)
            self._set(replace(self._status, state=ShareState.STARTING, reason=reason))

    async def _run_once(self) -> str:
        """One server's life; why it ended, in words. Cancelled, it leaves nothing running."""
        assert self._order is not None
        self._failure = None
        try:
            child = await ServerChild.start(self._command)
        except OSError as error:
            return f"The server process could not be started: {error.strerror}."
        logger.info("server process %d started", child.pid)
        self._child = child
        reason = ""
        try:
            child.send(self._order)
            if self._swarm is not None:
                child.send(self._swarm)
            async for report in child.reports(silent_after=self._patience.silent_after):
                self._take(report)
            if not await child.ended(self._patience.silent_after):
                reason = "The server process closed its reports but did not end."
        except TimeoutError:
            reason = f"The server process was silent for {self._patience.silent_after:g} s."
        finally:
            self._child = None
            end = await child.end()
        logger.info("server process %d is gone: %s", child.pid, reason or end)
        return reason or end

    def _take(self, report: Report | SuperbloomError) -> None:
        match report:
            case Loading():
                percent = 100 * report.done // max(1, report.total)
                self._set(
                    replace(
                        self._status,
                        state=ShareState.LOADING,
                        reason=f"Loading blocks {report.span}: {percent} %.",
                        span=report.span,
                        precision=report.precision,
                        device=report.device,
                    )
                )
            case Serving():
                self._set(
                    replace(
                        self._status,
                        state=ShareState.SERVING,
                        reason="",
                        span=report.span,
                        precision=report.precision,
                        device=report.device,
                        memory_bytes=report.memory_bytes,
                        peer=report.peer,
                    )
                )
            case Draining():
                state = ShareState.DRAINING
                self._set(replace(self._status, state=state, sessions=report.sessions))
            case Alive():
                served = report.tokens_served
                self._set(replace(self._status, sessions=report.sessions, tokens_served=served))
            case SuperbloomError():
                logger.error("the server failed: %s", report)
                self._failure = report

    def _set(self, status: ShareStatus) -> None:
        if status != self._status:
            self._status = status
            self._tell(status)


def _beginning(request: ShareRequest) -> ShareStatus:
    return ShareStatus(
        state=ShareState.STARTING,
        wanted=True,
        model=request.model,
        span=request.span,
        precision=request.precision,
        device=request.device or "",
    )


def _failed(status: ShareStatus, reason: str, next_step: str) -> ShareStatus:
    words = f"{reason} {next_step}"
    return replace(status, state=ShareState.FAILED, reason=words, sessions=0, peer="")


def _nobody(_status: ShareStatus) -> None:
    """Hears nothing."""
