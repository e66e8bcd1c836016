"""The addresses in an invite."""

from __future__ import annotations

import pytest

from superbloom.domain.errors import InputRejected
from superbloom.node.invite_addresses import announced_addresses, invite_addresses, with_host

NEAR = "/ip4/127.0.0.1/tcp/5/p2p/X"
FAR = "/ip4/10.0.0.1/tcp/5/p2p/X"
OTHER = "/ip4/10.0.0.2/tcp/6/p2p/Y"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("", (FAR, OTHER)),
        ("127.0.0.1", (NEAR,)),
        ("localhost", (NEAR,)),
        ("192.0.2.1", ("/ip4/192.0.2.1/tcp/5/p2p/X",)),
    ],
)
def test_who_shall_find_us_by_what(host: str, expected: tuple[str, ...]) -> None:
    assert invite_addresses((NEAR, FAR), (OTHER,), host) == expected


def test_without_a_network_the_loopback_address_has_to_do() -> None:
    assert invite_addresses((NEAR,), (), "") == (NEAR,)


def test_a_server_announces_the_outer_host_before_its_own() -> None:
    assert announced_addresses((NEAR, FAR), "") == (NEAR, FAR)
    outer = "/dns4/example.org/tcp/5/p2p/X"
    assert announced_addresses((NEAR, FAR), "example.org") == (outer, NEAR, FAR)


@pytest.mark.parametrize("host", ["two words", "a/b", "host:99", "x" * 300])
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(InputRejected):
        with_host("/ip4/10.0.0.1/tcp/5/p2p/X", host)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("example.org", "/dns4/example.org/tcp/5/p2p/X"),
        ("192.0.2.1", "/ip4/192.0.2.1/tcp/5/p2p/X"),
        ("2001:db8::1", "/ip6/2001:db8::1/tcp/5/p2p/X"),
    ],
)
def test_another_host_in_an_address(host: str, expected: str) -> None:
    assert with_host("/ip4/10.0.0.1/tcp/5/p2p/X", host) == expected
