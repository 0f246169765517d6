"""IP addresses and networks, as text."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, TypeAlias

__all__ = ["Address", "Network", "address", "is_inside", "network"]

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# No netmasks (10.0.0.0/255.0.0.0) and no zones (fe80::1%eth0): other languages know neither.
_NETWORK: Final = re.compile(r"([0-9A-Fa-f:.]{2,45})(?:/(0|[1-9][0-9]{0,2}))?")


def address(text: str) -> Address | None:
    """Return the address that *text* is, or None. An IPv6 zone (``%eth0``) is not accepted."""
    if "%" in text:
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def network(text: str) -> Network | None:
    """Return the network that *text* is, or None.

    An address alone is a network of one. Bits beyond the prefix do not count: ``10.1.2.3/8`` is
    ``10.0.0.0/8``.
    """
    if _NETWORK.fullmatch(text) is None:
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def is_inside(where: Address, networks: tuple[Network, ...]) -> bool:
    """Tell whether the address is inside any of *networks*.

    An IPv4-mapped IPv6 address (``::ffff:10.0.0.1``, which dual-stack servers report) is inside the IPv4
    networks of its IPv4 address too.
    """
    mapped = where.ipv4_mapped if isinstance(where, ipaddress.IPv6Address) else None
    return any(where in known or (mapped is not None and mapped in known) for known in networks)
