"""Runs one command of the terminal and turns what comes of it into an exit code."""

from __future__ import annotations

import errno
import os
import sys

from superbloom.cli.arguments import parse
from superbloom.cli.interrupts import Terminated, end_on_signals
from superbloom.cli.terminal import WrongUsage, print_error
from superbloom.domain.errors import SuperbloomError

OK = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130

GONE = (errno.EPIPE, errno.EIO)
"""What a write fails with whose reader, or whose terminal, is not there any more."""


def main(arguments: list[str]) -> int:
    """Run the command; 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C, 128 + other signals."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    given = parse(arguments)
    end_on_signals()
    try:
        code: int = given.run(given)
        sys.stdout.flush()
    except WrongUsage as error:
        print_error(error)
        return USAGE
    except SuperbloomError as error:
        print_error(error)
        return FAILED
    except Terminated as end:
        return end.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        if error.errno not in GONE:
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        return FAILED
    return code
