"""Finding the end of a function in a text that grows. The page is tested with the same cases."""

import pytest

from bluejay.terminal.function_end import function_end

CASES = [
    ("def f(x):\n", "    return x\n\n\ndef g():\n", "    return x"),
    (
        "def f(x):",
        "\n    if x:\n        return 1\n    return 2\nprint(f(1))",
        "\n    if x:\n        return 1\n    return 2",
    ),
    ("class A:\n    def f(self):\n", "        return 1\n\n    def g(self):\n", "        return 1"),
    ("class Car:\n", '    """A\ncar."""\n    x = 1\n\nCar()', '    """A\ncar."""\n    x = 1'),
    ("def f(\n", "    a,\n    b,\n):\n    return a\n\nx = 1", "    a,\n    b,\n):\n    return a"),
    ("# A sum.\n", "def add(a, b):\n    return a + b\n\n\nimport os", "def add(a, b):\n    return a + b"),
    ("function f(a) {\n", "  if (a) { return '}'; } // }\n  return 2;\n}\nf(1);", None),
    ("class A {\n  int f() {\n", "    return 1;\n  }\n  int g() {", "    return 1;\n  }"),
    ("int gcd(int a, int b)\n", "{\n  return b ? gcd(b, a % b) : a;\n}\nint main", None),
    ("def f(x):\n", "    return x\n", ...),
    ("Once upon a time", " there was {nothing", ...),
]
"""Prompt, addition, and the part of it that belongs to the function: None for all up to the first line that is a brace,
... if the function has not ended."""


@pytest.mark.parametrize(("prompt", "added", "kept"), CASES)
def test_function_ends_where_its_block_does(prompt, added, kept):
    end = function_end(prompt, added)
    if kept is ...:
        assert end is None
    else:
        assert added[:end] == (added[: added.index("\n}\n") + 2] if kept is None else kept)
        # Without its last character the function has not ended.
        assert function_end(prompt, added[: end - 1]) is None
