"""A network inside one process, for tests: the transport's twin, with the failures of the real one.

Links can be slow or narrow, reset, cut (reset and refused), partitioned (what is sent waits unseen,
as in TCP, until the link heals), and peers can be killed. One event loop, no threads, no randomness
but the seed's, so a test runs the same way every time.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import math
import random
import time
from collections.abc import Coroutine, Mapping, Sequence
from enum import Enum, auto
from typing import Any, TypeVar

from superbloom.domain.errors import NetworkFailed, PeerLost, SuperbloomError, error_from_code
from superbloom.swarm.memory_stream import MemoryStream, check_size
from superbloom.swarm.transport import (
    MAX_CALL_BYTES,
    CallHandler,
    RecordCheck,
    Stream,
    StreamHandler,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

_Ends = frozenset[str]
"""The two peers of a link, or one peer for all of its links."""


class _Break(Enum):
    CUT = auto()
    PARTITION = auto()


class MemoryNetwork:
    """Peers that reach each other over links, all healthy and without delay at first.

    Wherever a method takes two peers, leaving the second out means all links of the first.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._peers: dict[str, MemoryTransport] = {}
        self._secrets: dict[str, bytes] = {}
        self._delays: dict[_Ends, float] = {}
        self._rates: dict[_Ends, float] = {}
        self._breaks: dict[_Ends, _Break] = {}
        self._streams: list[MemoryStream] = []
        self._table: dict[str, dict[str, tuple[bytes, float]]] = {}
        self.default_delay = 0.0

    def join(self, peer_id: str | None = None) -> MemoryTransport:
        """A new peer's transport. Needs a running event loop only when used."""
        peer = peer_id or f"peer{len(self._secrets) + 1}-{self._random.randbytes(4).hex()}"
        if peer in self._peers:
            raise ValueError(f"{peer} is in the network already")
        self._secrets.setdefault(peer, self._random.randbytes(32))
        self._peers[peer] = MemoryTransport(self, peer)
        return self._peers[peer]

    def delay(self, seconds: float, a: str, b: str | None = None) -> None:
        """Let everything on the link take `seconds` one way, from the next frame on."""
        self._delays[_ends(a, b)] = seconds

    def limit(self, bytes_per_second: float, a: str, b: str | None = None) -> None:
        """Let every stream of the link carry so much each way, from the next frame on."""
        self._rates[_ends(a, b)] = bytes_per_second

    def reset(self, a: str, b: str | None = None) -> None:
        """Reset the open streams of a link; new ones can be opened."""
        ends = _ends(a, b)
        for stream in [s for s in self._streams if ends <= {s.owner, s.peer}]:
            stream.lose("The stream was reset.")

    def cut(self, a: str, b: str | None = None) -> None:
        """Reset the streams of a link and refuse new ones and calls until it heals."""
        self._breaks[_ends(a, b)] = _Break.CUT
        self.reset(a, b)

    def partition(self, a: str, b: str | None = None) -> None:
        """From now on nothing comes through, both ways, and nobody is told, until it heals."""
        self._breaks[_ends(a, b)] = _Break.PARTITION

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """Undo cuts and partitions of a link, of a peer, or (no argument) all of them."""
        wanted = _ends(a, b) if a is not None else frozenset()
        self._breaks = {ends: how for ends, how in self._breaks.items() if not wanted <= ends}
        for stream in list(self._streams):
            stream.deliver()

    def kill(self, peer: str) -> None:
        """End a peer at once, as a dead process does: its streams are reset at both ends."""
        if transport := self._peers.pop(peer, None):
            self.reset(peer)
            transport.stop_working()

    def stream_count(self) -> int:
        """How many stream ends are open: for tests that look for leaks."""
        return len(self._streams)

    # --- what transports and streams ask ----------------------------------------------------

    def has(self, peer: str) -> bool:
        return peer in self._peers

    def delay_of(self, a: str, b: str) -> float:
        found = (self._delays.get(ends) for ends in (_ends(a, b), _ends(a), _ends(b)))
        return next((seconds for seconds in found if seconds is not None), self.default_delay)

    def rate_of(self, a: str, b: str) -> float:
        found = (self._rates.get(ends) for ends in (_ends(a, b), _ends(a), _ends(b)))
        return next((rate for rate in found if rate is not None), math.inf)

    def is_partitioned(self, a: str, b: str) -> bool:
        return self._broken(a, b) is _Break.PARTITION

    async def reach(self, caller: str, peer: str) -> MemoryTransport:
        """The other side after one way's delay; waits while partitioned. Raises PeerLost."""
        self._expect_alive(caller)
        if caller == peer:
            raise PeerLost("A peer cannot reach itself over the network.", peer=peer)
        if delay := self.delay_of(caller, peer):
            await asyncio.sleep(delay)
        if self.is_partitioned(caller, peer):
            await asyncio.Event().wait()
        if peer not in self._peers or self._broken(caller, peer) is _Break.CUT:
            raise PeerLost("The other computer cannot be reached.", peer=peer)
        return self._peers[peer]

    def connect(self, caller: str, callee: str) -> tuple[MemoryStream, MemoryStream]:
        near = MemoryStream(self, caller, callee)
        far = MemoryStream(self, callee, caller)
        near.other, far.other = far, near
        self._streams += (near, far)
        return near, far

    def forget(self, stream: MemoryStream) -> None:
        if stream in self._streams:
            self._streams.remove(stream)

    def leave(self, peer: str) -> None:
        """The same as a kill to the others, but their open streams end in good order."""
        self._peers.pop(peer, None)

    def store(self, peer: str, key: str, subkey: str, value: bytes, lifetime: float) -> bool:
        if not self._is_connected(peer):
            return False
        self._table.setdefault(key, {})[subkey] = (value, time.monotonic() + lifetime)
        return True

    def find(self, peer: str, key: str) -> dict[str, bytes]:
        if not self._is_connected(peer):
            return {}
        now = time.monotonic()
        found = self._table.get(key, {})
        return {subkey: value for subkey, (value, expires) in found.items() if expires > now}

    def sign(self, peer: str, payload: bytes) -> bytes:
        return hmac.digest(self._secrets.get(peer, b"nobody's"), payload, hashlib.sha256)

    def _is_connected(self, peer: str) -> bool:
        return peer in self._peers and _ends(peer) not in self._breaks

    def _expect_alive(self, peer: str) -> None:
        if peer not in self._peers:
            raise PeerLost("This peer has left the network.", peer=peer)

    def _broken(self, a: str, b: str) -> _Break | None:
        found = [self._breaks[e] for e in (_ends(a, b), _ends(a), _ends(b)) if e in self._breaks]
        return found[0] if found else None


