"""Addresses and names of licences, as SPDX writes them."""

import pytest

from bluejay.pile.sources.io.licences import licence_at, licence_named


@pytest.mark.parametrize(
    ("address", "licence"),
    [
        ("https://creativecommons.org/licenses/by-sa/4.0/", "CC-BY-SA-4.0"),
        ("http://creativecommons.org/licenses/by/2.5", "CC-BY-2.5"),
        ("//creativecommons.org/licenses/by-nc-nd/3.0/deed.de", "CC-BY-NC-ND-3.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/legalcode", "CC0-1.0"),
        ("https://creativecommons.org/licenses/by/", "CC-BY"),
        ("https://example.org/licenses/by/4.0", None),
        ("https://creativecommons.org/about", None),
    ],
)
def test_addresses(address: str, licence: str | None) -> None:
    assert licence_at(address) == licence


def test_names() -> None:
    assert licence_named("CC BY-SA 3.0") == "CC-BY-SA-3.0"
    assert licence_named("CC0 1.0") == "CC0-1.0"
    assert licence_named("MIT") == "MIT"
