"""What of a model this computer could share: how many blocks fit, and which are on its disk.

Importing this module imports torch, which takes seconds: do it in a thread.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from superbloom.domain.budget import blocks_that_fit, careful_part, in_words
from superbloom.domain.errors import (
    BudgetTooSmall,
    ServerCrashed,
    SuperbloomError,
    error_from_code,
)
from superbloom.domain.model_card import ModelShape, Precision
from superbloom.domain.sharing import ShareRequest
from superbloom.domain.span import Span
from superbloom.inference.device import CPU, choose_device, default_precision, free_device_bytes
from superbloom.inference.shape import shape_on
from superbloom.inference.weights import block_of
from superbloom.machine.memory import free_bytes
from superbloom.storage.manifest import whole_files
from superbloom.storage.model_files import INDEX_FILE, read_weight_map


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The device of a share, its memory in bytes, and the blocks that fit there: at least one."""

    device: str
    precision: Precision
    memory_bytes: int
    shape: ModelShape
    """The model's sizes on the device."""
    capacity: int


@dataclass(frozen=True, slots=True)
class Offer:
    """How many blocks fit, and the runs of blocks that are on the disk."""

    capacity: int
    here: tuple[Span, ...]


def offer_of(request: ShareRequest, shape: ModelShape, folder: Path) -> Offer:
    """Raises InputRejected, BudgetTooSmall, ModelUnsupported, ModelDamaged."""
    return Offer(budget_of(request, shape).capacity, runs_here(folder, shape.blocks))


def offer_from_node(request: ShareRequest, shape: ModelShape, folder: Path) -> Offer:
    """As `offer_of`, for a process that shall hold no memory of an accelerator.

    Asking a GPU how much it has free takes some of it until the process ends.
    """
    if request.memory_bytes is not None or choose_device(request.device) == CPU:
        return offer_of(request, shape, folder)
    return offer_of_other_process(request, shape, folder)


def offer_of_other_process(request: ShareRequest, shape: ModelShape, folder: Path) -> Offer:
    """As `offer_of`, found by a process that ends with the answer. Raises ServerCrashed as well."""
    spawned = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=spawned) as pool:
            found = pool.submit(_offer_or_error, request, shape, folder).result()
    except BrokenProcessPool as error:
        raise ServerCrashed("The look at the device failed.") from error
    if isinstance(found, Offer):
        return found
    raise error_from_code(*found)


def _offer_or_error(
    request: ShareRequest, shape: ModelShape, folder: Path
) -> Offer | tuple[str, str, str]:
    """The offer, or the code, sentence and next step of the error."""
    try:
        return offer_of(request, shape, folder)
    except SuperbloomError as error:
        return error.code, error.message, error.next_step


def budget_of(request: ShareRequest, shape: ModelShape) -> Budget:
    """Look at the device and what is free.

    Raises InputRejected, BudgetTooSmall, ModelUnsupported.
    """
    device = choose_device(request.device)
    precision = request.precision or default_precision(device)
    memory = request.memory_bytes
    if memory is None:
        on_device = free_device_bytes(device)
        free = free_bytes() if on_device is None else on_device
        memory = careful_part(free, accelerator=on_device is not None)
    shape = shape_on(device, shape)
    capacity = blocks_that_fit(shape, precision, memory)
    if capacity == 0:
        raise BudgetTooSmall(
            f"Not one block of {request.model} in {precision.value} fits into the memory budget "
            f"of {in_words(memory)}."
        )
    return Budget(
        device=str(device),
        precision=precision,
        memory_bytes=memory,
        shape=shape,
        capacity=capacity,
    )


def runs_here(folder: Path, blocks: int) -> tuple[Span, ...]:
    """The longest runs of blocks all of whose shards are in the folder, the first first.

    Raises ModelDamaged.
    """
    if not (folder / INDEX_FILE).is_file():
        return (Span(0, blocks),)  # one file has everything
    whole = whole_files(folder)
    weight_map = read_weight_map(folder)
    lacking = {block_of(tensor) for tensor, file in weight_map.items() if file not in whole}
    return _runs(block for block in range(blocks) if block not in lacking)


def _runs(blocks: Iterable[int]) -> tuple[Span, ...]:
    runs: list[Span] = []
    for block in blocks:
        if runs and runs[-1].end == block:
            runs[-1] = Span(runs[-1].start, block + 1)
        else:
            runs.append(Span(block, block + 1))
    return tuple(runs)
