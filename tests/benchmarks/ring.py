"""A client and two servers in network namespaces of their own, joined by slow or narrow links."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks.swarm import Place

MEMBERS = ("client", "first", "second")
SOURCE = Path(__file__).with_name("linkemu.c")
OWN_NAMESPACE = Path("/proc/self/ns/net")
NAMESPACES = Path("/run/netns")
NEW_NETWORK = 0x40000000
"""CLONE_NEWNET of Linux: the kind of namespace that setns(2) may enter."""

END_SECONDS = 5


class Ring:
    """Every two of the members have a link; `places` says where each of them is."""

    def __init__(self, places: Sequence[Place], links: Sequence[subprocess.Popen[str]]) -> None:
        self.client, *servers = places
        self.servers: Sequence[Place] = servers
        self._links = links

    def delay(self, milliseconds: float, megabits: float = 0) -> None:
        """What every packet takes one way on every link from now on, and how much goes each way.

        `megabits` is Mbit/s; 0 is no limit.
        """
        for link in self._links:
            assert link.stdin
            link.stdin.write(f"{milliseconds} {megabits}\n")
            link.stdin.flush()


@contextlib.contextmanager
def ring() -> Iterator[Ring]:
    """A ring without delay, with this thread (and what it starts) in the client's namespace.

    The namespaces and the links are removed afterwards. Exits with a sentence where this computer
    cannot do that.
    """
    if lacking := lacks():
        raise SystemExit(f"Links cannot be emulated here: {lacking}.")
    names = [f"superbloom-{os.getpid()}-{member}" for member in MEMBERS]
    places = [
        Place(f"10.78.0.{number}", ("ip", "netns", "exec", name))
        for number, name in enumerate(names, start=1)
    ]
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="superbloom-ring-")))
        program = scratch / "linkemu"
        subprocess.run(["gcc", "-O2", "-o", str(program), str(SOURCE)], check=True)
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
        ends = [(name, place.host) for name, place in zip(names, places, strict=True)]
        links = [
            stack.enter_context(link(program, ends[a], f"link{a}{b}", ends[b]))
            for a, b in itertools.combinations(range(len(ends)), 2)
        ]
        made = Ring(places, links)
        made.delay(0)
        stack.enter_context(inside(names[0]))
        yield made


def lacks() -> str:
    """What this computer lacks for emulated links, as a clause; empty if nothing."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    missing = [program for program in ("gcc", "ip") if shutil.which(program) is None]
    return f"{' and '.join(missing)} (gcc, iproute2) must be installed" if missing else ""


@contextlib.contextmanager
def link(
    program: Path, one: tuple[str, str], device: str, other: tuple[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """A link between two ends (namespace, address); it goes away with this process."""
    process = subprocess.Popen(
        [str(program), one[0], device, one[1], other[0], device, other[1]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        if process.stdout.readline() != "up\n":
            raise SystemExit(f"The link between {one[0]} and {other[0]} does not come up.")
        yield process
    finally:
        process.kill()
        process.communicate(timeout=END_SECONDS)


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """This thread, and the threads and processes that it starts, live in a namespace."""
    with OWN_NAMESPACE.open() as before, (NAMESPACES / name).open() as there:
        enter(there.fileno())
        try:
            yield
        finally:
            enter(before.fileno())


def enter(namespace: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(namespace, NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), "setns")
