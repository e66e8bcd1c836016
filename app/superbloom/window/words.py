"""Figures as people say them."""

from __future__ import annotations

from datetime import datetime

from superbloom.domain.model_card import Precision
from superbloom.domain.sampling import EndReason

PRECISION_WORDS: dict[Precision, str] = {
    Precision.FP32: "32 bits, exact",
    Precision.BF16: "16 bits (bf16)",
    Precision.FP16: "16 bits (fp16)",
    Precision.INT8: "8 bits",
    Precision.NF4: "4 bits",
}

END_WORDS: dict[EndReason, str] = {
    EndReason.END_OF_TEXT: "",
    EndReason.STOP_STRING: "",
    EndReason.LENGTH: "reached its length limit",
    EndReason.CONTEXT_FULL: "the model's context is full",
    EndReason.STOPPED: "stopped",
    EndReason.FAILED: "broke off",
}


def size_words(size: int) -> str:
    """Bytes in decimal units, as disks and downloads are sold."""
    amount = float(size)
    for unit in ("bytes", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB" if amount < 1000 else f"{amount / 1000:.1f} TB"


def count_words(count: int, one: str, many: str = "") -> str:
    """`1 server`, `3 servers`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}".replace(",", "\u202f")


def parameter_words(parameters: int) -> str:
    """How large a model is: `135 M`, `70.6 B`."""
    if parameters >= 1_000_000_000:
        return f"{parameters / 1e9:.3g} B parameters"
    return f"{parameters / 1e6:.0f} M parameters"


def speed_words(tokens_per_second: float) -> str:
    """Tokens a second with as many digits as mean something; empty when not known."""
    if tokens_per_second <= 0:
        return ""
    digits = 0 if tokens_per_second >= 100 else 1
    return f"{tokens_per_second:.{digits}f} tokens/s"


def latency_words(seconds: float | None) -> str:
    """A round trip in milliseconds; a dash when not measured."""
    if seconds is None:
        return "–"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"


def when_words(moment: float, now: float) -> str:
    """A time in the past, shorter the closer it is: `14:05`, `Monday`, `3 May`."""
    then, today = datetime.fromtimestamp(moment), datetime.fromtimestamp(now)
    days = (today.date() - then.date()).days
    if days <= 0:
        return f"{then:%H:%M}"
    if days == 1:
        return "Yesterday"
    if days < 7:
        return f"{then:%A}"
    day = f"{then.day} {then:%b}"
    return day if then.year == today.year else f"{day} {then.year}"
