"""A peer's key: kept in a file that only its owner can read, it makes and proves the peer's id.

The id of a peer with an Ed25519 key contains the public key, so a signature needs nothing else.
Format of file and id: https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hivemind.p2p import PeerID
from hivemind.proto import crypto_pb2

from superbloom.domain.errors import NetworkFailed

_ID_PREFIX = bytes((0x00, 0x24, 0x08, 0x01, 0x12, 0x20))
"""Identity multihash of 36 bytes, which are a protobuf: key type Ed25519, 32 bytes of key."""


class Identity:
    """An Ed25519 key and the peer id that follows from it."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        public = key.public_key().public_bytes_raw()
        self.peer_id: str = PeerID(_ID_PREFIX + public).to_base58()

    def sign(self, payload: bytes) -> bytes:
        """A signature of 64 bytes."""
        return self._key.sign(payload)


def verify(peer: str, payload: bytes, signature: bytes) -> bool:
    """True if the key in `peer`'s id made `signature` for `payload`."""
    try:
        raw = PeerID.from_base58(peer).to_bytes()
        if len(peer) > 100 or not raw.startswith(_ID_PREFIX):
            return False
        Ed25519PublicKey.from_public_bytes(raw[len(_ID_PREFIX) :]).verify(signature, payload)
    except (ValueError, InvalidSignature):
        return False
    return True


def load_identity(file: Path) -> Identity:
    """The identity in `file`, a new one if there is none yet. Raises NetworkFailed."""
    try:
        if not file.exists():
            _write_new(file)
        kept = crypto_pb2.PrivateKey.FromString(file.read_bytes())
        if kept.key_type != crypto_pb2.KeyType.Ed25519 or len(kept.data) != 64:
            raise ValueError("not an Ed25519 key")
        return Identity(Ed25519PrivateKey.from_private_bytes(kept.data[:32]))
    except Exception as error:  # protobuf's errors have no public class of their own
        raise NetworkFailed(
            f"The key file {file} cannot be used: {error}.",
            "Move it away: a new one is made at the next start.",
        ) from error


def _write_new(file: Path) -> None:
    key = Ed25519PrivateKey.generate()
    data = key.private_bytes_raw() + key.public_key().public_bytes_raw()
    text = crypto_pb2.PrivateKey(key_type=crypto_pb2.KeyType.Ed25519, data=data)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(text.SerializeToString())
    unfinished.replace(file)
