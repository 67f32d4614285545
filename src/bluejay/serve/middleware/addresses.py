"""IP addresses of clients."""

import ipaddress


def plain_address(address: str) -> str:
    """An address in its usual form: ::ffff:a.b.c.d, as which a socket of both versions shows an IPv4
    address (RFC 4291, 2.5.5.2), is that IPv4 address."""
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
