"""The device's side of a server: what fits, the loaded span, its executor. Blocking; no network.

Importing this module imports torch and transformers, which takes seconds: do it in a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from superbloom.domain.budget import blocks_that_fit, careful_part, in_words, plan_memory
from superbloom.domain.errors import BudgetTooSmall, InputRejected
from superbloom.domain.model_card import ModelShape, Precision
from superbloom.domain.sharing import ShareRequest
from superbloom.domain.span import Span
from superbloom.inference.device import (
    choose_device,
    default_precision,
    describe_device,
    free_device_bytes,
    use_threads,
)
from superbloom.inference.executor import Executor
from superbloom.inference.shape import shape_of
from superbloom.inference.stage import Stage
from superbloom.inference.weights import fingerprint, read_config
from superbloom.machine.memory import free_bytes, give_back_freed_pages
from superbloom.machine.processor import usable_cores


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlan:
    """What this computer can do for a model."""

    folder: Path
    shape: ModelShape
    fingerprint: str
    precision: Precision
    device: str
    device_words: str
    memory_bytes: int
    capacity: int
    """Blocks that fit into the budget; at least one."""


def plan_host(request: ShareRequest, folder: Path) -> HostPlan:
    """Look at the model's files and the device. Raises InputRejected, BudgetTooSmall, ModelError.

    Also sets the number of threads that torch computes with.
    """
    use_threads(request.threads or usable_cores())
    shape = shape_of(read_config(folder))
    device = choose_device(request.device)
    precision = request.precision or default_precision(device)
    memory = request.memory_bytes
    if memory is None:
        on_device = free_device_bytes(device)
        free = free_bytes() if on_device is None else on_device
        memory = careful_part(free, accelerator=on_device is not None)
    capacity = blocks_that_fit(shape, precision, memory)
    if capacity == 0:
        raise BudgetTooSmall(
            f"Not one block of {request.model} in {precision.value} fits into the memory budget "
            f"of {in_words(memory)}."
        )
    if request.span is not None and request.span.end > shape.blocks:
        raise InputRejected(
            f"{request.model} has {shape.blocks} blocks, numbered from 0, so there is no span "
            f"{request.span}."
        )
    return HostPlan(
        folder=folder,
        shape=shape,
        fingerprint=fingerprint(folder),
        precision=precision,
        device=str(device),
        device_words=describe_device(device),
        memory_bytes=memory,
        capacity=capacity,
    )


@dataclass(frozen=True, slots=True)
class SpanHost:
    """A span on its device, ready for sessions."""

    executor: Executor
    memory_bytes: int
    """What weights, cache and activations may take."""


def load_span(
    plan: HostPlan, span: Span, progress: Callable[[int, int], None] | None = None
) -> SpanHost:
    """Read the weights and start the executor; `progress(done, total)` counts blocks.

    Raises BudgetTooSmall, ModelDamaged, ModelUnsupported.
    """
    memory = plan_memory(plan.shape, plan.precision, span, plan.memory_bytes)
    stage = Stage.load(
        plan.folder,
        span,
        precision=plan.precision,
        device=choose_device(plan.device),
        progress=progress,
    )
    executor = Executor(stage, cache_bytes=memory.cache_bytes)
    give_back_freed_pages()
    return SpanHost(executor, memory.total_bytes)
