"""Sessions whose frames a test writes itself, as a member of the swarm: good ones and bad ones."""

from __future__ import annotations

import torch

from frames import SESSION, open_frame, step_frame
from superbloom.pipeline.messages import Open, Push, encode_frame
from toy_model import HIDDEN
from toy_swarm import BLOCKS, SERVED, ToySwarm


def opening(
    swarm: ToySwarm, client: str, server: str, *, session: str = SESSION, **changes: object
) -> Open:
    """What a client says first to a server of the whole model."""
    tag = swarm.membership.tag(b"session", session.encode(), client.encode(), server.encode())
    usual: dict[str, object] = {
        "model": SERVED.id,
        "fingerprint": SERVED.fingerprint,
        "end": BLOCKS,
        "tag": tag.hex(),
    }
    return open_frame(session=session, **usual | changes)


def pushing(swarm: ToySwarm, previous: str, server: str, session: str = SESSION) -> Push:
    """What the server before says first."""
    tag = swarm.membership.tag(b"push", session.encode(), previous.encode(), server.encode())
    return Push(session=session, tag=tag.hex())


def step(**changes: object) -> bytes:
    """The bytes of a step of one token, unless the changes say otherwise."""
    return encode_frame(step_frame(torch.ones(1, HIDDEN), **changes))
