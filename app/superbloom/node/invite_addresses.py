"""By which addresses those who are invited shall find this computer."""

from __future__ import annotations

import ipaddress

from superbloom.domain.errors import InputRejected

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


def host_of(address: str) -> str:
    """The host in a multiaddr such as /ip4/10.0.0.1/tcp/31330/p2p/ID."""
    parts = address.split("/")
    return parts[2] if len(parts) > 2 else ""


def with_host(address: str, host: str) -> str:
    """The multiaddr with another host, an IP address or a name."""
    try:
        kind = f"ip{ipaddress.ip_address(host).version}"
    except ValueError:
        kind = "dns4"
        if len(host) > 253 or not all(c.isalnum() or c in "-." for c in host):
            raise InputRejected(f"{host!r} is no host name or IP address.") from None
    _, _, _, rest = address.split("/", 3)
    return f"/{kind}/{host}/{rest}"