class MemoryTransport:
    """A peer's place in a MemoryNetwork: `swarm.transport.Transport`."""

    def __init__(self, network: MemoryNetwork, peer_id: str) -> None:
        self._network = network
        self._peer_id = peer_id
        self._call_handlers: dict[str, CallHandler] = {}
        self._stream_handlers: dict[str, StreamHandler] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def peer_id(self) -> str:
        return self._peer_id

    @property
    def addresses(self) -> tuple[str, ...]:
        return (f"/memory/p2p/{self._peer_id}",)

    @property
    def failure(self) -> NetworkFailed | None:
        return None if self._network.has(self._peer_id) else NetworkFailed("The peer was ended.")

    def learn_addresses(self, peer: str, addresses: Sequence[str]) -> None:
        """Nothing to do: ids are addresses here."""

    async def meet(self, addresses: Sequence[str]) -> bool:
        peers = [address.rpartition("/")[2] for address in addresses]
        return any([await self._reaches(peer) for peer in peers])

    async def _reaches(self, peer: str) -> bool:
        try:
            async with asyncio.timeout(1.0):
                await self._network.reach(self._peer_id, peer)
        except (PeerLost, TimeoutError):
            return False
        return True

    def handle_call(self, service: str, handler: CallHandler) -> None:
        self._call_handlers[service] = handler

    def handle_stream(self, service: str, handler: StreamHandler) -> None:
        self._stream_handlers[service] = handler

    def check_records(self, check: RecordCheck) -> None:
        """Nothing to do: here everybody sees what anybody has written."""

    async def call(self, peer: str, service: str, payload: bytes, *, timeout: float) -> bytes:
        check_size(payload, MAX_CALL_BYTES)
        try:
            async with asyncio.timeout(timeout):
                callee = await self._network.reach(self._peer_id, peer)
                answer = await callee.answer(self._peer_id, service, payload)
                await self._network.reach(self._peer_id, peer)
        except TimeoutError:
            raise PeerLost("The other computer did not answer in time.", peer=peer) from None
        if isinstance(answer, SuperbloomError):
            raise answer
        return answer

    async def open_stream(self, peer: str, service: str, *, timeout: float) -> Stream:
        try:
            async with asyncio.timeout(timeout):
                callee = await self._network.reach(self._peer_id, peer)
        except TimeoutError:
            raise PeerLost("The other computer cannot be reached.", peer=peer) from None
        near, far = self._network.connect(self._peer_id, peer)
        callee.accept(service, far)
        return near

    async def store(self, key: str, subkey: str, value: bytes, *, lifetime: float) -> bool:
        await asyncio.sleep(0)
        return self._network.store(self._peer_id, key, subkey, bytes(value), lifetime)

    async def find(self, key: str) -> Mapping[str, bytes]:
        await asyncio.sleep(0)
        return self._network.find(self._peer_id, key)

    def sign(self, payload: bytes) -> bytes:
        return self._network.sign(self._peer_id, payload)

    def verify(self, peer: str, payload: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(signature, self._network.sign(peer, payload))

    async def close(self) -> None:
        self._network.leave(self._peer_id)
        self.stop_working()
        own = asyncio.current_task()
        await asyncio.gather(*(t for t in self._tasks if t is not own), return_exceptions=True)
        self._network.reset(self._peer_id)

    # --- the other side's doing -------------------------------------------------------------

    def stop_working(self) -> None:
        """Cancel what runs for other peers."""
        for task in self._tasks:
            task.cancel()

    async def answer(self, caller: str, service: str, payload: bytes) -> bytes | SuperbloomError:
        """Run the handler of a call; an error comes back as it crosses a wire."""
        work = self._own(self._answer(caller, service, payload), f"call {service}")
        await asyncio.wait([work])
        if work.cancelled():
            return PeerLost("The other computer went away.", peer=self._peer_id)
        return work.result()

    async def _answer(self, caller: str, service: str, payload: bytes) -> bytes | SuperbloomError:
        if (handler := self._call_handlers.get(service)) is None:
            return PeerLost("The other computer does not offer this service.", peer=self._peer_id)
        try:
            reply = await handler(caller, payload)
            check_size(reply, MAX_CALL_BYTES)
        except SuperbloomError as error:
            return error_from_code(error.code, error.message, error.next_step)
        except Exception:  # a request loop: the caller must hear something
            logger.exception("answering a call of %s failed", service)
            return SuperbloomError("The other computer could not answer.")
        return reply

    def accept(self, service: str, stream: MemoryStream) -> None:
        """Run the handler of an incoming stream."""
        self._own(self._serve(service, stream), f"stream {service}")

    async def _serve(self, service: str, stream: MemoryStream) -> None:
        try:
            if handler := self._stream_handlers.get(service):
                await handler(stream)
        except SuperbloomError as error:
            logger.info("a stream of %s ended: %s", service, error)
        except Exception:  # a request loop: other streams go on
            logger.exception("serving a stream of %s failed", service)
        finally:
            await stream.close()

    def _own(self, work: Coroutine[object, object, T], name: str) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=f"{self._peer_id} {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _ends(a: str, b: str | None = None) -> _Ends:
    return frozenset((a,) if b is None else (a, b))
