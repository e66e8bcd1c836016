"""The signals by which a node or a server in a terminal is told to end in good order."""

from __future__ import annotations

import signal


def stop_signals() -> tuple[int, ...]:
    """Ctrl-C, SIGTERM and, unless nohup has it ignored, SIGHUP: the terminal was closed."""
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return (signal.SIGINT, signal.SIGTERM)
    return (signal.SIGINT, signal.SIGTERM, hangup)
