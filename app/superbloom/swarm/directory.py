"""Who serves what: announcements sent, gathered, verified and forgotten in time.

The shared table carries them; besides, a server tells its news at once to the peers that have
lately measured their way to it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from superbloom.domain.errors import ProtocolViolation, SuperbloomError
from superbloom.domain.observed import ObservedPace
from superbloom.domain.swarm_map import ServerInfo, ServerState
from superbloom.swarm.announcement import (
    LIFETIME_SECONDS,
    encode_announcement,
    expires_in_time,
    is_timely,
    presentable,
    read_announcement,
)
from superbloom.swarm.membership import Membership
from superbloom.swarm.round_trips import RoundTrips
from superbloom.swarm.transport import Transport

logger = logging.getLogger(__name__)

ANNOUNCE_SECONDS = 10.0
"""How often a server announces itself."""

POLL_SECONDS = 6.0
HURRIED_POLL_SECONDS = 2.0
"""How often the table is read, and how often while somebody waits for a change."""

FIND_SECONDS = 8.0
TELL_SECONDS = 2.0
ASKED_SECONDS = 120.0
"""A model that nobody has asked for this long is no longer looked after."""

LOST_SECONDS = 600.0
MOST_SERVERS = 2000
NEWS_SERVICE = "news"


@dataclass(slots=True)
class _Entry:
    """A server as last announced; `expires` by this computer's monotonic clock, in seconds."""

    info: ServerInfo
    expires: float


@dataclass(frozen=True, slots=True)
class _Lost:
    """A server that was lost: what it announced before `until` (its clock) does not count."""

    until: float
    at: float
    """By the monotonic clock."""


