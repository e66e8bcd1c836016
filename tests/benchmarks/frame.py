"""What every benchmark shares: options, runs in turn, the table and its JSON twin."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO, TypeVar

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
AS_STARTED = dict(os.environ)
"""The environment that the benchmark was started in: what runs beside the program gets this one."""

ENDED = 128 + signal.SIGTERM
FoundT = TypeVar("FoundT")
QUESTION = "Write a long story about a lighthouse keeper and a whale."


@dataclass(frozen=True, slots=True)
class Series:
    """The figures of one variant, in the order they were taken."""

    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        spread = f"{min(self.values):.2f} to {max(self.values):.2f}"
        return f"{self.median:.2f} {self.unit} ({spread}, {len(self.values)} runs)"


@dataclass(slots=True)
class Report:
    """What a benchmark found: series by name, and sentences that compare them with a bar."""

    title: str
    series: dict[str, Series] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def show(self) -> None:
        """Print the table."""
        width = max(map(len, self.series), default=0)
        say(f"\n{self.title}")
        for name, series in self.series.items():
            say(f"  {name.ljust(width)}  {series}")
        for finding in self.findings:
            say(f"  {finding}")

    def write(self, file: Path) -> None:
        """Keep everything, with the machine it was found on."""
        content = {**asdict(self), "machine": machine()}
        for name, series in self.series.items():
            content["series"][name]["median"] = series.median
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def options(description: str, *, runs: int) -> argparse.ArgumentParser:
    """The options that every benchmark has. From here on SIGTERM ends it as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ENDED))
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=runs, help="runs of each variant")
    parser.add_argument(
        "--threads",
        type=int,
        default=psutil.cpu_count(logical=False) or 1,
        help="threads of each process that computes (default: the cores)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("SUPERBLOOM_TEST_DATA", ROOT / "build" / "benchmarks")),
        help="a data folder with the starter model; it is fetched into it if it is not there",
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser


def superbloom(*words: str) -> list[str]:
    """The program's command line."""
    return [sys.executable, "-m", "superbloom", *words]


Variant = Callable[[int], Awaitable[FoundT]]
"""`turn -> what was found in it`; turns count from 0, those to warm up included."""


async def in_turn(
    variants: Mapping[str, Variant[FoundT]], runs: int, *, warm_up: int = 1
) -> dict[str, list[FoundT]]:
    """Run the variants one after the other, again and again, so that all meet the same machine.

    The first `warm_up` rounds do not count. The order turns round every time, so that none always
    follows the same one; the first round begins with the last variant, so that other programs have
    loaded their models before the first one learns what is quickest here.
    """
    found: dict[str, list[FoundT]] = {name: [] for name in variants}
    for turn in range(warm_up + runs):
        names = list(variants)
        for name in reversed(names) if turn % 2 == 0 else names:
            value = await variants[name](turn)
            if turn >= warm_up:
                found[name].append(value)
            shown = f"{value:.2f}" if isinstance(value, float) else str(value)
            say(f"  {name}: {shown}{' (warm-up)' if turn < warm_up else ''}", to=sys.stderr)
    return found


def series(
    unit: str, found: Mapping[str, Sequence[FoundT]], of: Callable[[FoundT], float]
) -> dict[str, Series]:
    """One figure of what `in_turn` has found, by variant."""
    return {name: Series(unit, tuple(map(of, values))) for name, values in found.items()}


def at_least(bar: float | None, found: float, what: str) -> str:
    """A finding: `what`, the figure, and whether it reaches the bar (None: there is none)."""
    if bar is None:
        return f"{what}: {found:.2f}"
    return f"{what}: {found:.2f} (bar: at least {bar:g}{'' if found >= bar else ', MISSED'})"


def at_most(bar: float | None, found: float, what: str) -> str:
    """A finding: `what`, the figure, and whether it keeps within the bar (None: there is none)."""
    if bar is None:
        return f"{what}: {found:.2f}"
    return f"{what}: {found:.2f} (bar: at most {bar:g}{'' if found <= bar else ', MISSED'})"


def machine() -> dict[str, object]:
    """What the figures were taken on."""
    libraries = ("superbloom", "torch", "transformers", "hivemind")
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": psutil.cpu_count(logical=False),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load": psutil.getloadavg()[0],
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
    }


def processor() -> str:
    """The processor's name where the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.processor()


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "source tree"


def say(text: str, *, to: TextIO | None = None) -> None:
    print(text, file=to or sys.stdout, flush=True)


def finish(report: Report, json_file: Path | None) -> None:
    """Show the report and keep it if asked for."""
    report.show()
    if json_file is not None:
        report.write(json_file)
