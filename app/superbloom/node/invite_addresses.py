"""By which addresses others shall find this computer."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from superbloom.domain.errors import InputRejected
from superbloom.domain.settings import Reach, SwarmSettings

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def invite_addresses(
    own: tuple[str, ...], bootstrap: tuple[str, ...], host: str
) -> tuple[str, ...]:
    """The addresses for a code, from our own and those we joined by.

    `host` replaces the host of our own; a loopback one is for this computer alone, an empty one
    takes them as they are. Raises InputRejected.
    """
    if host in LOOPBACK:
        return tuple(a for a in own if host_of(a) in LOOPBACK) or own
    outer = tuple(a for a in own if host_of(a) not in LOOPBACK) or own
    if host:
        return tuple(dict.fromkeys(with_host(a, host) for a in outer))
    return (*outer, *bootstrap)


def opened_to_others(swarm: SwarmSettings, address: str) -> SwarmSettings:
    """The settings once others may come in, at `address` if given; a loopback one opens nothing.

    Raises InputRejected.
    """
    if address in LOOPBACK:
        return swarm
    if address:
        kind_of(address)
    return replace(swarm, reach=Reach.OPEN, address=address or swarm.address)


def announced_addresses(own: tuple[str, ...], host: str) -> tuple[str, ...]:
    """The addresses to announce: our own, behind those at the outer `host` if there is one.

    Raises InputRejected.
    """
    outer = invite_addresses(own, (), host) if host else ()
    return tuple(dict.fromkeys((*outer, *own)))


def host_of(address: str) -> str:
    """The host in a multiaddr such as /ip4/10.0.0.1/tcp/31330/p2p/ID."""
    parts = address.split("/")
    return parts[2] if len(parts) > 2 else ""


def with_host(address: str, host: str) -> str:
    """The multiaddr with another host, an IP address or a name."""
    _, _, _, rest = address.split("/", 3)
    return f"/{kind_of(host)}/{host}/{rest}"


def kind_of(host: str) -> str:
    """What a multiaddr calls this kind of host. Raises InputRejected if it is none."""
    try:
        return f"ip{ipaddress.ip_address(host).version}"
    except ValueError:
        if len(host) > 253 or not all(c.isalnum() or c in "-." for c in host):
            raise InputRejected(f"{host!r} is no host name or IP address.") from None
        return "dns4"
