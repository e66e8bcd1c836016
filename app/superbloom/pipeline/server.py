"""A server's side of the shared model: sessions opened, pushed to, drained."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Iterable
from weakref import WeakValueDictionary

from superbloom.domain.errors import PeerLost, ProtocolViolation, SessionRefused, SuperbloomError
from superbloom.domain.span import Span
from superbloom.inference.executor import Executor
from superbloom.pipeline.history import HistoryRoom
from superbloom.pipeline.messages import (
    PROTOCOL,
    PUSH_SERVICE,
    SESSION_SERVICE,
    Frame,
    Open,
    Push,
    Refused,
    decode_frame,
    encode_frame,
)
from superbloom.pipeline.served_model import ServedModel
from superbloom.pipeline.served_session import FAREWELL_SECONDS, ServedSession
from superbloom.pipeline.step_room import PeerRoom
from superbloom.pipeline.swarm_access import SwarmAccess
from superbloom.swarm.live_stream import LiveStream
from superbloom.swarm.pace import FRAMES_PER_SECOND, Pace
from superbloom.swarm.transport import Stream

log = logging.getLogger(__name__)

FIRST_FRAME_SECONDS = 10.0
"""How long a stream may stay open without saying what it is for."""

FIRST_FRAME_BYTES = 16 * 1024
"""What a stranger may say before it has shown that it belongs here."""

DRAIN_LOOK_SECONDS = 0.2
"""How often a draining server looks for sessions that have come to rest."""

SESSIONS_PER_PEER = 64
"""Sessions one client may have open at once."""

PUSHED_FRAMES_PER_SECOND = 2 * FRAMES_PER_SECOND
"""What one server may push into all its sessions here: they may be those of many clients."""


class BlockServer:
    """Answers sessions on the blocks of `span` through `executor`."""

    def __init__(
        self,
        access: SwarmAccess,
        executor: Executor,
        served: ServedModel,
        span: Span,
    ) -> None:
        self._access = access
        self._executor = executor
        self._served = served
        self._span = span
        self._sessions: dict[bytes, ServedSession] = {}
        self._per_peer: Counter[str] = Counter()
        self._rooms: dict[str, PeerRoom] = {}
        self._paces = WeakValueDictionary[str, Pace]()
        self._push_paces = WeakValueDictionary[str, Pace]()
        self._histories = HistoryRoom()
        self._farewells: set[asyncio.Task[None]] = set()
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._finished_tokens = 0

    def attach(self) -> None:
        """Accept sessions from now on."""
        self._access.transport.handle_stream(SESSION_SERVICE, self._serve_client)
        self._access.transport.handle_stream(PUSH_SERVICE, self._serve_previous)

    @property
    def sessions(self) -> int:
        """Sessions at work: those that only rest for a next turn are not counted."""
        return sum(session.parked_at is None for session in self._sessions.values())

    @property
    def tokens_served(self) -> int:
        """Tokens computed for clients since the start, open sessions included."""
        return self._finished_tokens + sum(s.tokens_served for s in self._sessions.values())

    async def drain(self, timeout: float) -> None:
        """Refuse new sessions and wait up to `timeout` seconds for those at work."""
        self._draining = True
        tellings = [session.announce_drain() for session in self._sessions.values()]
        await _say_to_all(tellings)
        try:
            async with asyncio.timeout(timeout):
                while self._sessions:
                    for session in self._resting():
                        self._end_parked(session)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(DRAIN_LOOK_SECONDS):
                            await self._empty.wait()
        except TimeoutError:
            log.warning("%d sessions are still open after %.0f s", self.sessions, timeout)

    async def close(self) -> None:
        """End the open sessions with a sentence."""
        self._draining = True
        error = SessionRefused("The server is leaving.", "The answer moves to another server.")
        refusals = [session.refuse(error) for session in self._sessions.values()]
        await _say_to_all(refusals)
        await asyncio.gather(*self._farewells)
        try:
            async with asyncio.timeout(2.0):
                await self._empty.wait()
        except TimeoutError:
            log.warning("%d sessions did not end in time", self.sessions)

    # --- streams ----------------------------------------------------------------------------

    async def _serve_client(self, raw: Stream) -> None:
        stream = LiveStream(raw, pace=self._paces.setdefault(raw.peer, Pace()))
        try:
            await self._serve_session(stream)
        except PeerLost as loss:
            log.info("A client is gone: %s", loss.message)
        except SuperbloomError as error:
            log.warning("A session from %s is refused: %s", stream.peer, error.message)
            await _refuse(stream, error)
        finally:
            await stream.close()

    async def _serve_session(self, stream: LiveStream) -> None:
        opened = await self._first_frame(stream)
        if not isinstance(opened, Open):
            raise ProtocolViolation("A client began without opening a session.")
        session_id = self._admit(opened, stream.peer)
        self._reserve(session_id, opened, stream.peer)
        session = ServedSession(
            opened,
            stream,
            access=self._access,
            executor=self._executor,
            served=self._served,
            peer_room=self._rooms.setdefault(stream.peer, PeerRoom()),
            history_room=self._histories,
            make_room=self._make_room,
        )
        self._sessions[session_id] = session
        self._per_peer[stream.peer] += 1
        self._empty.clear()
        try:
            await session.run()
        finally:
            self._executor.close(session_id)
            del self._sessions[session_id]
            self._finished_tokens += session.tokens_served
            self._per_peer[stream.peer] -= 1
            if not self._per_peer[stream.peer]:
                del self._per_peer[stream.peer], self._rooms[stream.peer]
            if not self._sessions:
                self._empty.set()

    def _reserve(self, session_id: bytes, opened: Open, client: str) -> None:
        """Reserve the session's cache. Raises SessionRefused."""
        blocks = Span(opened.start, opened.end)
        self._make_room(self._executor.missing_bytes(blocks, opened.max_tokens))
        self._executor.open(session_id, blocks, opened.max_tokens, owner=client)

    def _make_room(self, missing: int) -> None:
        """End parked sessions, the longest parked first, until that gives `missing` bytes.

        Ends none where that is not enough.
        """
        ending: list[ServedSession] = []
        for session in sorted(self._resting(), key=lambda s: s.parked_at or 0.0):
            if missing > 0:
                missing -= self._executor.reserved_bytes(session.id)
                ending.append(session)
        if missing <= 0:
            for session in ending:
                self._end_parked(session)

    def _resting(self) -> list[ServedSession]:
        return [s for s in self._sessions.values() if s.parked_at is not None]

    def _end_parked(self, session: ServedSession) -> None:
        """Free its place now; its client is told meanwhile."""
        session.parked_at = None
        self._executor.close(session.id)
        task = asyncio.create_task(session.evict(), name="end a parked session")
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)

    async def _serve_previous(self, raw: Stream) -> None:
        fresh = Pace(frames_per_second=PUSHED_FRAMES_PER_SECOND)
        stream = LiveStream(raw, pace=self._push_paces.setdefault(raw.peer, fresh))
        session: ServedSession | None = None
        try:
            push = await self._first_frame(stream)
            session = self._pushed_session(push, stream.peer)
            if not await session.previous.follow(stream):
                log.info("%s has opened a later stream to a session", stream.peer)
                await _refuse(stream, SessionRefused("A later stream has taken this one's place."))
        except PeerLost as loss:
            log.info("The previous server is gone: %s", loss.message)
        except SuperbloomError as error:
            log.warning("Steps from %s are refused: %s", stream.peer, error.message)
            if session is not None and session.previous.peer == stream.peer:
                await session.refuse(error, blame=stream.peer)
        finally:
            await stream.close()

    async def _first_frame(self, stream: LiveStream) -> Frame:
        try:
            async with asyncio.timeout(FIRST_FRAME_SECONDS):
                data = await stream.receive(FIRST_FRAME_BYTES)
        except TimeoutError:
            raise PeerLost("It opened a stream and said nothing.", peer=stream.peer) from None
        if data is None:
            raise PeerLost("It opened a stream and closed it.", peer=stream.peer)
        return decode_frame(data, hidden_size=self._served.hidden_size)

    # --- who may ----------------------------------------------------------------------------

    def _admit(self, opened: Open, client: str) -> bytes:
        """The session's id; raises when this server cannot or will not serve it."""
        session_id = _session_id(opened.session)
        if opened.protocol != PROTOCOL:
            raise ProtocolViolation(
                f"The client speaks protocol {opened.protocol}, not {PROTOCOL}."
            )
        me = self._access.transport.peer_id.encode()
        self._check_tag(opened.tag, b"session", opened.session.encode(), client.encode(), me)
        if (opened.model, opened.fingerprint) != (self._served.id, self._served.fingerprint):
            raise SessionRefused(
                f"This server holds {self._served.id}, not the client's {opened.model}.",
                "Fetch the same version of the model on both computers.",
            )
        if not opened.start < opened.end or not self._span.covers(Span(opened.start, opened.end)):
            raise SessionRefused(f"This server holds blocks {self._span} only.")
        if self._draining:
            raise SessionRefused("The server is leaving and takes no new sessions.")
        if session_id in self._sessions:
            raise SessionRefused("The session is open already.")
        if self._per_peer[client] >= SESSIONS_PER_PEER:
            raise SessionRefused(f"One client may have {SESSIONS_PER_PEER} sessions open.")
        if opened.max_tokens < 1:
            raise ProtocolViolation("The client asked for a session without room.")
        return session_id

    def _pushed_session(self, push: Frame, peer: str) -> ServedSession:
        if not isinstance(push, Push):
            raise ProtocolViolation("A server began without naming its session.")
        session_id = _session_id(push.session)
        me = self._access.transport.peer_id.encode()
        self._check_tag(push.tag, b"push", push.session.encode(), peer.encode(), me)
        session = self._sessions.get(session_id)
        if session is None or session.previous.peer != peer:
            raise SessionRefused("There is no such session here for that server.")
        return session

    def _check_tag(self, tag: str, *parts: bytes) -> None:
        try:
            raw = bytes.fromhex(tag)
        except ValueError:
            raw = b""
        if not self._access.membership.check(raw, *parts):
            raise SessionRefused(
                "The other computer does not belong to this swarm.", "Join it with an invite code."
            )


def _session_id(text: str) -> bytes:
    try:
        session_id = bytes.fromhex(text)
    except ValueError:
        session_id = b""
    if len(session_id) != 16:
        raise ProtocolViolation("A peer named a session that cannot be.")
    return session_id


async def _say_to_all(tellings: Iterable[Awaitable[None]]) -> None:
    """Tell clients what they may know, and do not wait long for those that read slowly."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FAREWELL_SECONDS):
            await asyncio.gather(*tellings, return_exceptions=True)


async def _refuse(stream: LiveStream, error: SuperbloomError) -> None:
    refusal = Refused(code=error.code, message=error.message, next_step=error.next_step)
    try:
        await stream.send(encode_frame(refusal))
    except PeerLost:
        log.info("The refused peer is gone already.")
