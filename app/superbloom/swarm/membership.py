"""A swarm's name and secret: where its records lie, and proofs of belonging to it."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

TAG_BYTES = 32
"""The length of a tag (HMAC-SHA256)."""


@dataclass(frozen=True, slots=True)
class Membership:
    """Knowledge of a swarm's secret. Keys and tags of two swarms have nothing in common."""

    name: str
    secret: bytes = field(repr=False)

    def key_of_models(self) -> str:
        """The shared table's key under which the swarm's models are listed."""
        return self._key(b"models")

    def key_of(self, model: str) -> str:
        """The shared table's key under which the servers of `model` announce themselves."""
        return self._key(b"servers", model.encode())

    def tag(self, *parts: bytes) -> bytes:
        """A proof (TAG_BYTES) that a member wrote `parts`, in this division and order."""
        digest = hmac.new(self.secret, digestmod=hashlib.sha256)
        for part in (self.name.encode(), *parts):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return digest.digest()

    def check(self, tag: bytes, *parts: bytes) -> bool:
        """True if `tag` is that of `parts`; takes the same time for every wrong tag."""
        return hmac.compare_digest(tag, self.tag(*parts))

    def _key(self, *parts: bytes) -> str:
        return f"superbloom/{self.tag(b'key', *parts)[:16].hex()}"
