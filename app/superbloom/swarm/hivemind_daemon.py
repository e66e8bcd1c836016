"""The network daemon (hivemind's p2pd): a child process, begun, asked, watched and ended.

It is started here rather than by hivemind, to hear its words when it fails and to keep it out of
the terminal's signals. It ends by itself soon after this process dies, because then nobody holds
its persistent connection any more.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import hivemind.hivemind_cli
from hivemind.p2p import P2P, PeerID
from hivemind.p2p.p2p_daemon_bindings.control import DaemonConnector
from hivemind.p2p.p2p_daemon_bindings.utils import read_pbmsg_safe, write_pbmsg
from hivemind.proto import p2pd_pb2
from hivemind.utils.multiaddr import Multiaddr

from superbloom.domain.errors import NetworkFailed, PeerLost, PortTaken

START_SECONDS = 15.0
STOP_SECONDS = 3.0
LAST_WORDS_SECONDS = 1.0
WORDS_LENGTH = 4000
LONELY_SECONDS = 15
"""The daemon ends itself when nobody has used it for so long after its start."""

LOOPBACK = "127.0.0.1"

FOLDER_PREFIX = "superbloom-p2pd-"
"""Its sockets lie in the system's folder for passing files: their paths must be short."""

STALE_SECONDS = 120.0


class Daemon:
    """A running p2pd.

    `died` is done, with its last words, when it ends unasked or can be heard no longer.
    """

    def __init__(self, folder: Path, process: asyncio.subprocess.Process) -> None:
        self._folder = folder
        self._process = process
        self._words = ""
        self._ready = asyncio.Event()
        self._stopping = False
        self._listening: asyncio.Task[None] | None = None
        self._reading = asyncio.create_task(self._read_output(), name="p2pd output")
        self._control = Multiaddr(f"/unix{folder}/control")
        self.died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.p2p: P2P

    @classmethod
    async def start(cls, *, identity_file: Path, host: str, port: int) -> Daemon:
        """Start it, listening on TCP `host`:`port`. Raises PortTaken and NetworkFailed."""
        await asyncio.to_thread(_remove_stale_folders)
        folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        binary = importlib.resources.files(hivemind.hivemind_cli) / "p2pd"
        try:
            process = await asyncio.create_subprocess_exec(
                str(binary),
                *_arguments(folder, identity_file, host, port),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, "GOLOG_LOG_LEVEL": "error"},
                start_new_session=True,
            )
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise NetworkFailed(
                f"The network daemon cannot be started: {error}.", "Install Superbloom again."
            ) from error
        daemon = cls(folder, process)
        try:
            await daemon._attach(port)
        except BaseException:
            await daemon.stop()
            raise
        return daemon

    async def stop(self) -> None:
        """End it; when this returns the process is gone."""
        self._stopping = True
        if self._listening is not None:
            self._listening.cancel()
        if hasattr(self, "p2p"):
            await self.p2p.shutdown()
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        await self._reading
        self.died.cancel()
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- requests ---------------------------------------------------------------------------

    async def connect(self, peer: str, addresses: Sequence[str]) -> None:
        """Dial `peer` at `addresses` unless connected already. Raises PeerLost."""
        order = p2pd_pb2.ConnectRequest(
            peer=PeerID.from_base58(peer).to_bytes(), addrs=_packed_addresses(addresses)
        )
        request = p2pd_pb2.Request(type=p2pd_pb2.Request.CONNECT, connect=order)
        _reader, writer, _response = await self._ask(peer, request)
        await _close(writer)

    async def open(
        self, peer: str, protocol: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A raw stream to `peer`. Raises PeerLost."""
        order = p2pd_pb2.StreamOpenRequest(
            peer=PeerID.from_base58(peer).to_bytes(), proto=[protocol]
        )
        request = p2pd_pb2.Request(type=p2pd_pb2.Request.STREAM_OPEN, streamOpen=order)
        reader, writer, _response = await self._ask(peer, request)
        return reader, writer

    async def _ask(
        self, peer: str, request: p2pd_pb2.Request
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, p2pd_pb2.Response]:
        try:
            reader, writer = await DaemonConnector(self._control).open_connection()
        except OSError as error:
            raise NetworkFailed("The network daemon does not answer.") from error
        try:
            response = p2pd_pb2.Response()
            await write_pbmsg(writer, request)
            await read_pbmsg_safe(reader, response)
            if response.type == p2pd_pb2.Response.ERROR:
                raise PeerLost("The other computer cannot be reached.", peer=peer) from (
                    ConnectionError(response.error.msg)
                )
        except (OSError, asyncio.IncompleteReadError) as error:
            writer.transport.abort()
            raise PeerLost("The network daemon broke off.", peer=peer) from error
        except BaseException:
            writer.transport.abort()
            raise
        return reader, writer, response

    # --- the process ------------------------------------------------------------------------

    async def _attach(self, port: int) -> None:
        """Wait until it is up, then take hold of it."""
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait(
                (ready, self._reading), timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            ready.cancel()
        if not self._ready.is_set():
            if "address already in use" in self._words:
                raise PortTaken(f"Port {port} is taken by another program.")
            words = self._last_words() or f"it was not up after {START_SECONDS:.0f} s"
            raise NetworkFailed(f"The network daemon did not start: {words}")
        try:
            async with asyncio.timeout(START_SECONDS):
                self.p2p = await _attach(self._folder, self._control)
                self._listening = asyncio.create_task(self._listen(), name="p2pd connection")
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            raise NetworkFailed(
                f"The network daemon does not answer: {self._last_words() or error}"
            ) from error

    async def _listen(self) -> None:
        """Wait for the end of hivemind's connection: nothing is heard after it."""
        control = self.p2p._client.control
        await asyncio.wait(
            (control._read_task, control._write_task), return_when=asyncio.FIRST_COMPLETED
        )
        await asyncio.wait((self._reading,), timeout=LAST_WORDS_SECONDS)
        self._end("the connection to it broke")

    def _end(self, words: str) -> None:
        if not self.died.done() and not self._stopping:
            self.died.set_result(words)

    async def _read_output(self) -> None:
        """Keep the end of what it says, until it says nothing more."""
        assert self._process.stdout is not None
        while said := await self._process.stdout.read(4096):
            self._words = (self._words + said.decode(errors="replace"))[-WORDS_LENGTH:]
            if "Peer ID:" in self._words:
                self._ready.set()
        await self._process.wait()
        self._end(self._last_words() or f"exit code {self._process.returncode}")

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._words.splitlines() if line.strip()]
        return lines[-1][:300] if lines else ""


