"""The device's side of a server: what fits, the loaded span, its executor. Blocking; no network.

Importing this module imports torch and transformers, which takes seconds: do it in a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from superbloom.domain.budget import in_words, plan_memory
from superbloom.domain.errors import BudgetTooSmall, InputRejected, ModelNotHere
from superbloom.domain.model_card import ModelShape, Precision
from superbloom.domain.sharing import ShareRequest
from superbloom.domain.span import Span
from superbloom.inference.device import choose_device, describe_device, use_threads
from superbloom.inference.executor import Executor
from superbloom.inference.self_check import check_family
from superbloom.inference.shape import shape_of
from superbloom.inference.stage import Stage
from superbloom.inference.weights import fingerprint, read_config
from superbloom.machine.memory import give_back_freed_pages
from superbloom.machine.processor import usable_cores
from superbloom.node.models.span_offer import budget_of, runs_here


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlan:
    """What this computer can do for a model."""

    folder: Path
    shape: ModelShape
    """The model's sizes on the device."""
    fingerprint: str
    precision: Precision
    device: str
    device_words: str
    memory_bytes: int
    threads: int
    """What a CPU computes with."""
    capacity: int
    """Blocks that fit into the budget; at least one."""
    here: tuple[Span, ...]
    """The runs of blocks that are on the disk; at least one."""


def plan_host(request: ShareRequest, folder: Path) -> HostPlan:
    """Look at the model's files and the device. Raises InputRejected, BudgetTooSmall, ModelError.

    ModelNotHere where the blocks asked for, or all blocks, are not in the folder.
    """
    config = read_config(folder)
    shape = shape_of(config)
    check_family(config)
    budget = budget_of(request, shape)
    if request.span is not None and request.span.end > shape.blocks:
        raise InputRejected(
            f"{request.model} has {shape.blocks} blocks, numbered from 0, so there is no span "
            f"{request.span}."
        )
    mark = fingerprint(folder)
    here = runs_here(folder, shape.blocks)
    if not any(run.covers(request.span or run) for run in here):
        wanted = f"Blocks {request.span}" if request.span else "The blocks"
        raise ModelNotHere(f"{wanted} of {request.model} are not on this computer.")
    return HostPlan(
        folder=folder,
        shape=budget.shape,
        fingerprint=mark,
        precision=budget.precision,
        device=budget.device,
        device_words=describe_device(choose_device(budget.device)),
        memory_bytes=budget.memory_bytes,
        threads=request.threads or usable_cores(),
        capacity=budget.capacity,
        here=here,
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
    use_threads(plan.threads)
    memory = plan_memory(plan.shape, plan.precision, span, plan.memory_bytes)

    def after_block(done: int, total: int) -> None:
        give_back_freed_pages()
        if progress is not None:
            progress(done, total)

    stage = Stage.load(
        plan.folder,
        span,
        precision=plan.precision,
        device=choose_device(plan.device),
        progress=after_block,
    )
    cache_bytes = memory.cache_bytes - max(0, stage.weight_bytes - memory.weight_bytes)
    if cache_bytes <= 0:
        raise BudgetTooSmall(
            f"Blocks {span} take {in_words(stage.weight_bytes)} of memory, more than the model's "
            "configuration says, and leave no room for sessions."
        )
    executor = Executor(stage, cache_bytes=cache_bytes, threads=plan.threads)
    give_back_freed_pages()
    return SpanHost(executor, memory.total_bytes)
