"""`superbloom serve`: a server of its own in a terminal, without a node."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from superbloom.domain.budget import in_words
from superbloom.domain.errors import NodeRunning, SuperbloomError
from superbloom.domain.invite import Invite, encode_invite
from superbloom.machine.lock import FolderLock
from superbloom.node.invite_addresses import LOOPBACK, host_of
from superbloom.node.network import connect
from superbloom.node.serving.serve_arguments import ServeStart, parser, prepare
from superbloom.node.serving.server_life import ServerLife
from superbloom.node.serving.server_wire import (
    Alive,
    Draining,
    EnterSwarm,
    Loading,
    Report,
    Serving,
)
from superbloom.node.stop_signals import stop_signals
from superbloom.node.swarm import Entry
from superbloom.storage.logs import start_logging
from superbloom.storage.paths import DataFolder
from superbloom.swarm.transport import Transport

logger = logging.getLogger(__name__)

FAILED = 1
INTERRUPTED = 130

DRAIN_SECONDS = 60.0
"""How long open answers may go on after the first Ctrl-C."""

INVITE_SECONDS = 7 * 24 * 3600.0


def run_alone(arguments: Sequence[str]) -> NoReturn:
    """Serve until Ctrl-C, SIGTERM or the end of the terminal, then end the process."""
    given = parser().parse_args(arguments)
    data = DataFolder.at(given.data_dir)
    try:
        data.ensure()
        with _own_identity(data) as identity:
            start_logging(data.server_log, stderr=given.verbose)
            start = prepare(given, data)
            asyncio.run(_serve(start, data, identity, as_json=given.json))
    except SuperbloomError as error:
        logger.error("the server ends: %s", error)
        sys.stderr.write(f"superbloom: {error.message}\n  {error.next_step}\n")
        _end(FAILED)
    except KeyboardInterrupt:
        _end(INTERRUPTED)
    _end(0)


def _end(code: int) -> NoReturn:
    """End the process now: threads that load or compute are left behind."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _serve(start: ServeStart, data: DataFolder, identity: str, *, as_json: bool) -> None:
    loop = asyncio.get_running_loop()
    say = _say_aside if as_json else _say
    entering: asyncio.Future[EnterSwarm] = loop.create_future()
    entering.set_result(start.swarm)

    async def enter(swarm: EnterSwarm) -> Transport:
        host, _, port = swarm.listen.rpartition(":")
        entry = Entry(identity=identity, host=host, port=int(port), bootstrap=swarm.bootstrap)
        transport = await connect(data, entry)
        if start.invites:
            code = _invite(swarm, transport.addresses)
            _say(json.dumps({"invite": code}) if as_json else f"Others join with: {code}")
        return transport

    life = ServerLife(start.order, connect=enter, report=_Console(start.order.request.model, say))
    drains: list[asyncio.Task[None]] = []

    def leave() -> None:
        if drains:
            life.leave()
            return
        drains.append(asyncio.create_task(life.drain(DRAIN_SECONDS), name="drain"))

    for number in stop_signals():
        with contextlib.suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, leave)
    try:
        await life.run(entering)
    finally:
        for drain in drains:
            drain.cancel()
        await asyncio.gather(*drains, return_exceptions=True)
    say("The server has left.")


class _Console:
    """Says reports as lines."""

    def __init__(self, model: str, say: Callable[[str], None]) -> None:
        self._model = model
        self._say = say
        self._loading = False

    def __call__(self, report: Report) -> None:
        match report:
            case Loading() if not self._loading:
                self._loading = True
                self._say(
                    f"Loading blocks {report.span} of {self._model} in {report.precision.value} "
                    f"on {report.device}."
                )
            case Serving():
                self._say(
                    f"Serving blocks {report.span} of {self._model} in {report.precision.value} "
                    f"with {in_words(report.memory_bytes)} as {report.peer}. Ctrl-C to leave."
                )
            case Draining():
                self._say(
                    f"Leaving; {report.sessions} open sessions may end first. Ctrl-C again to "
                    "leave at once."
                )
            case Alive() | Loading():
                return


def _invite(swarm: EnterSwarm, addresses: Sequence[str]) -> str:
    outer = tuple(a for a in addresses if host_of(a) not in LOOPBACK)
    return encode_invite(
        Invite(
            name=swarm.name,
            secret=bytes.fromhex(swarm.secret),
            addresses=outer or tuple(addresses),
            expires_at=time.time() + INVITE_SECONDS,
        )
    )


@contextlib.contextmanager
def _own_identity(data: DataFolder) -> Iterator[str]:
    """An identity of this data folder that no other server uses: `serve-1`, `serve-2`, ..."""
    number = 1
    while True:
        name = f"serve-{number}"
        try:
            lock = FolderLock.acquire(data.identity(name).with_suffix(".lock"))
        except NodeRunning:
            number += 1
            continue
        with lock:
            yield name
        return


def _say(line: str) -> None:
    """Print a line; a terminal that is gone must not keep the server from leaving."""
    with contextlib.suppress(OSError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _say_aside(line: str) -> None:
    """The same on stderr, where stdout is for programs."""
    with contextlib.suppress(OSError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
