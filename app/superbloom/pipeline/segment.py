"""A part of a chain: blocks, and the server that has them, if there is one."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from superbloom.domain.route import Hop
from superbloom.domain.span import Span
from superbloom.pipeline.hop_link import HopLink


@dataclass(frozen=True, slots=True)
class Segment:
    """Blocks on `peer`; without a link it is a gap (no peer) or planned (peer chosen).

    `session` is the id (32 hex digits) under which the peer knows its part. Every attempt to open
    one has a new id, so that what is left of an earlier attempt is not in the way.
    """

    blocks: Span
    peer: str = ""
    session: str = ""
    link: HopLink | None = None


def planned(hop: Hop) -> Segment:
    """A segment whose session is still to be opened."""
    return Segment(hop.blocks, hop.peer, secrets.token_hex(16))
