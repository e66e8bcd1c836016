"""A server process for tests of the supervisor: behaves as its first argument says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from superbloom.domain.errors import BudgetTooSmall
from superbloom.domain.model_card import Precision
from superbloom.domain.span import Span
from superbloom.node.serving.server_wire import (
    ORDERS,
    REPORTS,
    Alive,
    Drain,
    Draining,
    EnterSwarm,
    Loading,
    Serving,
    StartServing,
    Stop,
)

SPAN = Span(0, 4)


def say(report: object) -> None:
    sys.stdout.buffer.write(REPORTS.encode(report))
    sys.stdout.buffer.flush()


def orders() -> Iterator[object]:
    for line in sys.stdin.buffer:
        yield ORDERS.decode(line).message


def serve() -> None:
    for order in orders():
        match order:
            case StartServing():
                loading = {"precision": Precision.BF16, "device": "cpu", "total": 100}
                say(Loading(span=SPAN, done=50, **loading))
            case EnterSwarm():
                say(
                    Serving(
                        peer=order.name,
                        addresses=(),
                        span=SPAN,
                        precision=Precision.BF16,
                        device="cpu",
                        memory_bytes=1000,
                    )
                )
                say(Alive(sessions=1, tokens_served=7))
            case Drain():
                say(Draining(sessions=1))
                return
            case Stop():
                return


def main() -> None:
    match sys.argv[1]:
        case "good":
            serve()
        case "garbage":
            print("hello, I am a library that prints")
            sys.stdout.buffer.write(b"\xff\xfe{]\n" + b"x" * 6_000_000 + b"\n")
            sys.stdout.buffer.flush()
            serve()
        case "crash":
            print("the last thing I saw", file=sys.stderr)
            raise SystemExit(3)
        case "segfault":
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGSEGV)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hopeless":
            say(BudgetTooSmall("Not one block fits."))
            raise SystemExit(1)
        case "silent":
            time.sleep(1000)
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
            say(Alive(tokens_served=child.pid))
            time.sleep(1000)
        case "litters":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
            say(Alive(tokens_served=child.pid))
            raise SystemExit(5)


main()
