"""Which network addresses lie inside: what must never be reached on somebody's behalf."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_OUTSIDE_6 = IPv6Network("2000::/3")
"""All that is given out to the world. What maps IPv4 addresses (::ffff:0:0/96, 64:ff9b::/96) lies beyond it."""
_INSIDE_6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
"""In it, but tunnels that hold an IPv4 address (Teredo, 6to4), and what is no place: protocols, documentation."""
_INSIDE_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            # A cloud's own services behind an address that looks like the world's.
            "168.63.129.16/32",
        ),
    )
)


def is_inside(address: str) -> bool:
    """Whether an address, in its plain spelling, is one of a machine, a private network, a cloud's inside, or nowhere.

    What cannot be read is inside, too.
    """
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return True
    return _is_inside_4(found) if isinstance(found, IPv4Address) else _is_inside_6(found)


def _is_inside_4(address: IPv4Address) -> bool:
    return not address.is_global or any(address in network for network in _INSIDE_4)


def _is_inside_6(address: IPv6Address) -> bool:
    is_outside = address in _OUTSIDE_6 and address.is_global
    return not is_outside or any(address in network for network in _INSIDE_6)
