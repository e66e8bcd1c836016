"""Cores, and sharing them."""

from __future__ import annotations

import os

import pytest

from superbloom.machine.processor import share_cores_politely, usable_cores


def test_there_is_a_core_and_no_more_than_there_are() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


def test_one_core_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3}, raising=False)
    assert usable_cores() == 1


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_waiting_threads_soon_sleep_unless_the_user_says_otherwise(
    unset: pytest.MonkeyPatch,
) -> None:
    unset.setenv("KMP_BLOCKTIME", "200")
    share_cores_politely()
    assert int(os.environ["GOMP_SPINCOUNT"]) <= 20_000
    assert os.environ["KMP_BLOCKTIME"] == "200"


def test_a_policy_of_the_users_own_is_left_alone(unset: pytest.MonkeyPatch) -> None:
    unset.setenv("OMP_WAIT_POLICY", "ACTIVE")
    share_cores_politely()
    assert "GOMP_SPINCOUNT" not in os.environ
