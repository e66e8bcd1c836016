"""The swarm's shared table: hivemind's Kademlia table (DHTNode) over our daemon."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping

from hivemind.dht.node import DHTNode
from hivemind.dht.protocol import ValidationError
from hivemind.dht.routing import DHTID
from hivemind.p2p import P2P, PeerID
from hivemind.utils.serializer import MSGPackSerializer
from hivemind.utils.timed_storage import ValueWithExpiration, get_dht_time

from superbloom.domain.errors import ClocksDiffer, NoPeersReachable
from superbloom.swarm.hivemind_records import RecordValidator, guard
from superbloom.swarm.transport import RecordCheck

logger = logging.getLogger(__name__)

WAIT_SECONDS = 3.0

JOIN_SECONDS = 8.0
"""How long peers are waited for through which one joins: they may be busy, and call back first."""

STORE_SECONDS = 8.0

_BAD_ANSWERS = (RuntimeError, AssertionError, ValueError)
"""What hivemind raises when nobody answers, or with something that is no answer."""


class SharedTable:
    """One peer's part of the table."""

    def __init__(self, node: DHTNode, validator: RecordValidator, *, alone: bool) -> None:
        self._node = node
        self._validator = validator
        self._alone = alone

    @classmethod
    async def join(cls, p2p: P2P, peers: Collection[str]) -> SharedTable:
        """Join the table of `peers` (addresses), or begin one if there are none.

        Raises ClocksDiffer and NoPeersReachable.
        """
        try:
            return await cls._create(p2p, peers, listens=True)
        except ValidationError as error:
            _raise_if_clocks_differ(error)
            logger.info("others cannot call this computer; it only asks the table: %s", error)
        except _BAD_ANSWERS as error:
            raise NoPeersReachable("No computer of the swarm answers.") from error
        try:
            return await cls._create(p2p, peers, listens=False)
        except (ValidationError, *_BAD_ANSWERS) as error:
            _raise_if_clocks_differ(error)
            raise NoPeersReachable("No computer of the swarm answers.") from error

    @classmethod
    async def _create(cls, p2p: P2P, peers: Collection[str], *, listens: bool) -> SharedTable:
        validator = RecordValidator()
        node = await DHTNode.create(
            p2p=p2p,
            node_id=DHTID.generate(source=p2p.peer_id.to_bytes()),  # the same after a restart
            initial_peers=list(peers),
            wait_timeout=JOIN_SECONDS,
            bootstrap_timeout=WAIT_SECONDS,  # for others once one has answered
            client_mode=not listens,
            cache_nearest=0,
            cache_locally=False,
            blacklist_time=2.0,
            backoff_rate=1.5,
            record_validator=validator,
        )
        node.protocol.wait_timeout = WAIT_SECONDS
        guard(node.protocol, validator)
        return cls(node, validator, alone=not peers)

    def check_records(self, check: RecordCheck) -> None:
        """From now on take in and find only what `check` accepts."""
        self._validator.check = check

    async def meet(self, peer: str) -> bool:
        """Share the table with a peer that can be reached; False if it does not answer."""
        known = PeerID.from_base58(peer)
        try:
            if await self._node.protocol.call_ping(known) is None:
                return False
        except Exception:  # what it answered is no answer
            logger.exception("%s did not answer a ping of the table properly", peer)
            return False
        self._node.blacklist.register_success(known)
        return True

    async def store(self, key: str, subkey: str, value: bytes, lifetime: float) -> bool:
        """Put `value` there for `lifetime` seconds; False if nobody took it.

        Our own part of the table counts only where we have begun it.
        """
        expires_at = get_dht_time() + lifetime
        try:
            async with asyncio.timeout(STORE_SECONDS):
                taken = await self._node.store(
                    key, value, expires_at, subkey=subkey, exclude_self=True
                )
                # a peer that had the value from another one already also says no
                taken = taken or (await self.find(key)).get(subkey) == value
        except TimeoutError:
            taken = False
        kept: bool = self._node.protocol.storage.store(
            DHTID.generate(source=key), MSGPackSerializer.dumps(value), expires_at, subkey=subkey
        )
        return taken or (kept and self._alone)

    async def find(self, key: str) -> Mapping[str, bytes]:
        """What anybody has put under `key`, by subkey; what has no such form is left out."""
        found = await self._node.get(key, latest=True)
        if found is None or not isinstance(found.value, Mapping):
            return {}
        return {
            subkey: item.value
            for subkey, item in found.value.items()
            if isinstance(subkey, str)
            and isinstance(item, ValueWithExpiration)
            and isinstance(item.value, bytes)
        }

    async def close(self) -> None:
        await self._node.shutdown()


def _raise_if_clocks_differ(error: Exception) -> None:
    if "local time" in str(error):
        raise ClocksDiffer(
            "This computer's clock and the swarm's differ by more than 3 seconds."
        ) from error
