"""Signals that wait for the end of a block."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from superbloom.cli.interrupts import held_back

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals to itself")


def test_a_signal_takes_effect_at_the_end_of_the_block() -> None:
    before = signal.getsignal(signal.SIGINT)
    reached = False
    with pytest.raises(KeyboardInterrupt):
        with held_back():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            reached = True
        pytest.fail("the signal was lost")
    assert reached
    assert signal.getsignal(signal.SIGINT) is before


def test_without_a_signal_nothing_happens() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with held_back():
        pass
    assert signal.getsignal(signal.SIGTERM) is before
