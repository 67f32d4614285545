"""The parts of school questions: random integers, and polynomials and other numbers as text.

A `Draw` returns floats that are uniform in [0, 1). A question takes a few microseconds, which gives megabytes of text a
second; for that reason integers are drawn by `between` and not by `random.randint`.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
Draw = Callable[[], float]
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def between(draw: Draw, low: int, high: int) -> int:
    """A random integer from low to high, both included."""
    return low + int(draw() * (high - low + 1))


def signed(draw: Draw, size: int) -> int:
    """A random integer from -size to size that is not zero."""
    number = between(draw, 1, size)
    return number if draw() < 0.5 else -number


def pick(draw: Draw, choices: Sequence[T]) -> T:
    """A random one of the choices."""
    return choices[int(draw() * len(choices))]


def numbers(draw: Draw, size: int, count: int) -> list[int]:
    """Random integers from -size to size that are not zero."""
    return [signed(draw, size) for _ in range(count)]


def polynomial(coefficients: list[int], x: str) -> str:
    """A polynomial as text, from `coefficients[power]`, of which the last is not zero.

    >>> polynomial([4, -1, 0, 3], "x")
    '3*x**3 - x + 4'
    """
    parts = []
    for power in range(len(coefficients) - 1, -1, -1):
        factor = coefficients[power]
        if not factor:
            continue
        size = abs(factor)
        if power == 0:
            term = str(size)
        else:
            symbol = x if power == 1 else f"{x}**{power}"
            term = symbol if size == 1 else f"{size}*{symbol}"
        parts.append(f" - {term}" if factor < 0 else f" + {term}")
    text = "".join(parts) or " + 0"
    return text[3:] if text[1] == "+" else "-" + text[3:]


def evaluated(coefficients: list[int], at: int) -> int:
    """The value of a polynomial (Horner's rule)."""
    value = 0
    for factor in reversed(coefficients):
        value = value * at + factor
    return value


def derived(coefficients: list[int]) -> list[int]:
    """The derivative of a polynomial."""
    return [power * factor for power, factor in enumerate(coefficients)][1:] or [0]


def product(left: list[int], right: list[int]) -> list[int]:
    """The product of two polynomials."""
    result = [0] * (len(left) + len(right) - 1)
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            result[i + j] += a * b
    return result


def in_base(number: int, base: int) -> str:
    """An integer written in a base up to 36."""
    digits, rest = "", abs(number)
    while rest:
        rest, digit = divmod(rest, base)
        digits = DIGITS[digit] + digits
    return ("-" if number < 0 else "") + (digits or "0")


def decimal(scaled: int, places: int) -> str:
    """scaled / 10**places as a decimal number without trailing zeros."""
    whole, rest = divmod(abs(scaled), 10**places)
    text = f"{whole}.{rest:0{places}d}".rstrip("0").rstrip(".") if places else str(whole)
    return f"-{text}" if scaled < 0 else text


def factors(number: int) -> list[int]:
    """The prime factors of a positive integer with their multiplicity, in ascending order."""
    found, divisor = [], 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1 + (divisor > 2)
    return [*found, number] if number > 1 else found


def listed(values: list[int] | list[str]) -> str:
    """Values separated by commas."""
    return ", ".join(map(str, values))