class _AwaitedCalls(dict[uuid.UUID, "asyncio.Future[bytes]"]):
    """Calls under way, without those that nobody waits for any more.

    hivemind's reading task sets the result of whatever it finds in here, and dies of one that was
    cancelled a moment ago: nothing is heard after that. It is so when an answer and its timeout
    come together, which they do on a computer that was busy.
    """

    def __contains__(self, call: object) -> bool:
        return super().__contains__(call) and not self[call].done()  # type: ignore[index]


async def _attach(folder: Path, control: Multiaddr) -> P2P:
    """hivemind's client of a daemon that somebody else has started, its socket in our folder."""
    in_folder: Any = type("P2PInFolder", (P2P,), {"_UNIX_SOCKET_PREFIX": f"/unix{folder}/"})
    p2p: P2P = await in_folder.replicate(control)
    p2p._client.control._pending_calls = _AwaitedCalls()
    return p2p


def _remove_stale_folders() -> None:
    """Remove what daemons of killed processes of ours have left: nobody listens there."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        try:
            found = folder.stat()
            if found.st_uid != os.getuid() or time.time() - found.st_mtime < STALE_SECONDS:
                continue
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1.0)
                probe.connect(str(folder / "control"))
        except (ConnectionRefusedError, FileNotFoundError):
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue


def _arguments(folder: Path, identity_file: Path, host: str, port: int) -> list[str]:
    open_to_others = host != LOOPBACK
    said: dict[str, object] = {
        "listen": f"/unix{folder}/control",
        "hostAddrs": f"/ip4/{host}/tcp/{port}",
        "id": identity_file,
        "idleTimeout": f"{LONELY_SECONDS}s",
        "dhtServer": 1,
        "tls": 1,
        "connManager": 1,
        "autoRelay": 0,
        "natPortMap": int(open_to_others),
        "autonat": int(open_to_others),
        "relay": int(open_to_others),
        "relayService": int(open_to_others),
        "persistentConnMaxMsgSize": 4 * 1024 * 1024,
    }
    return [f"-{name}={value}" for name, value in said.items()]


def _packed_addresses(addresses: Sequence[str]) -> list[bytes]:
    """As the daemon takes them: without the peer's id; what is no address is left out."""
    packed = []
    for address in addresses:
        with suppress(Exception):  # whatever the library thinks of a peer's text
            packed.append(Multiaddr(address.rpartition("/p2p/")[0] or address).to_bytes())
    return packed


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
