"""A call's reply on the wire of hivemind: the handler's bytes, or the error it raised."""

from __future__ import annotations

from hivemind.proto.runtime_pb2 import ExpertResponse

from superbloom.domain.errors import PeerLost, SuperbloomError, error_from_code
from superbloom.swarm.transport import MAX_CALL_BYTES

_OK, _ERROR = b"ok", b"error"


def pack_reply(reply: bytes) -> ExpertResponse:
    """What a handler returned."""
    return ExpertResponse(metadata=_OK + reply)


def pack_error(error: SuperbloomError) -> ExpertResponse:
    """What a handler raised."""
    words = (error.code, error.message[:1000], error.next_step[:1000])
    return ExpertResponse(metadata=_ERROR + "\0".join(words).encode(errors="replace"))


def open_response(response: ExpertResponse, peer: str) -> bytes:
    """The reply, or raises the error that `peer` sent, or PeerLost for what is neither."""
    content: bytes = response.metadata
    if len(content) > MAX_CALL_BYTES + len(_OK):
        raise PeerLost("The other computer sent a reply that is too long.", peer=peer)
    if content.startswith(_OK):
        return content[len(_OK) :]
    parts = content.removeprefix(_ERROR).decode(errors="replace").split("\0")
    if not content.startswith(_ERROR) or len(parts) != 3:
        raise PeerLost("The other computer sent no proper reply.", peer=peer)
    error = error_from_code(*parts)
    if isinstance(error, PeerLost):
        error.peer = peer
    raise error
