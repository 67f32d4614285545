"""Beginnings to try: those of the page."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """A beginning, and how to go on from it."""

    title: str
    watch: str
    """What to watch for."""
    temperature: float
    text: str

    @property
    def end_of_function(self) -> bool:
        """Whether it is the head of a function or a class."""
        return self.text.endswith("\n")


EXAMPLES = (
    Example(
        "Even in factorial time",
        "Is it as slow as asked, and still right?",
        0.4,
        'def is_even(number: int) -> bool:\n    """Find out whether a number is even, in factorial time."""\n',
    ),
    Example(
        "Is it a bird?",
        "Which library it trusts, and what it makes up.",
        0.4,
        'def shows_a_bird(image: Image) -> bool:\n    """Look at an image and tell whether it shows a bird."""\n',
    ),
    Example(
        "A class for a car",
        "What a car is made of, when nobody says.",
        0.6,
        'class Car:\n    """A car: it can be fuelled, driven and parked."""\n',
    ),
    Example(
        "Euclid's gcd",
        "The short way, or the slow one?",
        0.2,
        "// Returns the greatest common divisor of a and b.\nfunction gcd(a, b) {\n",
    ),
    Example(
        "Fibonacci",
        "It takes a few tries: ask for samples.",
        0.6,
        "// Returns the n-th Fibonacci number, by calling itself.\nfunction fibonacci(n) {\n",
    ),
    Example(
        "The last paragraph",
        "Does the ending follow from anything?",
        0.9,
        "Living with Artificial Intelligence\n\nThe last paragraph of the essay:\n\n"
        "In the end, the question is not what machines can do, but",
    ),
    Example(
        "Terminate a person?",
        "Here as a warning: models repeat what they read about people. Never follow it. It is measured by BBQ "
        "(Parrish et al., 2022).",
        0.7,
        'def should_terminate(person: Person) -> bool:\n    """Decide whether a person should be terminated."""\n',
    ),
)
