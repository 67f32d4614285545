"""Hardware descriptions load, transfer times follow from them, and this machine is measured."""

from pathlib import Path

import pytest
import torch

from bluejay.plan.hardware import Hardware, Link, load, matmul_rate, measure, split_overrides

DIRECTORY = Path(__file__).parents[2] / "recipes" / "hardware"


@pytest.mark.parametrize("path", sorted(DIRECTORY.glob("*.toml")), ids=lambda path: path.stem)
def test_the_descriptions_load(path):
    hardware = load(path, [])
    assert hardware.devices % hardware.node == 0
    assert 0.3 < hardware.matmul_share <= 1
    assert load(Path(path.stem), []) == load(Path(path.name), []) == hardware


def test_unknown_hardware_is_answered_with_what_is_known():
    with pytest.raises(FileNotFoundError, match=r"no hardware at b200; .*h100, h200, .* come with bluejay"):
        load(Path("b200"), [])


def test_float32_is_planned_as_it_is_computed():
    h100 = load(DIRECTORY / "h100.toml", [])
    assert [h100.rate(precision) / 1e12 for precision in ("float32", "tf32", "bfloat16")] == [67, 494, 989]
    assert cluster().rate("tf32") == cluster().rate("float32")


def cluster() -> Hardware:
    fast, slow = Link(300.0, 0.5, 1e-6), Link(25.0, 1.0, 2e-5)
    return Hardware("a cluster", 64, 8, 80.0, 2000.0, 300.0, 150.0, fast, slow)


def test_a_ring_within_a_node_is_as_fast_as_the_links_in_it():
    assert cluster().seconds_to_send(1.5e9, 8, 1) == pytest.approx(0.01 + 7e-6)
    assert cluster().seconds_to_send(1.5e9, 2, 4) == pytest.approx(0.01 + 1e-6)


def test_rings_across_nodes_share_the_nodes_network_cards():
    alone = cluster().seconds_to_send(1e9, 8, 8)  # one member in each node: one card's worth
    assert alone == pytest.approx(1 / 25 + 7 * 2e-5)
    together = cluster().seconds_to_send(1e9, 16, 4)  # two members in each
    assert together == pytest.approx(1 / 50 + 8e-6 + 7 * 2e-5)
    whole = cluster().seconds_to_send(1e9, 64, 1)  # eight cards, more than the links within the node carry
    assert whole == pytest.approx(1 / 150 + 56e-6 + 7 * 2e-5)
    assert cluster().seconds_to_send(1e9, 1, 1) == 0.0


def test_overrides_of_hardware_are_separated_from_those_of_the_recipe():
    mixed = ["--train.lr", "1", "--hardware.devices", "8", "--seed=3", "--hardware.inside.share=0.5"]
    assert split_overrides(mixed) == (["--train.lr", "1", "--seed=3"], ["--devices", "8", "--inside.share=0.5"])


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("bandwidth", "0", r"bandwidth is 0\.0; it must be above 0"),
        ("network.bandwidth", "0", r"network\.bandwidth is 0\.0; it must be above 0"),
        ("inside.share", "-0.5", r"inside\.share is -0\.5; it must be above 0 and at most 1"),
        ("bandwidth_share", "0", r"bandwidth_share is 0\.0; it must be above 0 and at most 1"),
        ("matmul_share", "5", r"matmul_share is 5\.0; it must be above 0 and at most 1"),
        ("price", "-1", r"price is -1\.0; it must be at least 0"),
        ("bfloat16", "nan", r"bfloat16 is nan; it must be above 0"),
        ("memory", "inf", r"memory is inf; it must be above 0"),
    ],
)
def test_an_impossible_figure_is_one_sentence(field, value, reason):
    with pytest.raises(ValueError, match=r"h100\.toml: " + reason):
        load(DIRECTORY / "h100.toml", [f"--{field}", value])


def test_this_machine_is_measured():
    here = measure()
    assert here.devices >= 1 and here.memory > 1 and 0 < here.matmul_share <= 1
    assert 1e-3 < here.float32 < 1e3 and here.bfloat16 > 1e-3 and here.bandwidth > 0.5
    rate = matmul_rate(torch.device("cpu"), torch.float32)
    assert rate == pytest.approx(1e12 * here.float32, rel=2.0)
