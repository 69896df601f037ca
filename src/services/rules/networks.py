"""Networks in CIDR form: read, put into one spelling, and asked whether an address lies in one."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

MAX_LENGTH = 50
"""Longer than any spelling of a network."""
MAPPED_BITS = 96
"""So long is the part of an IPv6 address that says that an IPv4 address follows."""


@lru_cache(maxsize=4096)
def read_network(text: str) -> IPv4Network | IPv6Network:
    """A network, or a single address; bits behind the prefix are left out. `ValueError` for what is none."""
    if len(text) > MAX_LENGTH:
        raise ValueError("too long")
    found = ip_network(text.strip(), strict=False)
    mapped = found.network_address.ipv4_mapped if isinstance(found, IPv6Network) else None
    if mapped is None or found.prefixlen < MAPPED_BITS:
        return found
    # Who comes from there is known by the IPv4 address.
    return IPv4Network((mapped, found.prefixlen - MAPPED_BITS))


def lies_in(peer: str, networks: Iterable[str]) -> bool:
    """Whether an address lies in one of these networks. What is no address lies in none."""
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or IPv6Address(int(address))  # without the interface's name
    return any(address in read_network(text) for text in networks)


def lies_within(network: str, others: Iterable[str]) -> bool:
    """Whether all of a network lies in one of others."""
    inner = read_network(network)
    for text in others:
        outer = read_network(text)
        is_alike = inner.version == outer.version and inner.prefixlen >= outer.prefixlen
        if is_alike and inner.network_address in outer:
            return True
    return False
