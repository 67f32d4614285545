"""SPDX expressions for the addresses and names by which documents state their licence."""

import re

CREATIVE_COMMONS = re.compile(r"creativecommons\.org/(licenses|publicdomain)/([a-z+-]+)(?:/([\d.]+))?", re.IGNORECASE)
NAMED = re.compile(r"^CC(?:0|[ -]BY(?:-(?:NC|ND|SA))*)(?:[ -]\d\.\d)?$", re.IGNORECASE)
PUBLIC_DOMAIN = {"zero": "CC0", "mark": "CC-PDM", "certification": "CC-PDDC"}


def licence_at(address: str) -> str | None:
    """The licence whose text is at an address; None for all but those of Creative Commons.

    >>> licence_at("https://creativecommons.org/licenses/by-sa/4.0/")
    'CC-BY-SA-4.0'
    """
    found = CREATIVE_COMMONS.search(address)
    if not found:
        return None
    folder, name, version = found[1].lower(), found[2].lower(), found[3]
    if folder == "publicdomain":
        if name not in PUBLIC_DOMAIN:
            return None
        return PUBLIC_DOMAIN[name] + (f"-{version}" if version else "")
    return f"CC-{name.upper()}" + (f"-{version}" if version else "")


def licence_named(name: str) -> str:
    """The SPDX name of a Creative Commons licence: "CC-BY-SA-4.0" for "CC BY-SA 4.0"; other names are unchanged."""
    return name.strip().upper().replace(" ", "-") if NAMED.match(name.strip()) else name
