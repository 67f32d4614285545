"""The end of a function, found in a text that grows."""

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
"""Prompt, what the model added, and what of it belongs to the function: None up to its brace, ... while it is open."""


@pytest.mark.parametrize(("prompt", "added", "kept"), CASES)
def test_function_ends_where_its_block_does(prompt, added, kept):
    end = function_end(prompt, added)
    if kept is ...:
        assert end is None
    else:
        assert added[:end] == (added[: added.index("\n}\n") + 2] if kept is None else kept)
        # A stream stops there at the latest a line on, and never before.
        assert function_end(prompt, added[: end - 1]) is None
