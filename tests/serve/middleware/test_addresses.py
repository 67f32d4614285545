"""Addresses of clients in all their forms."""

import pytest

from bluejay.serve.middleware.addresses import client_network, is_private


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
        ("0:0:0:0:0:FFFF:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix:", "unix:"),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_network(address, client):
    assert client_network(address) == client


def test_only_addresses_of_private_networks_are_private():
    assert all(map(is_private, ("127.0.0.1", "::1", "10.1.2.3", "::ffff:10.1.2.3", "fd00::1")))
    assert not any(map(is_private, ("8.8.8.8", "::ffff:8.8.8.8", "2600::1", "unix:", "")))
