"""What `bluejay info` says is what the other verbs do."""

import pytest

from bluejay.gpt.info import info
from bluejay.native import native


@pytest.mark.skipif(native is None, reason="there is no native engine to choose against")
@pytest.mark.parametrize(
    ("isa", "begins", "ends"),
    [
        (None, "native, with kernels", "portable"),
        ("torch", "torch, ", "portable"),
        ("portable", "native", "chooses portable"),
        ("sse", "none: BLUEJAY_ISA is sse", "the other choice"),
    ],
)
def test_the_engine_is_the_one_that_the_environment_chooses(isa, begins, ends, monkeypatch):
    monkeypatch.delenv("BLUEJAY_ISA", raising=False)
    if isa is not None:
        monkeypatch.setenv("BLUEJAY_ISA", isa)
    engine = info("gpt2").engine
    assert engine.startswith(begins) and engine.endswith(ends)
