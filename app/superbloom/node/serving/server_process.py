"""The root of a server process: under a node's supervision, or alone in a terminal."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO, NoReturn

from superbloom.domain.errors import PortTaken, SuperbloomError
from superbloom.machine.processor import share_cores_politely
from superbloom.node.network import connect
from superbloom.node.serving.server_life import ServerLife
from superbloom.node.serving.server_wire import (
    ORDERS,
    REPORTS,
    Drain,
    EnterSwarm,
    Order,
    Report,
    StartServing,
    Stop,
)
from superbloom.node.swarm import Entry
from superbloom.storage.logs import start_logging
from superbloom.storage.paths import DataFolder
from superbloom.swarm.transport import Transport

logger = logging.getLogger(__name__)

FAILED = 1


def main(arguments: Sequence[str]) -> int:
    """Run a server. Ends the process itself under supervision; else gives the exit code."""
    share_cores_politely()
    if "--supervised" in arguments:
        _run_supervised(arguments)
    from superbloom.node.serving.server_alone import run_alone  # noqa: PLC0415 (only in a terminal)

    return run_alone(arguments)


def _run_supervised(arguments: Sequence[str]) -> NoReturn:
    reports = _take_stdout()
    faulthandler.enable()
    threading.Thread(target=_import_engine, name="imports", daemon=True).start()
    data = DataFolder.at(arguments[arguments.index("--data-dir") + 1])
    data.ensure()
    start_logging(data.server_log)
    code = asyncio.run(_serve_supervised(data, reports))
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)  # threads that load or compute are left behind: the process ends now


async def _serve_supervised(data: DataFolder, reports: BinaryIO) -> int:
    loop = asyncio.get_running_loop()
    orders: asyncio.Queue[Order] = asyncio.Queue()
    _read_orders(loop, orders)
    loop.add_signal_handler(signal.SIGTERM, orders.put_nowait, Stop())

    def report(said: Report | SuperbloomError) -> None:
        try:
            reports.write(REPORTS.encode(said))
        except OSError:  # the node is gone
            orders.put_nowait(Stop())

    first = await orders.get()
    if not isinstance(first, StartServing):
        return 0
    entering: asyncio.Future[EnterSwarm] = loop.create_future()
    life = ServerLife(first, connect=lambda swarm: enter(data, swarm), report=report)
    following = asyncio.create_task(_follow(orders, life, entering), name="orders")
    try:
        await life.run(entering)
    except SuperbloomError as error:
        logger.error("the server ends: %s", error)
        report(error)
        return FAILED
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    return 0


async def _follow(
    orders: asyncio.Queue[Order], life: ServerLife, entering: asyncio.Future[EnterSwarm]
) -> None:
    """Carry out orders; a drain goes on beside later ones."""
    async with asyncio.TaskGroup() as drains:
        while True:
            match await orders.get():
                case EnterSwarm() as swarm if not entering.done():
                    entering.set_result(swarm)
                case Drain(seconds=seconds):
                    drains.create_task(life.drain(seconds))
                case Stop():
                    life.leave()
                case StartServing() | EnterSwarm() as order:
                    logger.warning("an order came twice: %s", type(order).__name__)


async def enter(data: DataFolder, swarm: EnterSwarm, *, identity: str = "server") -> Transport:
    """This server's own peer in the network, by another port if its own is taken.

    Raises SwarmError.
    """
    host, _, port = swarm.listen.rpartition(":")
    entry = Entry(identity=identity, host=host, port=int(port), bootstrap=swarm.bootstrap)
    try:
        return await connect(data, entry)
    except PortTaken as error:
        if not entry.port:
            raise
        logger.warning("%s Any free one is taken instead.", error.message)
        return await connect(data, replace(entry, port=0))


def _import_engine() -> None:
    """Import what takes seconds while the orders are still on their way."""
    import superbloom.node.serving.span_host  # noqa: PLC0415
    import superbloom.pipeline.server  # noqa: F401, PLC0415


def _take_stdout() -> BinaryIO:
    """Reports go to the pipe that was stdout; what libraries print goes to stderr."""
    pipe = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return pipe


def _read_orders(loop: asyncio.AbstractEventLoop, orders: asyncio.Queue[Order]) -> None:
    """Read stdin in a thread (pipes cannot be awaited on every system); its end is a Stop."""

    def put(order: Order) -> None:
        loop.call_soon_threadsafe(orders.put_nowait, order)

    def read() -> None:
        for line in sys.stdin.buffer:
            put(ORDERS.decode(line).message)
        put(Stop())

    threading.Thread(target=read, name="orders", daemon=True).start()
