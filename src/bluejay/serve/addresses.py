"""IP addresses of clients and proxies."""

import ipaddress

MAPPED_BITS = 96
"""The length of ::ffff:0:0/96, in which a socket of both versions shows IPv4 addresses (RFC 4291, 2.5.5.2)."""


def plain_address(address: str) -> str:
    """An address in its usual form: an IPv4 address that is written as one of IPv6 is an IPv4 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def client_network(address: str) -> str:
    """The addresses that count as one client: a single IPv4 address, or the /64 network of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(plain_address(address))
    except ValueError:
        return address
    return str(ipaddress.ip_network((int(parsed), 64), strict=False) if parsed.version == 6 else parsed)


def is_private(address: str) -> bool:
    """Whether an address belongs to a private network."""
    try:
        return ipaddress.ip_address(plain_address(address)).is_private
    except ValueError:
        return False


def network(text: str) -> str:
    """An address or a network, which may be written with an address in it: 10.0.0.5/24. Raises ValueError."""
    try:
        found = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not an address or a network; one looks like 10.0.0.0/24") from None
    mapped = getattr(found.network_address, "ipv4_mapped", None)
    if mapped and found.prefixlen >= MAPPED_BITS:
        found = ipaddress.ip_network((mapped, found.prefixlen - MAPPED_BITS))
    return str(found.network_address if found.num_addresses == 1 else found)
