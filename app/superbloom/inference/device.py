"""The device that computes: chosen by name or by what torch finds, and its free memory."""

from __future__ import annotations

import torch

from superbloom.domain.errors import InputRejected
from superbloom.domain.model_card import Precision

CPU = torch.device("cpu")


def choose_device(name: str | None) -> torch.device:
    """The device of this name (`cpu`, `cuda`, `cuda:1`, `mps`), or the best one here for None.

    Raises InputRejected when the name is no device of this computer.
    """
    found = devices()
    if name is None:
        return found[0]
    try:
        wanted = torch.device(name)
    except RuntimeError as error:
        raise InputRejected(f"{name!r} is not the name of a device.", _choices(found)) from error
    if wanted.type == "cuda" and wanted.index is None:
        wanted = torch.device("cuda", 0)
    if wanted not in found:
        raise InputRejected(
            f"This computer has no device {name!r} that can be used.", _choices(found)
        )
    return wanted


def devices() -> tuple[torch.device, ...]:
    """What this computer can compute on, the fastest first."""
    found = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append(torch.device("mps"))
    return (*found, CPU)


def free_device_bytes(device: torch.device) -> int | None:
    """Free memory of an accelerator in bytes; None for a CPU, whose memory is the computer's."""
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        return int(free)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return None


def describe_device(device: torch.device) -> str:
    """The device in words, as others see it in the swarm."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "Apple GPU" if device.type == "mps" else "CPU"


def default_precision(device: torch.device) -> Precision:
    """bf16 on an accelerator and on a CPU with matrix units, fp32 on other CPUs.

    Without matrix units fp32 takes less time for a token and no more memory (see `cpu.half`), if
    twice as long for a prompt, and a replay after a lost server rounds finely enough in it to leave
    the text as it was.
    """
    fast = device.type != "cpu" or torch.cpu._is_amx_tile_supported()
    return Precision.BF16 if fast else Precision.FP32


def fast_cpu_dtype() -> torch.dtype:
    """What this computer's CPU multiplies matrices in faster: see `cpu_dtype`."""
    return cpu_dtype(
        bf16_dots=torch.cpu._is_avx512_bf16_supported(),
        bf16_tiles=torch.cpu._is_amx_tile_supported(),
    )


def cpu_dtype(*, bf16_dots: bool, bf16_tiles: bool) -> torch.dtype:
    """bf16 for a CPU with instructions for it (AVX-512 BF16, AMX), else fp32.

    With AVX-512 BF16 bf16 takes 0.6 of fp32's time in linear layers, from 1 to 256 rows (two Zen 4
    cores: see `cpu.packed`), and half of the memory. Without either, PyTorch emulates bf16 and is
    several times slower.
    """
    return torch.bfloat16 if bf16_dots or bf16_tiles else torch.float32


def use_threads(count: int) -> None:
    """Have the thread that calls this compute with `count` threads on the CPU.

    Threads that only pass tensors on should take 1: GNU's OpenMP keeps a team for every thread that
    ever computed with several, and lets none of them spin as soon as all teams together are larger
    than the computer (a step of 35 ms then takes 50).
    """
    torch.set_num_threads(count)
    torch.get_num_threads()  # settles it for this thread, whatever others choose for theirs


def _choices(found: tuple[torch.device, ...]) -> str:
    return f"Choose one of {', '.join(str(device) for device in found)}."
