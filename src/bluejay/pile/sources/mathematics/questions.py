"""The kinds of questions: functions of a random source and a magnitude that return a question and its answer."""

from collections.abc import Callable
from fractions import Fraction
from math import comb, gcd, isqrt, lcm, perm

from bluejay.pile.sources.mathematics.expressions import (
    Draw,
    between,
    decimal,
    derived,
    evaluated,
    factors,
    in_base,
    listed,
    numbers,
    pick,
    polynomial,
    product,
    signed,
)

Question = Callable[[Draw, int], tuple[str, str]]
LETTERS = "abcdfghjkmnpqrstuvwxyz"
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
LENGTHS = {"millimetres": 1, "centimetres": 10, "metres": 1000, "kilometres": 10**6}
WEIGHTS = {"milligrams": 1, "grams": 1000, "kilograms": 10**6, "tonnes": 10**9}
TIMES = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400, "weeks": 604800}


# Algebra


def linear_equation(draw: Draw, size: int) -> tuple[str, str]:
    x, (a, b, c, root) = pick(draw, LETTERS), numbers(draw, size, 4)
    if a == c:
        c = -c
    rest = (a - c) * root + b
    return f"Solve {polynomial([b, a], x)} = {polynomial([rest, c], x)} for {x}.", str(root)


def linear_system(draw: Draw, size: int) -> tuple[str, str]:
    x, y = pick(draw, ("xy", "ab", "pq", "st", "uv"))
    (a, b, c, d), (p, q) = numbers(draw, 12, 4), numbers(draw, size, 2)
    if a * d == b * c:
        d += 1 if d != -1 else 2
    if a * d == b * c:
        a += 1 if a != -1 else 2
    first, second = (
        f"{polynomial([0, m], x)} {'-' if n < 0 else '+'} {polynomial([0, abs(n)], y)}" for m, n in ((a, b), (c, d))
    )
    question = f"Find {x} where {first} = {a * p + b * q} and {second} = {c * p + d * q}."
    return question, str(p)


def quadratic_roots(draw: Draw, size: int) -> tuple[str, str]:
    x, (r, s) = pick(draw, LETTERS), numbers(draw, size, 2)
    factor = between(draw, 1, 5)
    text = polynomial([factor * r * s, -factor * (r + s), factor], x)
    return f"Which {x} satisfy {text} = 0?", listed(sorted({r, s}))


def next_term(draw: Draw, size: int) -> tuple[str, str]:
    rule = [signed(draw, size) for _ in range(between(draw, 2, 4))]
    terms = [evaluated(rule, at) for at in range(1, 7)]
    return f"Which number follows {listed(terms[:-1])}?", str(terms[-1])


def general_term(draw: Draw, size: int) -> tuple[str, str]:
    rule = [signed(draw, size) for _ in range(between(draw, 2, 3))]
    x = pick(draw, LETTERS)
    return f"Give term number {x} of the sequence {listed([evaluated(rule, at) for at in range(1, 6)])}.", polynomial(
        rule, x
    )


# Arithmetic


def sum_of_two(draw: Draw, size: int) -> tuple[str, str]:
    a, b, places = signed(draw, size * size), signed(draw, size * size), between(draw, 0, 3)
    if draw() < 0.5:
        return f"What is {decimal(a, places)} plus {decimal(b, places)}?", decimal(a + b, places)
    return f"Subtract {decimal(b, places)} from {decimal(a, places)}.", decimal(a - b, places)


def multiplication(draw: Draw, size: int) -> tuple[str, str]:
    a, b, places = signed(draw, size * 5), signed(draw, size * 5), between(draw, 0, 2)
    return f"Work out {decimal(a, places)} times {b}.", decimal(a * b, places)


def division(draw: Draw, size: int) -> tuple[str, str]:
    a, b = signed(draw, size * size), signed(draw, size)
    return f"Divide {a} by {b}.", str(Fraction(a, b))


