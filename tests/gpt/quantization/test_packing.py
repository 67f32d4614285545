"""The formats: what error a number of bits buys, and that packing loses nothing more."""

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st

from bluejay.gpt.quantization.packing import FORMATS, QUANTISED, pack, unpack
from bluejay.native import native


def relative_error(weight: torch.Tensor, stored: torch.Tensor) -> float:
    return ((weight - stored).square().sum() / weight.square().sum()).item()


def students_t(rows: int) -> torch.Tensor:
    return torch.distributions.StudentT(5.0).sample((rows, 256))


@pytest.mark.parametrize("draw", [lambda rows: torch.randn(rows, 256), students_t], ids=["gaussian", "student-t5"])
@pytest.mark.parametrize(("format", "peer"), [("q4", "Q4_0"), ("q8", "Q8_0")])
def test_fewer_bits_than_the_peer_format_at_no_more_error(draw, format, peer):
    torch.manual_seed(0)
    weight = draw(2048)
    kind = GGMLQuantizationType[peer]
    theirs = quants.quantize(weight.numpy(), kind)
    ours = pack(weight, FORMATS[format])
    assert ours.scales is not None
    assert ours.data.nbytes + ours.scales.nbytes < 0.98 * theirs.nbytes
    error = relative_error(weight, torch.from_numpy(quants.dequantize(theirs, kind)))
    # One scale for 64 weights instead of 32 costs q8 a little; the likelihood of text does not feel it.
    assert relative_error(weight, unpack(ours)) < {"q4": 1.0, "q8": 1.6}[format] * error


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 70),
    columns=st.integers(1, 200),
    format=st.sampled_from(["f32", "bf16"]),
    seed=st.integers(0, 9),
)
def test_packing_without_quantising_loses_nothing(rows, columns, format, seed):
    dtype = torch.float32 if format == "f32" else torch.bfloat16
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)
    packed = pack(weight, FORMATS[format])
    assert packed.data.shape == FORMATS[format].data_shape((rows, columns))
    assert torch.equal(unpack(packed), weight.float())


@pytest.mark.parametrize("format", ["q8", "q4"])
def test_quantising_what_was_quantised_changes_nothing(format):
    weight = unpack(pack(torch.randn(40, 130, generator=torch.Generator().manual_seed(0)), FORMATS[format]))
    again = unpack(pack(weight, FORMATS[format]))
    assert relative_error(weight, again) < 1e-5


@pytest.mark.parametrize("format", ["q8", "q4"])
def test_zeros_stay_zeros_and_one_outlier_keeps_its_place(format):
    weight = torch.zeros(16, 128)
    weight[3, 70] = -5.0
    stored = unpack(pack(weight, FORMATS[format]))
    assert stored[3, 70] == pytest.approx(-5.0, rel=1e-2)
    assert (stored[:, :64] == 0).all()


@pytest.mark.skipif(native is None, reason="built without the native engine")
@pytest.mark.parametrize("format", ["q8", "q4"])
def test_the_native_quantiser_is_torchs(format):
    weight = students_t(500).unflatten(1, (-1, 64))
    weight[3, 2] = 0
    importance = torch.rand(weight.shape[1:]).exp()
    importance[1, 32:] = 0
    kind = QUANTISED[format]
    native, reference = (each(weight, importance) for each in (kind.quantize, kind.quantize_with_torch))
    # Two scales of equal gain may be told apart by the order of a sum.
    assert np.mean([(ours != theirs).float().mean() for ours, theirs in zip(native, reference, strict=True)]) < 0.005
