"""The threads that an executor computes with on a CPU: by ticks, and by blocks within prompts."""

from __future__ import annotations

import time

from superbloom.inference.cpu.prompt_threads import PromptThreads
from superbloom.inference.cpu.thread_count import ThreadCount
from superbloom.inference.device import use_threads


class CpuThreads:
    """At most `most`. One thread owns this; `expect_prompt` may be called from any."""

    def __init__(self, most: int) -> None:
        self._prompts = PromptThreads(most)
        self._steps = ThreadCount(most)
        self._using = 0
        self._in_prompt = False

    def expect_prompt(self) -> None:
        """A session begins, or goes on: a part of a prompt may be the next to be computed."""
        self._prompts.look(time.monotonic())

    def use(self, *, prompt: bool) -> None:
        """A tick begins, with a part of a prompt or without."""
        self._in_prompt = prompt
        self._use(prompt=prompt)

    def begin_block(self) -> None:
        """The tick goes on: a part of a prompt is long enough to look again what others take."""
        if self._in_prompt:
            self._use(prompt=True)

    def _use(self, *, prompt: bool) -> None:
        threads = self._prompts.threads(time.monotonic()) if prompt else self._steps.threads
        if threads != self._using:
            self._using = threads
            use_threads(threads)

    def note(self, tokens: int, seconds: float, *, prompt: bool) -> None:
        """The tick has computed `tokens` tokens."""
        if not prompt:
            self._steps.note(tokens, seconds, time.monotonic())
