"""What `superbloom status` says of a swarm, in words."""

from __future__ import annotations

from dataclasses import replace

from scripted_node import STATUS

from superbloom.cli.status import in_words
from superbloom.control.messages import Reach

PORT = "others reach it at port 4001\n"
ADDRESSES = ("/ip4/192.0.2.1/tcp/4001/p2p/me", "/ip4/192.0.2.2/tcp/4001/p2p/me")


def test_an_open_swarm_names_its_port() -> None:
    swarm = replace(STATUS.swarm, reach=Reach.OPEN, addresses=ADDRESSES)
    assert PORT in in_words(replace(STATUS, swarm=swarm), 1000.0)


def test_a_swarm_of_one_computer_has_no_port_to_open() -> None:
    swarm = replace(STATUS.swarm, reach=Reach.LOCAL, addresses=ADDRESSES)
    assert PORT not in in_words(replace(STATUS, swarm=swarm), 1000.0)
