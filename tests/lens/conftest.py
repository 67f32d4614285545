"""What the tests of the lens share: a model of each family."""

import pytest

from bluejay.infer.model import Model
from bluejay.lens.activations import Lens
from tests.lens.families import FAMILIES, random_gpt


@pytest.fixture(scope="session")
def lenses(byte_tokenizer) -> dict[str, Lens]:
    """A model with random weights of each family, by its name."""
    return {name: Lens(Model(random_gpt(name), byte_tokenizer, name)) for name in FAMILIES}


@pytest.fixture(params=FAMILIES)
def lens(lenses, request) -> Lens:
    """The model of each family in turn."""
    return lenses[request.param]