def mixed_expression(draw: Draw, size: int) -> tuple[str, str]:
    a, b, c, d = numbers(draw, size, 4)
    match int(draw() * 4):
        case 0:
            return f"Evaluate {a} - ({b} + {c})*{d}.", str(a - (b + c) * d)
        case 1:
            return f"Evaluate ({a} + {b}) - ({c} - {d}).", str(a + b - (c - d))
        case 2:
            return f"Evaluate ({a * b})/({b}) + {c}*{d}.", str(a + c * d)
        case _:
            return f"Evaluate ({a}*{b} - {c})/({d}).", str(Fraction(a * b - c, d))


def nearest_root(draw: Draw, size: int) -> tuple[str, str]:
    number = between(draw, 2, size**3)
    root = isqrt(4 * number)  # half of this, rounded, is the rounded square root
    return f"To the nearest integer, what is the square root of {number}?", str((root + 1) // 2)


def surd(draw: Draw, size: int) -> tuple[str, str]:
    outside, inside = between(draw, 2, size + 1), pick(draw, (2, 3, 5, 6, 7, 10, 11, 13, 14, 15))
    return f"Simplify sqrt({outside * outside * inside}).", f"{outside}*sqrt({inside})"


def sum_in_base(draw: Draw, size: int) -> tuple[str, str]:
    a, b, base = signed(draw, size * size), signed(draw, size * size), between(draw, 2, 16)
    return f"In base {base}, what is {in_base(a, base)} + {in_base(b, base)}?", in_base(a + b, base)


# Calculus


def derivative(draw: Draw, size: int) -> tuple[str, str]:
    x, f = pick(draw, LETTERS), numbers(draw, size, between(draw, 3, 6))
    return f"Differentiate {polynomial(f, x)} with respect to {x}.", polynomial(derived(f), x)


def higher_derivative(draw: Draw, size: int) -> tuple[str, str]:
    x, order = pick(draw, LETTERS), between(draw, 2, 3)
    f = numbers(draw, size, between(draw, order + 2, 7))
    result = f
    for _ in range(order):
        result = derived(result)
    return f"What is the {ORDINALS[order - 1]} derivative of {polynomial(f, x)} with respect to {x}?", polynomial(
        result, x
    )


def slope(draw: Draw, size: int) -> tuple[str, str]:
    x, f, at = pick(draw, LETTERS), numbers(draw, size, between(draw, 3, 5)), signed(draw, 9)
    return f"Find the slope of {polynomial(f, x)} at {x} = {at}.", str(evaluated(derived(f), at))


def definite_integral(draw: Draw, size: int) -> tuple[str, str]:
    x, f, low = pick(draw, LETTERS), numbers(draw, size, between(draw, 2, 4)), between(draw, -5, 5)
    high, f = low + between(draw, 1, 5), [(power + 1) * factor for power, factor in enumerate(f)]
    whole = [0, *(factor // (power + 1) for power, factor in enumerate(f))]
    return f"Integrate {polynomial(f, x)} from {x} = {low} to {x} = {high}.", str(
        evaluated(whole, high) - evaluated(whole, low)
    )


# Comparison


def larger(draw: Draw, size: int) -> tuple[str, str]:
    a, b = Fraction(signed(draw, size), between(draw, 1, 12)), Fraction(signed(draw, size), between(draw, 1, 12))
    return f"Which is larger: {a} or {b}?", "they are equal" if a == b else str(max(a, b))


def sorted_list(draw: Draw, size: int) -> tuple[str, str]:
    values = numbers(draw, size, between(draw, 4, 8))
    falling = draw() < 0.5
    return f"Sort {listed(values)} from the {'largest' if falling else 'smallest'}.", listed(
        sorted(values, reverse=falling)
    )


def ranked(draw: Draw, size: int) -> tuple[str, str]:
    values = list({signed(draw, size * 2) for _ in range(7)})
    rank = between(draw, 1, len(values))
    return f"What is the {ORDINALS[rank - 1]} smallest value in {listed(values)}?", str(sorted(values)[rank - 1])


def closest(draw: Draw, size: int) -> tuple[str, str]:
    goal, values = signed(draw, size), sorted({signed(draw, size * 2) for _ in range(5)})
    nearest = min(values, key=lambda value: (abs(value - goal), value))
    return f"Which of {listed(values)} is closest to {goal} (the smaller of two)?", str(nearest)


# Measurement


def conversion(draw: Draw, size: int) -> tuple[str, str]:
    table = (LENGTHS, WEIGHTS, TIMES)[int(draw() * 3)]
    small, large = sorted((int(draw() * len(table)), int(draw() * (len(table) - 1))))
    large += small == large
    names, amount = list(table), between(draw, 1, size)
    ratio = table[names[large]] // table[names[small]]
    if draw() < 0.5:
        return f"How many {names[small]} are {amount} {names[large]}?", str(amount * ratio)
    return f"How many {names[large]} are {amount * ratio} {names[small]}?", str(amount)


def time_of_day(draw: Draw, size: int) -> tuple[str, str]:
    start, length = between(draw, 0, 1439), between(draw, 1, min(size * 10, 1400))
    end = (start + length) % 1440
    question = f"It is {start // 60:02d}:{start % 60:02d}. What time is it {length} minutes later?"
    return question, f"{end // 60:02d}:{end % 60:02d}"


# Numbers


def base_conversion(draw: Draw, size: int) -> tuple[str, str]:
    number, source = signed(draw, size * size), between(draw, 2, 16)
    target = between(draw, 2, 15)
    target += target >= source
    return f"Write {in_base(number, source)} (base {source}) in base {target}.", in_base(number, target)


def remainder(draw: Draw, size: int) -> tuple[str, str]:
    number, divisor = between(draw, size, size * size), between(draw, 2, size)
    return f"What remains when {number} is divided by {divisor}?", str(number % divisor)


def greatest_divisor(draw: Draw, size: int) -> tuple[str, str]:
    shared, a, b = between(draw, 1, size), between(draw, 1, size), between(draw, 1, size)
    return f"What is the greatest common divisor of {shared * a} and {shared * b}?", str(gcd(shared * a, shared * b))


def least_multiple(draw: Draw, size: int) -> tuple[str, str]:
    shared, a, b = between(draw, 1, 12), between(draw, 1, size), between(draw, 1, size)
    return f"What is the least common multiple of {shared * a} and {shared * b}?", str(lcm(shared * a, shared * b))


def primality(draw: Draw, size: int) -> tuple[str, str]:
    number = between(draw, 1, min(size * 10, 20_000)) * 2 + 1
    return f"Is {number} a prime number?", str(factors(number) == [number])


def divisibility(draw: Draw, size: int) -> tuple[str, str]:
    divisor, quotient = between(draw, 2, 99), between(draw, 2, size * 10)
    number = divisor * quotient + (between(draw, 1, divisor - 1) if draw() < 0.5 else 0)
    return f"Does {divisor} divide {number}?", str(number % divisor == 0)


def prime_factors(draw: Draw, size: int) -> tuple[str, str]:
    number = between(draw, 2, min(size * 10, 50_000))
    return f"List the prime factors of {number}.", listed(sorted(set(factors(number))))


def place_value(draw: Draw, size: int) -> tuple[str, str]:
    number = between(draw, size * 100, size * size * 1000)
    place = between(draw, 0, len(str(number)) - 1)
    name = ("units", "tens", "hundreds", "thousands")[place] if place < 4 else f"10**{place}"
    return f"What is the {name} digit of {number}?", str(number)[-1 - place]


def rounding(draw: Draw, size: int) -> tuple[str, str]:
    scaled, kept = signed(draw, size * 10**4) * 10 + 1, between(draw, 0, 3)  # never halfway
    step = 10 ** (5 - kept)
    rounded = (abs(scaled) + step // 2) // step
    places = "the nearest integer" if not kept else f"{kept} decimal place{'s' if kept > 1 else ''}"
    return f"Round {decimal(scaled, 5)} to {places}.", decimal(rounded if scaled > 0 else -rounded, kept)


# Polynomials


def sum_of_polynomials(draw: Draw, size: int) -> tuple[str, str]:
    x, (m, n) = pick(draw, LETTERS), numbers(draw, 9, 2)
    f, g = numbers(draw, size, 4), numbers(draw, size, 4)
    total = [m * a + n * b for a, b in zip(f, g, strict=True)]
    wanted = f"{m}*f({x}) {'-' if n < 0 else '+'} {abs(n)}*g({x})"
    return f"Let f({x}) = {polynomial(f, x)} and g({x}) = {polynomial(g, x)}. Calculate {wanted}.", polynomial(total, x)


def collected(draw: Draw, size: int) -> tuple[str, str]:
    x, values = pick(draw, LETTERS), numbers(draw, size, between(draw, 4, 7))
    powers, total = [between(draw, 0, 3) for _ in values], [0] * 4
    for power, value in zip(powers, values, strict=True):
        total[power] += value
    text = " + ".join(f"({polynomial([0] * power + [value], x)})" for power, value in zip(powers, values, strict=True))
    return f"Collect the terms of {text}.", polynomial(total, x)


def value(draw: Draw, size: int) -> tuple[str, str]:
    x, f, at = pick(draw, LETTERS), numbers(draw, size, between(draw, 3, 5)), signed(draw, 12)
    return f"Let h({x}) = {polynomial(f, x)}. What is h({at})?", str(evaluated(f, at))


def expansion(draw: Draw, size: int) -> tuple[str, str]:
    x, f, g = pick(draw, LETTERS), numbers(draw, size, between(draw, 2, 3)), numbers(draw, size, 2)
    return f"Expand ({polynomial(f, x)})*({polynomial(g, x)}).", polynomial(product(f, g), x)


def composition(draw: Draw, size: int) -> tuple[str, str]:
    x, f, g = pick(draw, LETTERS), numbers(draw, min(size, 50), between(draw, 2, 3)), numbers(draw, min(size, 50), 2)
    result = [0]
    for factor in reversed(f):
        result = product(result, g)
        result[0] += factor
    while len(result) > 1 and not result[-1]:
        result.pop()
    return f"Let f({x}) = {polynomial(f, x)} and g({x}) = {polynomial(g, x)}. What is f(g({x}))?", polynomial(result, x)


def power_law(draw: Draw, size: int) -> tuple[str, str]:
    x, (a, b, c) = pick(draw, LETTERS), numbers(draw, min(size, 30), 3)
    total = (a + b) * c
    result = "1" if total == 0 else x if total == 1 else f"{x}**{total}" if total > 0 else f"{x}**({total})"
    return f"Simplify ({x}**({a})*{x}**({b}))**({c}) for positive {x}.", result


# Probability


def drawing(draw: Draw, size: int) -> tuple[str, str]:
    reds, blues = between(draw, 2, min(size, 40)), between(draw, 2, min(size, 40))
    taken, wanted = between(draw, 2, 4), between(draw, 0, 2)
    chance = Fraction(comb(reds, wanted) * comb(blues, taken - wanted), comb(reds + blues, taken))
    question = f"A bag holds {reds} red and {blues} blue balls, and {taken} are taken without putting back. "
    return question + f"How likely are exactly {wanted} red ones?", str(chance)


def sequence_of_letters(draw: Draw, size: int) -> tuple[str, str]:
    a, b = between(draw, 2, min(size, 20)), between(draw, 2, min(size, 20))
    word = "".join(pick(draw, "xy") for _ in range(between(draw, 2, 4)))
    chance = Fraction(perm(a, word.count("x")) * perm(b, word.count("y")), perm(a + b, len(word)))
    question = f"{a} cards say x and {b} cards say y. {len(word)} are drawn, none put back. "
    return question + f"What is the probability of drawing {', '.join(word)} in this order?", str(chance)


def dice(draw: Draw, size: int) -> tuple[str, str]:
    sides, goal = between(draw, 4, 20), between(draw, 2, 30)
    ways = max(0, min(goal - 1, sides) - max(1, goal - sides) + 1)
    return f"Two fair dice have {sides} sides each. What is the probability that they sum to {goal}?", str(
        Fraction(ways, sides**2)
    )


QUESTIONS: tuple[Question, ...] = (
    *(linear_equation, linear_system, quadratic_roots, next_term, general_term),
    *(sum_of_two, multiplication, division, mixed_expression, nearest_root, surd, sum_in_base),
    *(derivative, higher_derivative, slope, definite_integral),
    *(larger, sorted_list, ranked, closest, conversion, time_of_day),
    *(base_conversion, remainder, greatest_divisor, least_multiple, primality, divisibility),
    *(prime_factors, place_value, rounding),
    *(sum_of_polynomials, collected, value, expansion, composition, power_law),
    *(drawing, sequence_of_letters, dice),
)
