"""The result of a run is whole, or counts as none."""

import pytest

from bluejay.files import write_json
from bluejay.train.checkpoint.result import RESULT, read_result

HELD_OUT = {"nats_per_token": 2.0, "bits_per_byte": 1.0, "components": {}}


@pytest.mark.parametrize(
    ("held_out", "is_read"),
    [
        (HELD_OUT, True),
        (HELD_OUT | {"components": {"a": 0.5}}, True),
        (HELD_OUT | {"bits_per_byte": "x"}, False),
        (HELD_OUT | {"components": [1]}, False),
        ({"nats_per_token": 2.0}, False),
    ],
)
def test_a_result_without_its_figures_is_none(held_out, is_read, tmp_path):
    write_json(tmp_path / RESULT, {"checkpoint": "a", "held_out": held_out, "held_out_data": "b"})
    assert (read_result(tmp_path) is not None) is is_read
