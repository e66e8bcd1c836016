"""What a server in a terminal hands out."""

from __future__ import annotations

import time

from superbloom.domain.invite import decode_invite
from superbloom.node.serving.server_alone import _invite
from superbloom.node.serving.server_wire import EnterSwarm

SWARM = EnterSwarm(name="ours", secret="5e" * 32, bootstrap=(), listen="0.0.0.0:0")
NEAR = "/ip4/127.0.0.1/tcp/4001/p2p/abc"
FAR = "/ip4/10.1.2.3/tcp/4001/p2p/abc"


def test_an_invite_names_where_others_reach_it() -> None:
    assert decode_invite(_invite(SWARM, (NEAR, FAR)), time.time()).addresses == (FAR,)
    assert decode_invite(_invite(SWARM, (NEAR,)), time.time()).addresses == (NEAR,)
