"""A server's announcement as bytes: signed by the server, tagged by its swarm, checked on arrival.

    version (1 byte), tag, length of the signature (1 byte), signature, body (JSON)

The tag proves that a member of the swarm wrote the body, the signature that this very peer did.
"""

from __future__ import annotations

import json
from dataclasses import fields

from superbloom.domain.errors import ProtocolViolation, SuperbloomError
from superbloom.domain.record import from_plain, to_plain
from superbloom.domain.swarm_map import ServerInfo
from superbloom.swarm.membership import TAG_BYTES, Membership
from superbloom.swarm.transport import Transport

LIFETIME_SECONDS = 30.0
"""How long an announcement counts."""

MAX_ANNOUNCEMENT_BYTES = 8 * 1024

CLOCK_SECONDS = 5.0
"""How far another computer's clock may be off (the network itself bears 3 s)."""

_VERSION = 1
_PURPOSE = b"superbloom announcement"
_FIELDS = frozenset(field.name for field in fields(ServerInfo))

_MOST_BLOCKS = 4096
_MOST_ADDRESSES = 16
_TEXT_LENGTHS = {"peer": 100, "name": 100, "model": 200, "fingerprint": 64, "device": 100}
_TEXT_LENGTHS["version"] = 40
_ADDRESS_LENGTH = 300


def encode_announcement(info: ServerInfo, transport: Transport, membership: Membership) -> bytes:
    """The announcement of this very peer as bytes, of at most MAX_ANNOUNCEMENT_BYTES."""
    body = json.dumps(to_plain(info), separators=(",", ":")).encode()
    signature = transport.sign(_PURPOSE + body)
    tag = membership.tag(_PURPOSE, body)
    value = bytes((_VERSION,)) + tag + bytes((len(signature),)) + signature + body
    if len(value) > MAX_ANNOUNCEMENT_BYTES:
        raise ValueError(f"an announcement of {len(value)} bytes is too long")
    return value


def decode_announcement(
    value: bytes, peer: str, transport: Transport, membership: Membership, now: float
) -> ServerInfo:
    """Read what `peer` is said to have announced; `now` is Unix time.

    Raises ProtocolViolation on anything that is damaged, forged, out of range or out of date.
    """
    if not TAG_BYTES + 2 < len(value) <= MAX_ANNOUNCEMENT_BYTES or value[0] != _VERSION:
        raise ProtocolViolation("An announcement is no announcement.")
    tag, rest = value[1 : 1 + TAG_BYTES], value[1 + TAG_BYTES :]
    signature, body = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
    if not membership.check(tag, _PURPOSE, body):
        raise ProtocolViolation("An announcement does not come from this swarm.")
    if not transport.verify(peer, _PURPOSE + body, signature):
        raise ProtocolViolation("An announcement was not signed by its server.")
    info = _read(body)
    if info.peer != peer:
        raise ProtocolViolation("An announcement speaks for another server.")
    if not -CLOCK_SECONDS < now - info.announced_at < LIFETIME_SECONDS + CLOCK_SECONDS:
        raise ProtocolViolation("An announcement is out of date, or a clock is wrong.")
    return info


def _read(body: bytes) -> ServerInfo:
    try:
        plain = json.loads(body)
        if isinstance(plain, dict):  # a newer version may say more
            plain = {name: item for name, item in plain.items() if name in _FIELDS}
        info = from_plain(ServerInfo, plain)
    except (ValueError, RecursionError, SuperbloomError) as error:
        raise ProtocolViolation(f"An announcement cannot be read: {error}") from error
    if not _in_range(info):
        raise ProtocolViolation("An announcement's figures are out of range.")
    return info


def _in_range(info: ServerInfo) -> bool:
    return (
        all(_is_short_text(getattr(info, name), most) for name, most in _TEXT_LENGTHS.items())
        and info.span.end <= info.blocks <= _MOST_BLOCKS
        and 0 <= info.step_seconds <= 3600
        and 0 <= info.prefill_tokens_per_second <= 1e9
        and 0 <= info.free_cache_tokens <= 10**12
        and 0 <= info.sessions <= 10**6
        and len(info.addresses) <= _MOST_ADDRESSES
        and all(_is_short_text(address, _ADDRESS_LENGTH) for address in info.addresses)
    )


def _is_short_text(text: str, most: int) -> bool:
    return len(text) <= most and text.isprintable()
