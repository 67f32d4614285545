"""Tensors have the shapes of the signatures: tests that are run once more, with the checks of jaxtyping and beartype.

The checks make a model three times slower, so that the other tests go without them in `make test`; `make test FILE=...`
and `make test-slow` have them everywhere.
"""

import os
import subprocess
import sys
from pathlib import Path

CHECKS = "--jaxtyping-packages=bluejay.gpt,bluejay.lens,bluejay.train,beartype.beartype"
FILES = (
    "gpt/test_model.py",
    "gpt/test_attention.py",
    "lens/test_activations.py",
    "train/test_lora.py",
)


def test_shapes_are_those_of_the_signatures():
    known = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-m", "not slow", "-p", "no:cacheprovider", CHECKS]
    files = [f"tests/{name}" for name in FILES]
    subprocess.run([*command, *files], cwd=Path(__file__).parents[1], env=known, check=True)
