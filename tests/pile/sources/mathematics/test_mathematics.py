"""Generated mathematics: right answers (sympy's), the same text from the same seed."""

import re
from fractions import Fraction
from random import Random
from typing import Any

import pytest
import sympy

from bluejay.pile.sources.mathematics import Mathematics, questions


def documents(count: int, seed: int = 0) -> list[Any]:
    """The first documents of a seed."""
    source = Mathematics(kind="mathematics", documents=count, seed=seed)
    return [found for unit in source.units() for found in source.read(unit)]


def numbers(text: str) -> list[int]:
    """The integers in a text."""
    return [int(number) for number in re.findall(r"-?\d+", text)]


def poly(text: str) -> Any:
    """A polynomial or number as sympy reads it."""
    return sympy.sympify(
        text, rational=True, locals={letter: sympy.Symbol(letter) for letter in "abcdefghijklmnopqrstuvwxyz"}
    )


def same(ours: str, theirs: Any) -> bool:
    """Whether an answer is equal to sympy's."""
    return sympy.expand(poly(ours) - theirs) == 0


def captured(pattern: str, question: str) -> tuple[str, ...]:
    """The parts of a question."""
    found = re.fullmatch(pattern, question)
    assert found, question
    return found.groups()


def check(kind: str, q: str, a: str) -> bool:
    """Whether sympy gives the same answer to a question."""
    match kind:
        case "linear_equation":
            left, right, x = captured(r"Solve (.*) = (.*) for (\w)\.", q)
            return sympy.solve(poly(left) - poly(right), poly(x)) == [int(a)]
        case "linear_system":
            x, f, c, g, d = captured(r"Find (\w) where (.*) = (.*) and (.*) = (.*)\.", q)
            solved = sympy.solve([poly(f) - poly(c), poly(g) - poly(d)], dict=True)
            return solved[0][poly(x)] == int(a)
        case "quadratic_roots":
            x, f = captured(r"Which (\w) satisfy (.*) = 0\?", q)
            return sorted(sympy.solve(poly(f), poly(x))) == numbers(a)
        case "general_term":
            x, terms = captured(r"Give term number (\w) of the sequence (.*)\.", q)
            return all(poly(a).subs(poly(x), at) == term for at, term in enumerate(numbers(terms), start=1))
        case "next_term":
            terms = numbers(q)
            return sympy.interpolate(list(enumerate(terms, start=1)), len(terms) + 1) == int(a)
        case "sum_of_two" | "multiplication":
            left, right = (sympy.Rational(t) for t in re.findall(r"-?\d+(?:\.\d+)?", q))
            wanted = left * right if "times" in q else left + right if "plus" in q else right - left
            return sympy.Rational(a) == wanted
        case "division":
            return sympy.Rational(a) == sympy.Rational(*numbers(q))
        case "mixed_expression":
            return same(a, poly(captured(r"Evaluate (.*)\.", q)[0]))
        case "surd":
            return sympy.sqrt(numbers(q)[0]) == sympy.sympify(a)
        case "nearest_root":
            return sympy.floor(sympy.sqrt(numbers(q)[0]) + sympy.Rational(1, 2)) == int(a)
        case "sum_in_base":
            base, left, right = captured(r"In base (\d+), what is (\S+) \+ (\S+)\?", q)
            return int(left, int(base)) + int(right, int(base)) == int(a, int(base))
        case "base_conversion":
            number, source, target = captured(r"Write (\S+) \(base (\d+)\) in base (\d+)\.", q)
            return int(number, int(source)) == int(a, int(target))
        case "derivative" | "higher_derivative":
            f, x = captured(r"(?:Differentiate|What is the \w+ derivative of) (.*) with respect to (\w)[.?]", q)
            order = 2 if "second" in q else 3 if "third" in q else 1
            return same(a, sympy.diff(poly(f), poly(x), order))
        case "slope":
            f, x, at = captured(r"Find the slope of (.*) at (\w) = (.*)\.", q)
            return sympy.diff(poly(f), poly(x)).subs(poly(x), int(at)) == int(a)
        case "definite_integral":
            f, x, low, high = captured(r"Integrate (.*) from (\w) = (\S+) to \w = (\S+)\.", q)
            return sympy.integrate(poly(f), (poly(x), int(low), int(high))) == int(a)
        case "larger":
            left, right = map(Fraction, captured(r"Which is larger: (.*) or (.*)\?", q))
            return a == "they are equal" if left == right else Fraction(a) == max(left, right)
        case "sorted_list":
            return numbers(a) == sorted(numbers(q), reverse="largest" in q)
        case "remainder":
            return sympy.Mod(*numbers(q)) == int(a)
        case "greatest_divisor":
            return sympy.gcd(*numbers(q)) == int(a)
        case "least_multiple":
            return sympy.lcm(*numbers(q)) == int(a)
        case "primality":
            return str(sympy.isprime(numbers(q)[0])) == a
        case "divisibility":
            divisor, number = numbers(q)
            return str(number % divisor == 0) == a
        case "prime_factors":
            return numbers(a) == sympy.primefactors(numbers(q)[0])
        case "sum_of_polynomials":
            x, f, g, m, sign, n = captured(
                r"Let f\((\w)\) = (.*) and g\(\w\) = (.*)\. Calculate (\S+)\*f\(\w\) (.) (\d+)\*g\(\w\)\.", q
            )
            return same(a, int(m) * poly(f) + int(sign + n) * poly(g))
        case "collected":
            return same(a, poly(captured(r"Collect the terms of (.*)\.", q)[0]))
        case "value":
            x, f, at = captured(r"Let h\((\w)\) = (.*)\. What is h\((.*)\)\?", q)
            return poly(f).subs(poly(x), int(at)) == int(a)
        case "expansion":
            return same(a, poly(captured(r"Expand (.*)\.", q)[0]))
        case "composition":
            x, f, g = captured(r"Let f\((\w)\) = (.*) and g\(\w\) = (.*)\. What is f\(g\(\w\)\)\?", q)
            return same(a, poly(f).subs(poly(x), poly(g)))
        case "power_law":
            f = captured(r"Simplify (.*) for positive \w\.", q)[0]
            return sympy.powsimp(sympy.expand_power_base(poly(f), force=True) / poly(a), force=True) == 1
        case "dice":
            sides, goal = numbers(q)
            ways = sum(1 for first in range(1, sides + 1) if 1 <= goal - first <= sides)
            return Fraction(a) == Fraction(ways, sides**2)
        case "drawing":
            reds, blues, taken, wanted = numbers(q)
            ways = sympy.binomial(reds, wanted) * sympy.binomial(blues, taken - wanted)
            return sympy.Rational(a) == ways / sympy.binomial(reds + blues, taken)
        case "sequence_of_letters":
            left = dict(zip("xy", numbers(q)[:2], strict=True))
            chance = Fraction(1)
            for letter in captured(r".*drawing (.*) in this order\?", q)[0].split(", "):
                chance *= Fraction(left[letter], sum(left.values()))
                left[letter] -= 1
            return Fraction(a) == chance
        case "rounding":
            text, places = captured(r"Round (\S+) to (.*)\.", q)
            kept = 0 if "nearest" in places else int(places[0])
            return sympy.Rational(a) == sympy.Rational(str(round(sympy.Rational(text), kept)))
        case "place_value":
            name, number = captured(r"What is the (\S+) digit of (\d+)\?", q)
            power = {"units": 0, "tens": 1, "hundreds": 2, "thousands": 3}.get(name)
            return sympy.Integer(number) // 10 ** (int(name[4:]) if power is None else power) % 10 == int(a)
        case "ranked":
            words, values = captured(r"What is the (\w+) smallest value in (.*)\?", q)
            return sorted(numbers(values))[questions.ORDINALS.index(words)] == int(a)
        case "closest":
            values, goal = captured(r"Which of (.*) is closest to (\S+) \(the smaller of two\)\?", q)
            distances = [abs(value - int(goal)) for value in numbers(values)]
            return abs(int(a) - int(goal)) == min(distances) and int(a) in numbers(values)
        case "conversion":
            table = {**questions.LENGTHS, **questions.WEIGHTS, **questions.TIMES}
            wanted, amount, given = captured(r"How many (\w+) are (\d+) (\w+)\?", q)
            return int(a) * table[wanted] == int(amount) * table[given]
        case "time_of_day":
            hours, minutes, later = numbers(q)
            return "{:02d}:{:02d}".format(*divmod((hours * 60 + minutes + later) % 1440, 60)) == a
    raise AssertionError(f"no check for {kind}")


