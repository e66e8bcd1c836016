"""This computer's swarm: entered at the start, opened by an invite, changed by a code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets as randomness
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from superbloom.control.messages import Invitation, SwarmChanged, SwarmStatus
from superbloom.domain.errors import (
    InputRejected,
    NetworkFailed,
    SecretsUnavailable,
    SwarmError,
)
from superbloom.domain.invite import Invite, decode_invite, encode_invite
from superbloom.domain.settings import Reach, SwarmSettings
from superbloom.node.invite_addresses import LOOPBACK, host_of, invite_addresses, opened_to_others
from superbloom.node.kept_settings import KeptSettings
from superbloom.node.place import NOBODY, Connect, Entry, Place, find_place
from superbloom.node.swarm_changes import SwarmChanges
from superbloom.storage.secrets import Secrets
from superbloom.swarm.directory import Directory
from superbloom.swarm.membership import Membership
from superbloom.swarm.transport import Transport

__all__ = ("LOOPBACK", "NOBODY", "SECRET_NAME", "Connect", "Entry", "Place", "SwarmService")

log = logging.getLogger(__name__)

SECRET_NAME = "swarm"
SECRET_BYTES = 32
LONGEST_INVITE_HOURS = 24 * 366
TOUCH_SECONDS = 20.0
"""How often the peers that we joined by are asked for a sign of life."""

FAILURE_SECONDS = 1.0
"""How often it is looked whether the network daemon still lives."""

DIRECTORY_SECONDS = 5.0
"""The pause before a directory that failed is started again."""

CLOCKS = (
    "This computer's clock and those of the swarm's servers differ by more than 5 seconds, so they "
    "do not see each other. Set the clocks automatically."
)


class SwarmService:
    """Owns the node's place in the network. `entered` hears of every new one before it is used."""

    def __init__(
        self,
        settings: KeptSettings,
        secrets: Secrets,
        *,
        connect: Connect,
        models: Callable[[], tuple[str, ...]],
        entered: Callable[[Place], Awaitable[None]],
        notify: Callable[[SwarmChanged], None],
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._connect = connect
        self._models = models
        self._entered = entered
        self._notify = notify
        self._place: Place | None = None
        self._problem = ""
        self._secret = b""
        self._tasks: list[asyncio.Task[None]] = []
        self._reviving: asyncio.Task[None] | None = None
        self._changes = SwarmChanges()

    @property
    def place(self) -> Place | None:
        """The present place; None before the start and while the network is down."""
        return self._place

    async def start(self) -> None:
        """Enter the swarm of the settings, or begin one. Network trouble is told, not raised."""
        async with self._changes.beginning():
            await self._recall_or_begin()
            self._changes.begun()
            await self._enter_or_retry()

    def status(self) -> SwarmStatus:
        """What views show."""
        swarm, place = self._settings.value.swarm, self._place
        if place is None:
            return SwarmStatus(name=swarm.name, reach=swarm.reach, peer="", problem=self._problem)
        servers = tuple(s for model in self._models() for s in place.directory.servers(model))
        trips = {s.peer: place.directory.round_trip(s.peer) for s in servers}
        return SwarmStatus(
            name=swarm.name,
            reach=swarm.reach,
            peer=place.transport.peer_id,
            addresses=place.transport.addresses,
            connected=not self._problem,
            problem=self._problem,
            servers=servers,
            round_trip_seconds={p: seconds for p, seconds in trips.items() if seconds is not None},
        )

    async def create_invite(
        self, hours: float, address: str, *, keep_in_file: bool = False
    ) -> Invitation:
        """A code for others, good for `hours`. Opens a local swarm unless `address` is loopback.

        Raises InputRejected, SwarmError, and SecretsUnavailable where the swarm would end with this
        node: `keep_in_file` is the consent to keep its secret in a file.
        """
        if not 0 < hours <= LONGEST_INVITE_HOURS:
            raise InputRejected("An invite is good for more than 0 hours and at most a year.")
        async with self._changes.wanted():
            await self._keep_secret(self._secret, keep_in_file)
            await self._open_to_others(address)
            place = self._expect_place()
            self._keep_port(place.transport)
            invite = Invite(
                name=self._settings.value.swarm.name,
                secret=self._secret,
                addresses=invite_addresses(
                    place.transport.addresses, self._settings.value.swarm.bootstrap, address
                ),
                expires_at=time.time() + hours * 3600,
            )
        return Invitation(code=encode_invite(invite), expires_at=invite.expires_at)

    async def join(self, code: str, *, keep_in_file: bool = False) -> SwarmStatus:
        """Leave the present swarm for the code's, once one of its peers has answered.

        Raises InviteInvalid, InviteExpired, NoPeersReachable, ClocksDiffer, SecretsUnavailable,
        NetworkFailed.
        """
        invite = decode_invite(code, time.time())
        async with self._changes.wanted():
            present = self._settings.value.swarm
            if (present.name, self._secret) == (invite.name, invite.secret):
                return self.status()
            await self._try_out(invite)
            near = all(host_of(address) in LOOPBACK for address in invite.addresses)
            joined = SwarmSettings(
                name=invite.name,
                reach=Reach.LOCAL if near else Reach.OPEN,
                port=present.port,
                address=present.address,
                bootstrap=invite.addresses,
            )
            await self._keep_secret(invite.secret, keep_in_file)
            try:
                await self._move(joined, invite.secret)
            except SwarmError:
                await self._keep_secret(self._secret)
                raise
        return self.status()

    async def leave(self) -> SwarmStatus:
        """Leave the present swarm and begin one of this computer alone. Raises NetworkFailed."""
        async with self._changes.wanted():
            await self._leave_place()
            await self._begin_swarm()
            await self._enter_or_retry()
        return self.status()

    async def close(self) -> None:
        """Leave the network, once a change of swarm that is under way is done."""
        async with self._changes.end():
            await self._leave_place()
        if self._reviving is not None:
            await asyncio.gather(self._reviving, return_exceptions=True)

    # --- which swarm ------------------------------------------------------------------------

    async def _recall_or_begin(self) -> None:
        swarm = self._settings.value.swarm
        secret: str | None = None
        try:
            secret = await asyncio.to_thread(self._secrets.get, SECRET_NAME)
        except SecretsUnavailable as error:
            log.info("The swarm's secret is not kept: %s", error.message)
        if swarm.name and secret:
            with contextlib.suppress(ValueError):
                self._secret = bytes.fromhex(secret)
                return
        if swarm.bootstrap:
            log.warning("The secret of %s is not here; a new swarm begins", swarm.name)
        await self._begin_swarm()

    async def _begin_swarm(self) -> None:
        """A swarm of this computer alone. Without a place for its secret it lasts until the end."""
        port = self._settings.value.swarm.port
        fresh = SwarmSettings(name=f"swarm-{randomness.token_hex(3)}", port=port)
        self._settings.change(lambda settings: replace(settings, swarm=fresh))
        self._secret = randomness.token_bytes(SECRET_BYTES)
        with contextlib.suppress(SecretsUnavailable):
            await self._keep_secret(self._secret)

    async def _keep_secret(self, secret: bytes, file_will_do: bool = False) -> None:
        """Keyrings may ask the user: the loop does not wait for them."""
        words = (SECRET_NAME, secret.hex())
        await asyncio.to_thread(self._secrets.set, *words, file_will_do=file_will_do)

    async def _try_out(self, invite: Invite) -> None:
        """Reach the invite's swarm with a passing identity, so that a failure costs nothing."""
        entry = Entry(identity="visitor", host="0.0.0.0", port=0, bootstrap=invite.addresses)
        transport = await self._connect(entry)
        await transport.close()

    # --- the place --------------------------------------------------------------------------

    async def _move(self, swarm: SwarmSettings, secret: bytes) -> None:
        """Enter `swarm` instead of the present one. Raises SwarmError, back where it was."""
        before, secret_before = self._settings.value.swarm, self._secret
        await self._leave_place()
        self._settings.change(lambda settings: replace(settings, swarm=swarm))
        self._secret = secret
        try:
            await self._enter()
        except SwarmError:
            self._settings.change(lambda settings: replace(settings, swarm=before))
            self._secret = secret_before
            await self._enter_or_retry()
            raise

    async def _enter(self) -> None:
        swarm = self._settings.value.swarm
        host = "0.0.0.0" if swarm.reach is Reach.OPEN else "127.0.0.1"
        entry = Entry(identity="node", host=host, port=swarm.port, bootstrap=swarm.bootstrap)
        transport, self._problem = await find_place(self._connect, entry)
        membership = Membership(swarm.name, self._secret)
        directory = Directory(transport, membership)
        self._place = Place(
            transport=transport, membership=membership, directory=directory, host=host
        )
        if swarm.reach is Reach.OPEN:
            self._keep_port(transport)
        await self._entered(self._place)
        self._tasks = [
            asyncio.create_task(self._keep_directory(directory), name="directory"),
            asyncio.create_task(self._watch(directory), name="watch the directory"),
            asyncio.create_task(self._keep_in_touch(self._place), name="keep in touch"),
            asyncio.create_task(self._notice_failure(transport), name="notice failure"),
        ]
        self._tell()

    async def _enter_or_retry(self) -> None:
        try:
            await self._enter()
        except SwarmError as error:
            self._problem = str(error)
            log.warning("The network is not there: %s", error)
            self._tell()
            self._tasks = [asyncio.create_task(self._retry(), name="enter the swarm again")]

    async def _retry(self) -> None:
        while self._place is None:
            await asyncio.sleep(TOUCH_SECONDS)
            try:
                await self._enter()
            except SwarmError as error:
                self._problem = str(error)

    async def _leave_place(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        place, self._place = self._place, None
        if place is not None:
            await place.transport.close()

    def _keep_port(self, transport: Transport) -> None:
        """Others know us by this port: take it again next time."""
        if self._settings.value.swarm.port:
            return
        port = next((int(a.split("/")[4]) for a in transport.addresses if "/tcp/" in a), 0)
        self._settings.change(
            lambda settings: replace(settings, swarm=replace(settings.swarm, port=port))
        )

    async def _keep_directory(self, directory: Directory) -> None:
        while True:
            try:
                await directory.run(self._models)
            except Exception:  # the task supervisor: without it nobody is seen any more
                log.exception("The directory failed; it is started again")
            await asyncio.sleep(DIRECTORY_SECONDS)

    async def _watch(self, directory: Directory) -> None:
        while True:
            if await directory.changed(30.0, hurry=False):
                self._tell()

    async def _keep_in_touch(self, place: Place) -> None:
        while True:
            await asyncio.sleep(TOUCH_SECONDS)
            problem = await self._trouble(place)
            if problem != self._problem:
                self._problem = problem
                log.info("%s", problem or "The swarm answers again.")
                self._tell()

    async def _trouble(self, place: Place) -> str:
        """What is wrong now, in words."""
        bootstrap = self._settings.value.swarm.bootstrap
        if bootstrap and not await place.transport.meet(bootstrap):
            return NOBODY
        if place.directory.clocks_differ:
            return CLOCKS
        return "" if bootstrap or self._problem == CLOCKS else self._problem

    async def _notice_failure(self, transport: Transport) -> None:
        while transport.failure is None:  # noqa: ASYNC110 (it has no event to wait for)
            await asyncio.sleep(FAILURE_SECONDS)
        self._reviving = asyncio.create_task(self._revive(transport), name="revive the network")

    async def _revive(self, dead: Transport) -> None:
        """Enter the swarm again after the network daemon has ended."""
        async with self._changes.turn():
            if self._place is None or self._place.transport is not dead:
                return
            log.warning("The network is gone: %s", dead.failure)
            await self._leave_place()
            await self._enter_or_retry()

    def _tell(self) -> None:
        self._notify(SwarmChanged(status=self.status()))

    # --- invites ----------------------------------------------------------------------------

    async def _open_to_others(self, address: str) -> None:
        """Let others come in, at `address` where it is given: our server announces it too."""
        present = self._settings.value.swarm
        opened = opened_to_others(present, address)
        if opened.reach is not present.reach:
            await self._move(opened, self._secret)
        elif opened != present:
            self._settings.change(lambda settings: replace(settings, swarm=opened))
            if self._place is not None:
                await self._entered(self._place)

    def _expect_place(self) -> Place:
        if self._place is None:
            raise NetworkFailed(self._problem or "The network is not there yet.")
        return self._place
