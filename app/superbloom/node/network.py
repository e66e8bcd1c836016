"""Opening this computer's place in the network: hivemind's, imported when first used."""

from __future__ import annotations

import asyncio

from superbloom.node.swarm import Entry
from superbloom.storage.paths import DataFolder
from superbloom.swarm.transport import Transport


async def connect(data: DataFolder, entry: Entry) -> Transport:
    """A peer of its own. Raises SwarmError."""
    await asyncio.to_thread(_import_hivemind)
    from superbloom.swarm.hivemind_transport import HivemindTransport  # noqa: PLC0415 (slow)

    return await HivemindTransport.start(
        identity_file=data.identity(entry.identity),
        initial_peers=entry.bootstrap,
        listen=f"{entry.host}:{entry.port}",
    )


def _import_hivemind() -> None:
    import superbloom.swarm.hivemind_transport  # noqa: F401, PLC0415 (imports torch)
