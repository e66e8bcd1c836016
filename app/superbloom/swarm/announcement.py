"""A server's announcement as bytes: signed by the server, tagged by its swarm, checked on arrival.

    version (1 byte), tag, length of the signature (1 byte), signature, body (JSON)

The tag proves that a member of the swarm wrote the body, the signature that this very peer did.
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import fields, replace

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
    """The announcement of this very peer as bytes, of at most MAX_ANNOUNCEMENT_BYTES.

    Raises ValueError on what no other computer would accept: see `presentable`.
    """
    if not _in_range(info):
        raise ValueError("an announcement's figures or texts are out of range")
    return _seal(info, transport, membership)


def presentable(info: ServerInfo) -> ServerInfo:
    """The same with texts and addresses that others accept: cleaned, cut, the most useful kept."""
    addresses = [a for a in dict.fromkeys(info.addresses) if _is_short_text(a, _ADDRESS_LENGTH)]
    kept = sorted(addresses, key=_usefulness, reverse=True)[:_MOST_ADDRESSES]
    return replace(
        info,
        name=_clean(info.name, _TEXT_LENGTHS["name"]),
        device=_clean(info.device, _TEXT_LENGTHS["device"]),
        addresses=tuple(address for address in addresses if address in kept),
    )


def decode_announcement(
    value: bytes, peer: str, transport: Transport, membership: Membership, now: float
) -> ServerInfo:
    """Read what `peer` is said to have announced; `now` is Unix time.

    Raises ProtocolViolation on anything that is damaged, forged, out of range or out of date.
    """
    info = read_announcement(value, peer, transport, membership)
    if not is_timely(info, now):
        raise ProtocolViolation("An announcement is out of date, or a clock is wrong.")
    return info


def read_announcement(
    value: bytes, peer: str, transport: Transport, membership: Membership
) -> ServerInfo:
    """As `decode_announcement`, whenever it was made."""
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
    return info


def is_timely(info: ServerInfo, now: float) -> bool:
    """True if the announcement is neither too old nor from a future that clocks do not explain."""
    return -CLOCK_SECONDS < now - info.announced_at < LIFETIME_SECONDS + CLOCK_SECONDS


def expires_in_time(info: ServerInfo, expires_at: float) -> bool:
    """True if a record of it lasts as long as its server meant it to (`expires_at`: Unix time).

    Others could otherwise end it early, or keep it for ever, by storing it again.
    """
    return abs(expires_at - info.announced_at - LIFETIME_SECONDS) <= CLOCK_SECONDS


def _seal(info: ServerInfo, transport: Transport, membership: Membership) -> bytes:
    body = json.dumps(to_plain(info), separators=(",", ":")).encode()
    signature = transport.sign(_PURPOSE + body)
    tag = membership.tag(_PURPOSE, body)
    value = bytes((_VERSION,)) + tag + bytes((len(signature),)) + signature + body
    if len(value) > MAX_ANNOUNCEMENT_BYTES:
        raise ValueError(f"an announcement of {len(value)} bytes is too long")
    return value


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
        and 0 <= info.waiting_seconds <= 3600
        and 0 <= info.prefill_tokens_per_second <= 1e9
        and 0 <= info.free_cache_tokens <= 10**12
        and 0 <= info.sessions <= 10**6
        and len(info.addresses) <= _MOST_ADDRESSES
        and all(_is_short_text(address, _ADDRESS_LENGTH) for address in info.addresses)
    )


def _is_short_text(text: str, most: int) -> bool:
    return len(text) <= most and text.isprintable()


def _clean(text: str, most: int) -> str:
    """The text without what cannot be printed, its white space single, cut to `most` characters."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return re.sub(r"\s+", " ", printable).strip()[:most].rstrip()


def _usefulness(address: str) -> int:
    """How likely others reach the address: public ones first, this computer's own loopback last."""
    parts = address.split("/")
    if len(parts) < 3 or parts[1] not in ("ip4", "ip6"):
        return 3  # a name, or a relay
    try:
        host = ipaddress.ip_address(parts[2])
    except ValueError:
        return 0
    if host.is_loopback:
        return 0
    return 1 if host.is_link_local else 4 if host.is_global else 2
