"""The transport over hivemind: its libp2p daemon for calls and streams, its table for records."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hivemind.p2p import P2PContext, PeerID
from hivemind.p2p.p2p_daemon_bindings.control import P2PDaemonError, P2PHandlerError
from hivemind.p2p.p2p_daemon_bindings.datastructures import StreamInfo
from hivemind.proto.runtime_pb2 import ExpertRequest, ExpertResponse

from superbloom.domain.errors import (
    InputRejected,
    NetworkFailed,
    NoPeersReachable,
    PeerLost,
    SuperbloomError,
)
from superbloom.swarm.hivemind_daemon import Daemon
from superbloom.swarm.hivemind_identity import Identity, load_identity, verify
from superbloom.swarm.hivemind_reply import open_response, pack_error, pack_reply
from superbloom.swarm.hivemind_table import SharedTable
from superbloom.swarm.socket_stream import SocketStream
from superbloom.swarm.transport import (
    MAX_CALL_BYTES,
    CallHandler,
    RecordCheck,
    Stream,
    StreamHandler,
)

logger = logging.getLogger(__name__)

CALL_PROTOCOL = "superbloom.call.1"
STREAM_PROTOCOL = "superbloom.stream.1"

BOOTSTRAP_SECONDS = 8.0
STRAGGLER_SECONDS = 1.0
"""How long other bootstrap peers are waited for once one has answered."""

REDIAL_SECONDS = 5.2
"""For 5 s after a dial that failed the daemon does not dial the same address again."""

NOBODY_LISTENS = "refused"

MEET_SECONDS = 10.0
GREETING_SECONDS = 5.0
MOST_SERVICE_BYTES = 100
LEAVE_SECONDS = 2.0
MOST_ADDRESS_BOOK = 5000


class HivemindTransport:
    """One peer's place in a real network: `swarm.transport.Transport`."""

    def __init__(self, identity: Identity, daemon: Daemon, addresses: tuple[str, ...]) -> None:
        self._identity = identity
        self._daemon = daemon
        self._addresses = addresses
        self._table: SharedTable
        self._call_handlers: dict[str, CallHandler] = {}
        self._stream_handlers: dict[str, StreamHandler] = {}
        self._address_book: dict[str, tuple[str, ...]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False

    @classmethod
    async def start(
        cls, *, identity_file: Path, initial_peers: Sequence[str] = (), listen: str = "127.0.0.1:0"
    ) -> HivemindTransport:
        """Start a daemon that listens on `listen` (host:port) and join `initial_peers`.

        Raises PortTaken, NetworkFailed, NoPeersReachable, ClocksDiffer, InputRejected.
        """
        host, port = _parse_listen(listen)
        identity = await asyncio.to_thread(load_identity, identity_file)
        daemon = await Daemon.start(identity_file=identity_file, host=host, port=port)
        try:
            visible = await daemon.p2p.get_visible_maddrs()
            transport = cls(identity, daemon, tuple(str(address) for address in visible))
            await transport._join(initial_peers)
        except ValueError as error:
            await daemon.stop()
            raise NetworkFailed("The network daemon found no address to listen on.") from error
        except BaseException:
            await daemon.stop()
            raise
        return transport

    @property
    def peer_id(self) -> str:
        return self._identity.peer_id

    @property
    def addresses(self) -> tuple[str, ...]:
        return self._addresses

    @property
    def failure(self) -> NetworkFailed | None:
        died = self._daemon.died
        if self._closing or not died.done() or died.cancelled():
            return None
        return NetworkFailed(f"The network daemon ended: {died.result()}")

    def learn_addresses(self, peer: str, addresses: Sequence[str]) -> None:
        if len(self._address_book) < MOST_ADDRESS_BOOK or peer in self._address_book:
            self._address_book[peer] = tuple(addresses)

    async def meet(self, addresses: Sequence[str]) -> bool:
        try:
            async with asyncio.timeout(MEET_SECONDS):
                reached = await self._reach(addresses)
                peers = [address.rpartition("/p2p/")[2] for address in reached]
                return any(await asyncio.gather(*(self._table.meet(peer) for peer in peers)))
        except TimeoutError:
            return False

    def handle_call(self, service: str, handler: CallHandler) -> None:
        self._call_handlers[service] = handler

    def handle_stream(self, service: str, handler: StreamHandler) -> None:
        self._stream_handlers[service] = handler

    def check_records(self, check: RecordCheck) -> None:
        self._table.check_records(check)

    async def call(self, peer: str, service: str, payload: bytes, *, timeout: float) -> bytes:
        if len(payload) > MAX_CALL_BYTES:
            raise ValueError(f"a request of {len(payload)} bytes is too long")
        request = ExpertRequest(uid=service, metadata=payload)
        self._check_alive()
        try:
            async with asyncio.timeout(timeout):
                response = await self._call(peer, request)
        except TimeoutError:
            self._check_alive()
            raise PeerLost("The other computer did not answer in time.", peer=peer) from None
        return open_response(response, peer)

    async def open_stream(self, peer: str, service: str, *, timeout: float) -> Stream:
        self._check_alive()
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await self._open(peer)
        except TimeoutError:
            raise PeerLost("The other computer cannot be reached.", peer=peer) from None
        stream = SocketStream(peer, reader, writer)
        await stream.send(service.encode())
        return stream

    async def store(self, key: str, subkey: str, value: bytes, *, lifetime: float) -> bool:
        self._check_alive()
        return await self._table.store(key, subkey, value, lifetime)

    async def find(self, key: str) -> Mapping[str, bytes]:
        self._check_alive()
        return await self._table.find(key)

    def sign(self, payload: bytes) -> bytes:
        return self._identity.sign(payload)

    def verify(self, peer: str, payload: bytes, signature: bytes) -> bool:
        return verify(peer, payload, signature)

    async def close(self) -> None:
        if self._closing:
            return
        dead, self._closing = self.failure is not None, True
        own = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not own]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            if not dead:
                async with asyncio.timeout(LEAVE_SECONDS):
                    await self._table.close()
        except (P2PDaemonError, TimeoutError) as error:
            logger.info("the shared table was not left in good order: %r", error)
        finally:
            await self._daemon.stop()

    # --- joining ----------------------------------------------------------------------------

    async def _join(self, initial_peers: Sequence[str]) -> None:
        p2p = self._daemon.p2p
        await p2p.add_protobuf_handler(CALL_PROTOCOL, self._answer, ExpertRequest)
        await p2p.add_binary_stream_handler(STREAM_PROTOCOL, self._accept)
        reached = await self._reach(initial_peers)
        if initial_peers and not reached:
            raise NoPeersReachable("No computer of the swarm answers.")
        self._table = await SharedTable.join(p2p, reached)

    async def _reach(self, addresses: Sequence[str]) -> tuple[str, ...]:
        """Connect to peers by their addresses, all at once; an address of each that answered."""
        by_peer: dict[str, list[str]] = {}
        for address in addresses:
            peer = address.rpartition("/p2p/")[2]
            if peer != self.peer_id and _is_peer_id(peer):
                by_peer.setdefault(peer, []).append(address)
        dials = {
            asyncio.create_task(self._dial(peer, known)): known[0]
            for peer, known in by_peer.items()
        }
        try:
            await _first_success(dials)
        finally:
            for dial in dials:
                dial.cancel()
            results = await asyncio.gather(*dials, return_exceptions=True)
        for peer, known in by_peer.items():
            self.learn_addresses(peer, known)
        pairs = zip(dials.values(), results, strict=True)
        return tuple(address for address, result in pairs if result is None)

    async def _dial(self, peer: str, addresses: Sequence[str]) -> None:
        """Connect; once more if that broke off midway, as it may where computers are busy."""
        try:
            await self._daemon.connect(peer, addresses)
        except PeerLost as loss:
            logger.info("dialling %s failed: %s", peer, loss.__cause__)
            if NOBODY_LISTENS in str(loss.__cause__):
                raise
        else:
            return
        await asyncio.sleep(REDIAL_SECONDS)
        await self._daemon.connect(peer, addresses)

    # --- calls ------------------------------------------------------------------------------

    async def _call(self, peer: str, request: ExpertRequest) -> ExpertResponse:
        """Call; if the daemon does not know the way, tell it and try once more."""
        for last in (False, True):
            try:
                return await self._daemon.p2p.call_protobuf_handler(
                    _peer_id(peer), CALL_PROTOCOL, request, ExpertResponse
                )
            except (P2PDaemonError, P2PHandlerError) as error:
                if last or peer not in self._address_book:
                    raise PeerLost("The other computer cannot be reached.", peer=peer) from error
            except Exception as error:  # whatever the library thinks of a peer's bytes
                raise PeerLost("The other computer sent no proper reply.", peer=peer) from error
            await self._daemon.connect(peer, self._address_book[peer])
        raise AssertionError("unreachable")

    async def _answer(self, request: ExpertRequest, context: P2PContext) -> ExpertResponse:
        task = asyncio.current_task()
        assert task is not None
        self._own(task)
        try:
            if len(request.metadata) > MAX_CALL_BYTES:
                raise PeerLost("The request is too long.")
            if (handler := self._call_handlers.get(request.uid)) is None:
                raise PeerLost("The other computer does not offer this service.")
            reply = await handler(str(context.remote_id), request.metadata)
            if len(reply) > MAX_CALL_BYTES:
                raise ValueError(f"a reply of {len(reply)} bytes is too long")
        except SuperbloomError as error:
            return pack_error(error)
        except Exception:  # a request loop: the caller must hear something
            logger.exception("answering a call of %s failed", request.uid[:100])
            return pack_error(SuperbloomError("The other computer could not answer."))
        return pack_reply(reply)

    # --- streams ----------------------------------------------------------------------------

    async def _open(self, peer: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        _peer_id(peer)
        try:
            return await self._daemon.open(peer, STREAM_PROTOCOL)
        except PeerLost:
            if peer not in self._address_book:
                raise
        await self._daemon.connect(peer, self._address_book[peer])
        return await self._daemon.open(peer, STREAM_PROTOCOL)

    async def _accept(
        self, info: StreamInfo, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Runs in a task of its own for each incoming stream."""
        task = asyncio.current_task()
        assert task is not None
        self._own(task)
        stream = SocketStream(str(info.peer_id), reader, writer)
        service = b""
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                service = await stream.receive(MOST_SERVICE_BYTES) or b""
            if handler := self._stream_handlers.get(service.decode(errors="replace")):
                await handler(stream)
        except asyncio.CancelledError:
            if not self._closing:
                raise
        except (SuperbloomError, TimeoutError) as error:
            logger.info("a stream of %r ended: %s", service, error)
        except Exception:  # a request loop: other streams go on
            logger.exception("serving a stream of %r failed", service)
        finally:
            await stream.close()

    def _own(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _check_alive(self) -> None:
        if self._closing:
            raise NetworkFailed("This computer has left the network.")
        if failure := self.failure:
            raise failure


async def _first_success(dials: Collection[asyncio.Task[None]]) -> None:
    """Wait until one has succeeded and the others have had a little longer, or all have failed."""
    pending = set(dials)
    deadline = asyncio.get_running_loop().time() + BOOTSTRAP_SECONDS
    while pending:
        left = deadline - asyncio.get_running_loop().time()
        done, pending = await asyncio.wait(
            pending, timeout=left, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            return
        if any(dial.exception() is None for dial in done):
            deadline = min(deadline, asyncio.get_running_loop().time() + STRAGGLER_SECONDS)


def _parse_listen(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not (colon and host and port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise InputRejected(f"{listen!r} is no address to listen on.", "Give it as host:port.")
    return host, int(port)


def _is_peer_id(text: str) -> bool:
    try:
        return 30 < len(text) < 100 and bool(PeerID.from_base58(text))
    except ValueError:
        return False


def _peer_id(peer: str) -> PeerID:
    if not _is_peer_id(peer):
        raise PeerLost(f"{peer[:100]!r} is no computer's id.", peer=peer)
    return PeerID.from_base58(peer)
