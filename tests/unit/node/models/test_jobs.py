"""Work on models' files never holds up the node's end."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from superbloom.node.models import jobs as model_jobs
from superbloom.node.models.jobs import ModelJobs


def test_work_that_does_not_end_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_jobs, "CLOSE_SECONDS", 0.1)
    release = threading.Event()
    begun = threading.Event()

    async def changed() -> None:
        pass

    async def live() -> asyncio.Task[None]:
        jobs = ModelJobs(lambda _: None, changed)

        def stalled(_watch: object) -> None:
            begun.set()
            release.wait(30)

        task = jobs.begin("m", stalled, "Fetching")
        await asyncio.to_thread(begun.wait, 10)
        await jobs.close()
        return task

    before = time.monotonic()
    try:
        task = asyncio.run(live())
        assert time.monotonic() - before < 10
        assert task.cancelled()
    finally:
        release.set()
