"""Plain values as they come out of the cage: numbers, texts, and lists, tuples, sets and dictionaries of them.

Everything here is a stranger's claim. Decoding it runs none of his code and takes time in proportion to its length.
"""

import json
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

MOST_KEYS = 10_000
"""Entries of a set or dictionary; values chosen to collide take a time that grows with the square of their number."""
MOST_DIGITS = 2000
"""Digits of a fraction's two numbers, and of a decimal before or behind its point, with which sums stay fast."""


class NotPlain:
    """Stands for a value that cannot leave the cage, such as an object; it equals nothing."""

    __hash__ = None  # type: ignore[assignment] - how Python says that a class is not hashable

    def __init__(self, kind: str) -> None:
        self.kind = kind[:80]

    def __eq__(self, other: object) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<{self.kind}>"


def decode(wire: Any) -> Any:
    """A value from what `inside.plain` made of it. Raises ValueError: it is not of that form."""
    if isinstance(wire, list):
        return [decode(one) for one in wire]
    if not isinstance(wire, dict):
        return wire
    if len(wire) != 1:
        raise ValueError("a value has one kind")
    ((kind, content),) = wire.items()
    if kind in ("set", "frozenset", "dict") and isinstance(content, list) and len(content) > MOST_KEYS:
        return NotPlain(f"{kind} of {len(content)} entries")
    match kind, content:
        case "tuple", list():
            return tuple(map(decode, content))
        case "set", list():
            return set(map(decode, content))
        case "frozenset", list():
            return frozenset(map(decode, content))
        case "dict", list():
            return {decode(key): decode(value) for key, value in content}
        case "int", str():
            return int(content, 16)
        case "bytes", str():
            return bytes.fromhex(content)
        case "complex", [int() | float() as real, int() | float() as imaginary]:
            return complex(real, imaginary)
        case "fraction", [str() as above, str() as below]:
            return fraction(above, below)
        case "decimal", str():
            return decimal(content)
        case "object", str():
            return NotPlain(content)
    raise ValueError(f"a value of unknown kind: {kind[:80]}")


def fraction(above: str, below: str) -> Fraction | NotPlain:
    """A fraction from its two numbers in hexadecimal. Raises ValueError: it is none."""
    if max(len(above), len(below)) > MOST_DIGITS:
        return NotPlain("Fraction")
    if not (denominator := int(below, 16)):
        raise ValueError("a fraction's denominator is 0")
    return Fraction(int(above, 16), denominator)


def decimal(text: str) -> Decimal | NotPlain:
    """A decimal from its text. Raises ValueError: it is none."""
    if len(text) > MOST_DIGITS:
        return NotPlain("Decimal")
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError("no decimal") from None
    return value if abs(value.adjusted()) <= MOST_DIGITS else NotPlain("Decimal")


def load(line: bytes) -> Any:
    """A JSON text of a stranger. Raises ValueError: it is not JSON, or is nested too deeply."""
    try:
        return json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
