"""Which addresses are public servers. Everything that is not clearly one is refused, with the reason.

Ranges: the IANA special-purpose address registries (RFC 6890 and its updates) for IPv4 and IPv6; transition
forms that carry an IPv4 address inside (mapped RFC 4291, NAT64 RFC 6052 and RFC 8215, 6to4 RFC 3056, Teredo
RFC 4380); addresses on which clouds serve instance metadata to whoever asks from inside.
"""

from __future__ import annotations

import socket
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

_REFUSED_4: Final = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared by carriers (CGNAT)",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "a cloud's own (metadata)",
    "169.254.0.0/16": "link-local (metadata)",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "reserved for protocols (metadata)",
    "192.0.2.0/24": "for documentation",
    "192.31.196.0/24": "special",
    "192.52.193.0/24": "special",
    "192.88.99.0/24": "6to4 relay",
    "192.168.0.0/16": "private",
    "192.175.48.0/24": "special",
    "198.18.0.0/15": "for benchmarks of networks",
    "198.51.100.0/24": "for documentation",
    "203.0.113.0/24": "for documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
}
_REFUSED_6: Final = {
    "2001::/23": "special (Teredo among them)",
    "2001:db8::/32": "for documentation",
    "2002::/16": "6to4",
    "2620:4f:8000::/48": "special",
    "3fff::/20": "for documentation",
}
_GLOBAL_UNICAST_6: Final = IPv6Network("2000::/3")
"""All that is given to public servers lies in here; the rest is private, local, multicast or unassigned."""
_NAT64: Final = IPv6Network("64:ff9b::/96")

_NETWORKS_4: Final = tuple((IPv4Network(net), why) for net, why in _REFUSED_4.items())
_NETWORKS_6: Final = tuple((IPv6Network(net), why) for net, why in _REFUSED_6.items())


def why_refused(address: str) -> str:
    """Why nothing connects to `address`; empty for a public server that is not this machine.

    What this machine serves to itself at its own public address, its firewall may keep from everybody else.
    """
    return why_not_public(address) or ("this machine's own" if is_own(address) else "")


def is_own(address: str) -> bool:
    """Whether an interface of this machine has `address`, or the IPv4 address inside it."""
    parsed = ip_address(address)
    inner = _inner_4(parsed) if isinstance(parsed, IPv6Address) else None
    return not _binds_to_any() and any(_binds(str(one)) for one in (parsed, inner) if one is not None)


@cache
def _binds_to_any() -> bool:
    """Whether the system lets addresses be bound that no interface has: then binding tells nothing."""
    return _binds("192.0.2.1")


def _binds(address: str) -> bool:
    """Only an address that an interface has can be bound. Nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def why_not_public(address: str) -> str:
    """Why `address` (as a resolver or a URL writes it) is no public server; empty when it is one."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return "no address"
    return _not_public_4(parsed) if isinstance(parsed, IPv4Address) else _not_public_6(parsed)


def _not_public_4(address: IPv4Address) -> str:
    return next((why for network, why in _NETWORKS_4 if address in network), "")


def _not_public_6(address: IPv6Address) -> str:
    if address.scope_id is not None:
        return "bound to one interface"
    inner = _inner_4(address)
    if inner is not None:
        why = _not_public_4(inner)
        return f"{inner} inside, which is {why}" if why else ""
    if address not in _GLOBAL_UNICAST_6:
        return "not global"
    return next((why for network, why in _NETWORKS_6 if address in network), "")


def _inner_4(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address to which an IPv6 address leads, where it is a way to write one."""
    if address in _NAT64:  # what a network without IPv4 resolves every IPv4 host to
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped
