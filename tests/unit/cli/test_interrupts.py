"""Signals that wait for the end of a block."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from superbloom.cli.interrupts import ENDS, end_on_signals, held_back

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals to itself")


@pytest.fixture
def ends() -> Iterator[None]:
    """The handlers of a command, for one test."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDS}
    end_on_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("ends")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_takes_effect_at_the_end_of_the_block(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    reached = False
    with pytest.raises(KeyboardInterrupt):
        with held_back():
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            reached = True
        pytest.fail("the signal was lost")
    assert reached
    assert signal.getsignal(number) is before


@pytest.mark.usefixtures("ends")
def test_what_nohup_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    end_on_signals()
    with held_back():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_without_a_signal_nothing_happens() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with held_back():
        pass
    assert signal.getsignal(signal.SIGTERM) is before
