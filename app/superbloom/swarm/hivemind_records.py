"""What may lie in the shared table: any peer can offer records, and a bad one does not get in.

hivemind decodes values long after they have come, and one that cannot be decoded ends the search of
whoever finds it. So each record is looked at when it arrives, from a peer that stores or answers.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection
from typing import Any

from hivemind.dht.protocol import DHTProtocol
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.dht.validation import DHTRecord, RecordValidatorBase
from hivemind.p2p import PeerID
from hivemind.utils.serializer import MSGPackSerializer
from hivemind.utils.timed_storage import get_dht_time

from superbloom.swarm.transport import RecordCheck

logger = logging.getLogger(__name__)

MOST_RECORD_BYTES = 16 * 1024
MOST_LIFETIME_SECONDS = 120.0
"""No record lasts longer, whoever wrote it."""

_PACKED_TEXT = frozenset((*range(0xA0, 0xC0), 0xD9, 0xDA))
_PACKED_BYTES = frozenset((0xC4, 0xC5))
"""What text and bytes of these lengths begin with in msgpack:
https://github.com/msgpack/msgpack/blob/master/spec.md"""


class RecordValidator(RecordValidatorBase):  # type: ignore[misc]  # untyped library
    """Lets in entries of dictionaries only, of bytes under a peer's id, that do not last too long.

    `check` says whether such an entry is what it should be; until it is set, any is.
    """

    def __init__(self) -> None:
        self.check: RecordCheck | None = None

    def validate(self, record: DHTRecord) -> bool:
        """True if the record may be kept or used. Never raises."""
        if not record.expiration_time <= get_dht_time() + MOST_LIFETIME_SECONDS:  # nor NaN
            return False
        subkey = _unpack(record.subkey, _PACKED_TEXT)
        value = _unpack(record.value, _PACKED_BYTES)
        if not isinstance(subkey, str) or not isinstance(value, bytes):
            return False
        return self.check is None or self.check(subkey, value, record.expiration_time)


def guard(protocol: DHTProtocol, validator: RecordValidator) -> None:
    """Have `protocol` drop bad records from what peers say, and keep the good ones beside them.

    WORKAROUND(https://github.com/learning-at-home/hivemind/blob/1.1.12/hivemind/dht/protocol.py):
    with a validator alone, one bad entry spoils a whole answer, and an answer that claims to last
    for ever ends the search before others have been asked.
    """
    call_find = protocol.call_find

    @functools.wraps(call_find)
    async def find(peer: PeerID, keys: Collection[DHTID]) -> Any:
        found = await call_find(peer, keys)
        latest = get_dht_time() + MOST_LIFETIME_SECONDS
        return found and {
            key: (item if item is not None and item.expiration_time <= latest else None, nearest)
            for key, (item, nearest) in found.items()
        }

    protocol.call_find = find
    protocol._validate_dictionary = functools.partial(_drop_bad, validator)


def _drop_bad(validator: RecordValidator, key: bytes, dictionary: object) -> bool:
    """Remove what is not valid from the dictionary; False if it is none."""
    if not isinstance(dictionary, DictionaryDHTValue):
        return False
    with dictionary.freeze():
        bad = [
            subkey
            for subkey, (value, expires_at) in dictionary.items()
            if not validator.validate(
                DHTRecord(key, MSGPackSerializer.dumps(subkey), value, expires_at)
            )
        ]
    for subkey in bad:
        del dictionary[subkey]
    return True


def _unpack(packed: object, beginnings: frozenset[int]) -> object:
    """What `packed` stands for, if it is of the kind that `beginnings` tell; else None."""
    if not isinstance(packed, bytes) or not 0 < len(packed) <= MOST_RECORD_BYTES:
        return None
    if packed[0] not in beginnings:
        return None
    try:
        return MSGPackSerializer.loads(packed)
    except ValueError:
        return None