@pytest.mark.parametrize("question", questions.QUESTIONS, ids=lambda question: question.__name__)
def test_answers_are_right(question: questions.Question) -> None:
    random = Random(7)
    for size in (10, 100, 10_000):
        for _ in range(15):
            asked, answer = question(random.random, size)
            assert check(question.__name__, asked, answer), (asked, answer)


def test_questions_and_answers_in_turn() -> None:
    made = documents(len(questions.QUESTIONS) * 3)
    assert {document.meta["kind"] for document in made} == {question.__name__ for question in questions.QUESTIONS}
    assert {document.meta["size"] for document in made} == {10, 100, 10_000}
    for document in made:
        lines = document.text.splitlines()
        assert len(lines) % 2 == 0
        assert 7000 < len(document.text) <= 8192
        assert all(lines)


def test_a_document_depends_on_seed_and_number_alone() -> None:
    assert [d.text for d in documents(3)] == [d.text for d in documents(9)[:3]]
    assert not {d.id for d in documents(9)} & {d.id for d in documents(9, seed=1)}
    longer, shorter = (Mathematics(kind="mathematics", documents=count) for count in (1003, 1002))
    assert longer.units() == shorter.units() == ["0", "1000"]
    assert list(longer.read("1000"))[:2] == list(shorter.read("1000"))
