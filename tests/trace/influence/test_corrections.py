"""The product of two corrected gradients is that of one and of what the optimizer makes of the other."""

import pytest
import torch

from bluejay.trace.influence import corrections
from bluejay.trace.influence.corrections import corrected, random_rows
from bluejay.trace.influence.gradients import Sides

ROWS, COLUMNS = 12, 20


def product(sides: Sides, a: torch.Tensor, b: torch.Tensor) -> float:
    return float(((sides.left @ a @ sides.right.T) * (sides.left @ b @ sides.right.T)).sum())


@pytest.fixture
def whole(monkeypatch) -> Sides:
    """Sides that change nothing; without damping, the correction is the optimizer's own."""
    monkeypatch.setattr(corrections, "DAMPING", 0.0)
    return Sides(random_rows(32, ROWS, ""), random_rows(32, COLUMNS, ""))


def draw(seed: int, rows: int = ROWS, columns: int = COLUMNS) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_adams_is_a_division_by_the_root_of_the_second_moment(whole):
    moment = draw(1, ROWS, 1).square() @ draw(2, 1, COLUMNS).square() * 1e-7
    sides, a, b = corrected(whole, {"exp_avg_sq": moment}), draw(3), draw(4)
    assert product(sides, a, b) == pytest.approx(float((a * b / moment.sqrt()).sum()), rel=1e-4)


def test_muons_makes_of_its_momentum_an_orthogonal_matrix(whole):
    momentum, other = draw(5, ROWS, ROWS), draw(6, ROWS, ROWS)
    sides = corrected(Sides(whole.left, whole.left), {"momentum_buffer": momentum})
    u, _, v = torch.linalg.svd(momentum, full_matrices=False)
    assert product(sides, other, momentum) == pytest.approx(float((other * (u @ v)).sum()), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("name", ["exp_avg_sq", "momentum_buffer"])
def test_a_matrix_that_was_never_updated_is_not_divided_by_nothing(name):
    plain = Sides(random_rows(4, ROWS, "left"), random_rows(4, COLUMNS, "right"))
    sides = corrected(plain, {name: torch.zeros(ROWS, COLUMNS)})
    assert torch.isfinite(sides.left).all() and torch.isfinite(sides.right).all()
