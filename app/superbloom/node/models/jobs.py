"""Work on models' files that is under way: one piece a model, its progress and end told."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from superbloom.control.messages import Event, ModelProgress
from superbloom.domain.errors import InputRejected, SuperbloomError
from superbloom.node.daemon_thread import in_daemon_thread
from superbloom.storage.atomic_file import storage_error
from superbloom.storage.fetching import FetchCancelled, FetchWatch

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.2
"""At most five progress events a second for a model."""

CLOSE_SECONDS = 3.0
"""A download that stalls notices only later that it was cancelled."""

Work = Callable[[FetchWatch], None]
"""Runs in a thread; raises SuperbloomError, OSError, or FetchCancelled when its watch says so."""


@dataclass(slots=True)
class _Job:
    """`task` ends with None or a SuperbloomError."""

    task: asyncio.Task[None]
    watch: FetchWatch


class ModelJobs:
    """Runs the work in threads; `notify` hears ModelProgress, `changed` is called after each."""

    def __init__(
        self, notify: Callable[[Event], None], changed: Callable[[], Awaitable[None]]
    ) -> None:
        self._notify = notify
        self._changed = changed
        self._jobs: dict[str, _Job] = {}

    @property
    def models(self) -> tuple[str, ...]:
        """The models that are worked on."""
        return tuple(self._jobs)

    def runs(self, model: str) -> bool:
        """True if the model's files are being worked on."""
        return model in self._jobs

    def running(self, model: str) -> asyncio.Task[None] | None:
        """The work under way, which ends with None or a SuperbloomError."""
        job = self._jobs.get(model)
        return job.task if job else None

    def begin(self, model: str, work: Work, words: str) -> asyncio.Task[None]:
        """Begin `work`, called `words`, on a model that nothing else works on."""
        loop = asyncio.get_running_loop()
        last = 0.0

        def tell(done: int, total: int, doing: str) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= PROGRESS_SECONDS:
                last = now
                event = ModelProgress(model=model, done_bytes=done, total_bytes=total, words=doing)
                loop.call_soon_threadsafe(self._notify, event)

        watch = FetchWatch(tell)
        task = asyncio.create_task(self._run(model, work, watch, words), name=f"{words}: {model}")
        self._jobs[model] = _Job(task, watch)
        # Nobody need await it: its failure has been told as an event.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def cancel(self, model: str) -> None:
        """End the work on a model, if any, and wait for its end."""
        job = self._jobs.get(model)
        if job is not None:
            job.watch.cancelled.set()
            await asyncio.wait([job.task])

    async def close(self) -> None:
        """Cancel all work and wait for it, a little; what does not end by then is left behind."""
        jobs = tuple(self._jobs.values())
        for job in jobs:
            job.watch.cancelled.set()
        if jobs:
            _ended, late = await asyncio.wait([job.task for job in jobs], timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _run(self, model: str, work: Work, watch: FetchWatch, words: str) -> None:
        logger.info("%s: %s", words, model)
        self._notify(ModelProgress(model=model, done_bytes=0, total_bytes=0, words=words))
        failure: SuperbloomError | None = None
        cancelled = False
        try:
            await in_daemon_thread(lambda: work(watch), name=words)
            logger.info("%s: %s: done", words, model)
        except FetchCancelled:
            logger.info("%s: %s: cancelled", words, model)
            cancelled = True
            failure = InputRejected("Cancelled.", "What is here is kept for the next time.")
        except SuperbloomError as error:
            logger.error("%s: %s: %s", words, model, error)
            failure = error
        except OSError as error:
            logger.exception("%s: %s", words, model)
            failure = storage_error(Path(error.filename or model), error)
        except Exception:  # a boundary: a fault of ours must not leave the view waiting
            logger.exception("%s: %s", words, model)
            failure = SuperbloomError(f"{words} failed by a fault of the program.")
        self._end(model, failure, cancelled=cancelled)
        await self._changed()
        if failure is not None:
            raise failure

    def _end(self, model: str, failure: SuperbloomError | None, *, cancelled: bool) -> None:
        """The work is over: tell it at once, so that no list of the models is heard before it."""
        self._jobs.pop(model, None)
        self._notify(
            ModelProgress(
                model=model,
                done_bytes=0,
                total_bytes=0,
                words="Done" if failure is None else failure.message,
                finished=True,
                error="" if failure is None else failure.message,
                next_step="" if failure is None else failure.next_step,
                cancelled=cancelled,
            )
        )
