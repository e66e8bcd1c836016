"""Runs one command of the terminal and turns what comes of it into an exit code."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from superbloom.cli.arguments import parse
from superbloom.cli.interrupts import Terminated
from superbloom.cli.terminal import WrongUsage, print_error
from superbloom.domain.errors import SuperbloomError

OK = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130
TERMINATED = 143


def main(arguments: list[str]) -> int:
    """Run the command; 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    given = parse(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code: int = given.run(given)
        sys.stdout.flush()
    except WrongUsage as error:
        print_error(error)
        return USAGE
    except SuperbloomError as error:
        print_error(error)
        return FAILED
    except Terminated:
        return TERMINATED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated
