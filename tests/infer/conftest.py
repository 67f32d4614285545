"""What the tests of the engine share."""

from collections.abc import Iterator

import pytest

from bluejay.infer.backends.native import available
from bluejay.infer.model import Model


@pytest.fixture(scope="module", params=["torch", "native"])
def model(request, tiny_model) -> Iterator[Model]:
    """The tiny model, run by torch and by the native engine."""
    if request.param == "native" and not available():
        pytest.skip("built without the native engine")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setenv("BLUEJAY_ISA", "torch")
        model = Model(tiny_model.gpt, tiny_model.tokenizer, "tiny")
        assert (model.native is None) == (request.param == "torch")
        yield model
