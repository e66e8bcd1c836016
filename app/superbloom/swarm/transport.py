"""What the program asks of a network: calls, streams, a shared table, signatures. Bytes only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from superbloom.domain.errors import NetworkFailed

MAX_FRAME_BYTES = 32 * 1024 * 1024
"""The largest frame a stream carries; a longer one from a peer ends the stream."""

MAX_CALL_BYTES = 1024 * 1024
"""The largest request or reply of a call."""


class Stream(Protocol):
    """A two-way stream of frames with one peer; frames arrive whole and in order, or not at all."""

    @property
    def peer(self) -> str:
        """The authenticated id of the other side."""

    @property
    def received_bytes(self) -> int:
        """Bytes that have come in so far, those of pings and unfinished frames included.

        It grows whenever the other side shows life; an empty frame counts too.
        """

    @property
    def arrival_rate(self) -> float:
        """Bytes per second at which (at least) the later half of the latest frame came in.

        The beginning of a long frame says less: a connection is slow until it has found its pace.
        Infinite for a frame that was here at once.
        """

    async def send(self, frame: bytes) -> None:
        """Send one frame of at most MAX_FRAME_BYTES. Waits only while the send buffer is full.

        Raises PeerLost if the stream is gone or its buffer stays full for 10 s.
        """

    async def receive(self, most: int = MAX_FRAME_BYTES) -> bytes | None:
        """The next frame, or None after the other side closed in good order.

        One of more than `most` bytes ends the stream before it is buffered. Raises PeerLost then,
        on a reset and after `close()`, which also ends a wait that goes on.
        A silent peer is not noticed here: see `swarm.live_stream`.
        """

    async def close(self) -> None:
        """End the stream in both directions; safe to call twice, never raises, never hangs."""


CallHandler = Callable[[str, bytes], Awaitable[bytes]]
"""`(peer, request) -> reply`; a SuperbloomError raised in it is raised at the caller."""

RecordCheck = Callable[[str, bytes, float], bool]
"""`(subkey, value, expires_at) -> bool`: whether a record may lie in the table; never raises.

`expires_at` is Unix time in seconds."""

StreamHandler = Callable[[Stream], Awaitable[None]]
"""Runs for the life of one incoming stream; the stream is closed when it returns or raises."""


class Transport(Protocol):
    """One peer's place in a network."""

    @property
    def peer_id(self) -> str:
        """This peer's id, derived from its key."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Addresses (multiaddr with /p2p/ID) at which others may reach this peer."""

    @property
    def failure(self) -> NetworkFailed | None:
        """Why this peer's place in the network is gone for good; None while all is well."""

    def learn_addresses(self, peer: str, addresses: Sequence[str]) -> None:
        """Remember where `peer` says it can be reached, for calls and streams to it."""

    async def meet(self, addresses: Sequence[str]) -> bool:
        """Try to reach the peers at `addresses` and share their table; True if one answers.

        Takes at most 10 s and never raises.
        """

    def handle_call(self, service: str, handler: CallHandler) -> None:
        """Answer calls of `service`; set before peers call."""

    def handle_stream(self, service: str, handler: StreamHandler) -> None:
        """Accept streams of `service`; set before peers open any."""

    def check_records(self, check: RecordCheck) -> None:
        """Keep and find only records that `check` accepts; set before peers store any."""

    async def call(self, peer: str, service: str, payload: bytes, *, timeout: float) -> bytes:
        """One request and its reply (each at most MAX_CALL_BYTES). `timeout` in seconds.

        Raises PeerLost when unreachable, silent or gone, else the error the handler raised.
        """

    async def open_stream(self, peer: str, service: str, *, timeout: float) -> Stream:
        """Open a stream to `peer`. Raises PeerLost when it cannot be reached within `timeout` s."""

    async def store(self, key: str, subkey: str, value: bytes, *, lifetime: float) -> bool:
        """Put `value` into the swarm's shared table for `lifetime` seconds; False if not taken."""

    async def find(self, key: str) -> Mapping[str, bytes]:
        """The unexpired values under `key` by subkey. Anybody can have written them: verify."""

    def sign(self, payload: bytes) -> bytes:
        """A signature that proves that `peer_id` wrote `payload`."""

    def verify(self, peer: str, payload: bytes, signature: bytes) -> bool:
        """True if `signature` proves that `peer` wrote `payload`; never raises on bad bytes."""

    async def close(self) -> None:
        """Leave: streams end, handlers are cancelled, child processes are gone on return."""
