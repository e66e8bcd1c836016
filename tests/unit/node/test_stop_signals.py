"""By which signals a program in a terminal ends in good order."""

from __future__ import annotations

import signal
import sys

import pytest

from superbloom.node.stop_signals import stop_signals


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_a_closed_terminal_is_one_unless_nohup_has_it_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert stop_signals() == (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert stop_signals() == (signal.SIGINT, signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)
