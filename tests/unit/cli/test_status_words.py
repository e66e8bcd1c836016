"""What `superbloom status` says of a swarm, in words."""

from __future__ import annotations

from dataclasses import replace

from scripted_node import STATUS, server_info

from superbloom.cli.status import in_words
from superbloom.control.messages import Reach
from superbloom.domain.span import Span

PORT = "others reach it at port 4001\n"
ADDRESSES = ("/ip4/192.0.2.1/tcp/4001/p2p/me", "/ip4/192.0.2.2/tcp/4001/p2p/me")


def test_it_says_how_long_steps_wait_at_a_server() -> None:
    busy = replace(server_info("ada", Span(0, 4)), waiting_seconds=0.123)
    swarm = replace(STATUS.swarm, servers=(busy,))
    assert "123 ms" in in_words(replace(STATUS, swarm=swarm), 1000.0)


def test_an_open_swarm_names_its_port() -> None:
    swarm = replace(STATUS.swarm, reach=Reach.OPEN, addresses=ADDRESSES)
    assert PORT in in_words(replace(STATUS, swarm=swarm), 1000.0)


def test_it_names_the_servers_port_too() -> None:
    own = replace(server_info("ada", Span(0, 2)), addresses=("/ip4/192.0.2.1/tcp/4002/p2p/ada",))
    other = replace(server_info("bob", Span(2, 4)), addresses=("/ip4/192.0.2.9/tcp/9/p2p/bob",))
    swarm = replace(STATUS.swarm, reach=Reach.OPEN, addresses=ADDRESSES, servers=(own, other))
    said = in_words(replace(STATUS, swarm=swarm), 1000.0)
    assert "others reach it at ports 4001 and 4002\n" in said


def test_a_swarm_of_one_computer_has_no_port_to_open() -> None:
    swarm = replace(STATUS.swarm, reach=Reach.LOCAL, addresses=ADDRESSES)
    assert PORT not in in_words(replace(STATUS, swarm=swarm), 1000.0)
