"""Invite codes: where a swarm is, what it is called and its secret, in text that can be pasted.

`superbloom:` and base64url of: version u8, deflated JSON, first 4 bytes of the SHA-256 of both.
Whoever has the code can join, so it is passed on like a key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import zlib
from dataclasses import dataclass, field

from superbloom.domain.errors import InviteExpired, InviteInvalid

PREFIX = "superbloom:"
MAX_CODE_LENGTH = 4096

_VERSION = 1
_CHECK_BYTES = 4
_MAX_JSON_BYTES = 16 * 1024
_MAX_ADDRESSES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    """An invitation; `expires_at` is Unix time in seconds, `addresses` multiaddrs with /p2p/ID."""

    name: str
    secret: bytes = field(repr=False)
    addresses: tuple[str, ...]
    expires_at: float


def is_address(text: str) -> bool:
    """Whether it has the form of a multiaddr that names its peer: /KIND/HOST/.../p2p/ID."""
    place, _, peer = text.rpartition("/p2p/")
    return place.startswith("/") and bool(peer) and "/" not in peer


def encode_invite(invite: Invite) -> str:
    """The code of an invite."""
    fields = {
        "n": invite.name,
        "s": base64.b64encode(invite.secret).decode(),
        "a": list(invite.addresses[:_MAX_ADDRESSES]),
        "e": round(invite.expires_at),
    }
    packed = zlib.compress(json.dumps(fields, separators=(",", ":")).encode(), 9)
    body = bytes([_VERSION]) + packed
    text = base64.urlsafe_b64encode(body + _check(body)).decode().rstrip("=")
    return PREFIX + text


def decode_invite(text: str, now: float) -> Invite:
    """The invite in a pasted code; line breaks, blanks and quotes around it do not matter.

    Raises InviteInvalid, or InviteExpired by Unix time `now`.
    """
    code = re.sub(r"[\s\"'<>`]+", "", text)
    if not code.startswith(PREFIX):
        raise InviteInvalid(f"This is no invite code: one begins with {PREFIX}")
    if len(code) > MAX_CODE_LENGTH:
        raise InviteInvalid("This is no invite code: it is too long.")
    body = _checked_body(code.removeprefix(PREFIX))
    if body[0] != _VERSION:
        raise InviteInvalid(
            "The invite code comes from another version of the program.",
            "Update both computers and ask for a new one.",
        )
    invite = _read(_inflate(body[1:]))
    if invite.expires_at <= now:
        hours = (now - invite.expires_at) / 3600
        raise InviteExpired(f"The invite code expired {hours:.0f} hours ago.")
    return invite


def _check(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_CHECK_BYTES]


def _checked_body(text: str) -> bytes:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InviteInvalid("The invite code holds characters that none has.") from None
    body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
    if not body or check != _check(body):
        raise InviteInvalid("The invite code is incomplete or was mistyped.")
    return body


def _inflate(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(packed, _MAX_JSON_BYTES)
    except zlib.error:
        raise InviteInvalid("The invite code is damaged.") from None
    if not unpacker.eof:
        raise InviteInvalid("The invite code is damaged.")
    return plain


def _read(plain: bytes) -> Invite:
    try:
        fields = json.loads(plain)
        name, secret, addresses, expires = fields["n"], fields["s"], fields["a"], fields["e"]
        key = base64.b64decode(secret, validate=True)
        known = all(isinstance(a, str) and is_address(a) for a in addresses)
        fits = isinstance(name, str) and len(name) <= 64 and 16 <= len(key) <= 64
        if not (known and fits and 0 < len(addresses) <= _MAX_ADDRESSES):
            raise ValueError("fields")
        return Invite(name=name, secret=key, addresses=tuple(addresses), expires_at=float(expires))
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        raise InviteInvalid("The invite code is damaged.") from None