class Directory:
    """This peer's view of the servers in the swarm. Lives in one event loop."""

    def __init__(self, transport: Transport, membership: Membership) -> None:
        self._transport = transport
        self._membership = membership
        self._entries: dict[str, _Entry] = {}
        self._lost: dict[str, _Lost] = {}
        self._asked: dict[str, float] = {}
        self._news = asyncio.Event()
        self._hurry = asyncio.Event()
        self._hurried = 0
        self._round_trips = RoundTrips(transport, membership)
        self.observed = ObservedPace()
        """Which servers were slower than they say, for all sessions from here."""
        self.refused = 0
        """How many announcements were damaged, forged or out of range."""
        self._untimely: dict[str, float] = {}
        self._verified: OrderedDict[bytes, ServerInfo] = OrderedDict()
        transport.handle_call(NEWS_SERVICE, self._hear_news)
        transport.check_records(self._is_announcement)

    # --- a server's side --------------------------------------------------------------------

    async def announce(self, info: ServerInfo) -> bool:
        """Tell the swarm what this server is now; False if the shared table did not take it."""
        value = encode_announcement(presentable(info), self._transport, self._membership)
        stored, _listed, _told = await asyncio.gather(
            self._store(self._membership.key_of(info.model), value),
            self._store(self._membership.key_of_models(), value),
            self._tell(value),
        )
        return stored

    async def goodbye(self, info: ServerInfo) -> None:
        """Tell the swarm that this server leaves."""
        await self.announce(replace(info, state=ServerState.OFFLINE, announced_at=time.time()))

    # --- a client's side --------------------------------------------------------------------

    def servers(self, model: str) -> tuple[ServerInfo, ...]:
        """The servers of `model` that are known and not offline, by peer id."""
        self._asked[model] = time.monotonic()
        return tuple(info for info in self.all_servers() if info.model == model)

    def all_servers(self) -> tuple[ServerInfo, ...]:
        """The known servers of every model, by peer id."""
        now = time.monotonic()
        found = (entry.info for entry in self._entries.values() if entry.expires > now)
        there = (info for info in found if info.state is not ServerState.OFFLINE)
        return tuple(sorted(there, key=lambda info: info.peer))

    async def refresh(self, model: str) -> None:
        """Read the shared table now; what cannot be read leaves the view as it is."""
        self._asked[model] = time.monotonic()
        await self._read(self._membership.key_of(model))

    async def refresh_all(self) -> None:
        """Read the list of all the swarm's servers now."""
        await self._read(self._membership.key_of_models())

    async def changed(self, timeout: float, *, hurry: bool = True) -> bool:
        """Wait until the view changes; False after `timeout` seconds.

        With `hurry` the table is read more often meanwhile (by `run`).
        """
        news = self._news
        self._hurried += hurry
        if hurry:
            self._hurry.set()
        try:
            async with asyncio.timeout(timeout):
                await news.wait()
        except TimeoutError:
            return False
        finally:
            self._hurried -= hurry
        return True

    def look_soon(self) -> None:
        """Have `run` read the table at once: there is news that nobody could bring."""
        self._hurry.set()

    def round_trip(self, peer: str) -> float | None:
        """Seconds there and back, smoothed; None if not measured yet."""
        return self._round_trips.seconds(peer)

    @property
    def clocks_differ(self) -> bool:
        """True while servers speak from another time, and no more of them from ours."""
        since = time.monotonic() - LIFETIME_SECONDS
        untimely = sum(at > since for at in self._untimely.values())
        own = self._transport.peer_id
        return untimely > 0 and untimely >= sum(s.peer != own for s in self.all_servers())

    def mark_lost(self, peer: str) -> None:
        """Forget a server until it announces itself anew."""
        now = time.time()
        entry = self._entries.pop(peer, None)
        if entry is not None:  # its clock may be another one
            announced_at = entry.info.announced_at
            now = min(max(now, announced_at), announced_at + LIFETIME_SECONDS)
        elif peer in self._lost:
            now = self._lost[peer].until
        self._lost[peer] = _Lost(now, time.monotonic())
        if entry is not None:
            self._tell_change()

    async def run(self, models: Callable[[], Iterable[str]] = tuple) -> None:
        """Keep the view fresh for ever: `models` in use, those asked for lately, and the list.

        Also measures round trips. Ends by being cancelled.
        """
        async with asyncio.TaskGroup() as work:
            work.create_task(self._keep_reading(models))
            work.create_task(self._keep_measuring())

    # --- within -----------------------------------------------------------------------------

    async def _keep_reading(self, models: Callable[[], Iterable[str]]) -> None:
        read_list_at = 0.0
        while True:
            if time.monotonic() >= read_list_at:
                await self.refresh_all()
                read_list_at = time.monotonic() + ANNOUNCE_SECONDS
            await asyncio.gather(*(self._read(key) for key in self._keys_in_use(models())))
            self._forget_expired()
            await self._pause()

    async def _keep_measuring(self) -> None:
        while True:
            await self._round_trips.measure(info.peer for info in self.all_servers())
            await self.changed(HURRIED_POLL_SECONDS, hurry=False)

    async def _pause(self) -> None:
        """Wait for the next look: the long way, unless somebody is or becomes in a hurry."""
        self._hurry.clear()
        if not self._hurried:
            try:
                async with asyncio.timeout(POLL_SECONDS - HURRIED_POLL_SECONDS):
                    await self._hurry.wait()
            except TimeoutError:
                pass
        await asyncio.sleep(HURRIED_POLL_SECONDS)

    def _keys_in_use(self, models: Iterable[str]) -> list[str]:
        since = time.monotonic() - ASKED_SECONDS
        self._asked = {model: at for model, at in self._asked.items() if at > since}
        return [self._membership.key_of(model) for model in sorted({*models, *self._asked})]

    async def _store(self, key: str, value: bytes) -> bool:
        try:
            return await self._transport.store(
                key, self._transport.peer_id, value, lifetime=LIFETIME_SECONDS
            )
        except SuperbloomError:
            raise
        except Exception:  # the table is the work of others: it is written to again later
            logger.exception("writing to the shared table failed")
            return False

    async def _tell(self, value: bytes) -> None:
        """Bring the news to those who listen; who does not hear it finds it in the table."""
        await asyncio.gather(
            *(
                self._transport.call(peer, NEWS_SERVICE, value, timeout=TELL_SECONDS)
                for peer in self._round_trips.listeners()
            ),
            return_exceptions=True,
        )

    async def _hear_news(self, peer: str, value: bytes) -> bytes:
        self._take_in(peer, value, from_itself=True)
        return b""

    async def _read(self, key: str) -> None:
        try:
            async with asyncio.timeout(FIND_SECONDS):
                found = await self._transport.find(key)
        except (SuperbloomError, TimeoutError) as error:
            logger.info("the shared table could not be read: %s", str(error) or "it took too long")
            return
        except Exception:  # the table is the work of others: it is read again soon
            logger.exception("reading the shared table failed")
            return
        for peer, value in found.items():
            self._take_in(peer, value)

    def _is_announcement(self, peer: str, value: bytes, expires_at: float) -> bool:
        """Whether a record in the table is what it should be."""
        try:
            return expires_in_time(self._verify(peer, value), expires_at)
        except ProtocolViolation as error:
            logger.debug("a record of %s was refused: %s", peer[:100], error.message)
            return False

    def _verify(self, peer: str, value: bytes) -> ServerInfo:
        """The announcement in `value`, remembered: the table shows each one again and again."""
        key = hashlib.sha256(peer.encode(errors="replace") + b"\0" + value).digest()
        if (info := self._verified.get(key)) is None:
            info = read_announcement(value, peer, self._transport, self._membership)
            self._verified[key] = info
            while len(self._verified) > MOST_SERVERS:
                self._verified.popitem(last=False)
        return info

    def _take_in(self, peer: str, value: bytes, *, from_itself: bool = False) -> None:
        """Keep an announcement if it is good and newer than what is known."""
        now = time.time()
        try:
            info = self._verify(peer, value)
        except ProtocolViolation as error:
            self.refused += 1
            logger.debug("an announcement of %s was refused: %s", peer[:100], error.message)
            return
        age = self._age(info, now, from_itself=from_itself)
        if age is None or self._is_old_news(info, from_itself=from_itself):
            return
        known = self._entries.get(peer)
        if known is None and len(self._entries) >= MOST_SERVERS:
            return
        self._lost.pop(peer, None)
        expires = time.monotonic() + LIFETIME_SECONDS - age
        self._entries[peer] = _Entry(info, expires)
        self._transport.learn_addresses(peer, info.addresses)
        if known is None or replace(known.info, announced_at=0.0) != replace(
            info, announced_at=0.0
        ):
            self._tell_change()

    def _age(self, info: ServerInfo, now: float, *, from_itself: bool) -> float | None:
        """Seconds since it was announced; None, and counted, if that was in another time.

        A known server that says itself something from another time says it now: one of the two
        clocks was set.
        """
        age = now - info.announced_at
        if is_timely(info, now):
            self._untimely.pop(info.peer, None)
            return max(0.0, age)
        if from_itself or age < 0:  # others can only show old ones again
            self._untimely[info.peer] = time.monotonic()
        if from_itself and info.peer in self._entries:
            return 0.0
        self.refused += 1
        logger.debug("an announcement of %s is from another time", info.peer[:100])
        return None

    def _is_old_news(self, info: ServerInfo, *, from_itself: bool) -> bool:
        """True for what was announced before what is known, or before the server was lost.

        A server that says itself what is much older has set its clock back.
        """
        lost, known = self._lost.get(info.peer), self._entries.get(info.peer)
        if lost is not None and info.announced_at <= lost.until:
            return True
        if known is None or info.announced_at > known.info.announced_at:
            return False
        return not from_itself or known.info.announced_at - info.announced_at < LIFETIME_SECONDS

    def _forget_expired(self) -> None:
        now = time.monotonic()
        expired = [peer for peer, entry in self._entries.items() if entry.expires <= now]
        for peer in expired:
            del self._entries[peer]
        self._lost = {p: lost for p, lost in self._lost.items() if lost.at > now - LOST_SECONDS}
        since = now - LIFETIME_SECONDS
        self._untimely = {p: at for p, at in self._untimely.items() if at > since}
        if expired:
            self._tell_change()

    def _tell_change(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
