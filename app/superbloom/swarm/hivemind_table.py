"""The swarm's shared table: hivemind's Kademlia table (DHTNode) over our daemon."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping

from hivemind.dht.node import DHTNode
from hivemind.dht.protocol import ValidationError
from hivemind.dht.routing import DHTID
from hivemind.p2p import P2P, PeerID
from hivemind.utils.timed_storage import ValueWithExpiration, get_dht_time

from superbloom.domain.errors import ClocksDiffer, NoPeersReachable

logger = logging.getLogger(__name__)

WAIT_SECONDS = 3.0
STORE_SECONDS = 8.0


class SharedTable:
    """One peer's part of the table."""

    def __init__(self, node: DHTNode) -> None:
        self._node = node

    @classmethod
    async def join(cls, p2p: P2P, peers: Collection[str]) -> SharedTable:
        """Join the table of `peers` (addresses), or begin one if there are none.

        Raises ClocksDiffer and NoPeersReachable.
        """
        try:
            return cls(await _create(p2p, peers, listens=True))
        except ValidationError as error:
            if "local time" in str(error):
                raise ClocksDiffer(
                    "This computer's clock and the swarm's differ by more than 3 seconds."
                ) from error
            logger.info("others cannot call this computer; it only asks the table: %s", error)
        except RuntimeError as error:
            raise NoPeersReachable("No computer of the swarm answers.") from error
        try:
            return cls(await _create(p2p, peers, listens=False))
        except (ValidationError, RuntimeError) as error:
            raise NoPeersReachable("No computer of the swarm answers.") from error

    async def meet(self, peer: str) -> bool:
        """Share the table with a peer that can be reached; False if it does not answer."""
        known = PeerID.from_base58(peer)
        if await self._node.protocol.call_ping(known) is None:
            return False
        self._node.blacklist.register_success(known)
        return True

    async def store(self, key: str, subkey: str, value: bytes, lifetime: float) -> bool:
        """Put `value` there for `lifetime` seconds; False if nobody took it."""
        expires_at = get_dht_time() + lifetime
        try:
            async with asyncio.timeout(STORE_SECONDS):
                if await self._node.store(key, value, expires_at, subkey=subkey):
                    return True
                # a peer that had the value from another one already also says no
                return (await self.find(key)).get(subkey) == value
        except TimeoutError:
            return False

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


async def _create(p2p: P2P, peers: Collection[str], *, listens: bool) -> DHTNode:
    return await DHTNode.create(
        p2p=p2p,
        node_id=DHTID.generate(source=p2p.peer_id.to_bytes()),  # the same after a restart
        initial_peers=list(peers),
        wait_timeout=WAIT_SECONDS,
        client_mode=not listens,
        cache_nearest=0,
        cache_locally=False,
        blacklist_time=2.0,
        backoff_rate=1.5,
    )
