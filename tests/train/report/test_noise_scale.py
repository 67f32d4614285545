"""The noise scale is found again in gradients that were drawn with a known one."""

import numpy as np
import pytest

from bluejay.train.report.noise_scale import NoiseScale


@pytest.mark.parametrize("scale", [500.0, 20_000.0])
def test_a_known_noise_scale_is_found_again(scale):
    generator = np.random.default_rng(0)
    dimensions, small, big = 2000, 512, 8192
    gradient = generator.normal(size=dimensions)
    deviation = np.sqrt(
        scale * np.sum(gradient**2) / dimensions
    )  # of a token's gradient, so that tr(S) / |G|^2 = scale
    estimate, found = NoiseScale(small, big), None
    for _ in range(400):
        parts = gradient + generator.normal(size=(big // small, dimensions)) * deviation / np.sqrt(small)
        found = estimate.add(float(np.linalg.norm(parts[0])), float(np.linalg.norm(parts.mean(0))))
    assert found == pytest.approx(scale, rel=0.15)


def test_noise_alone_gives_no_figure_below_the_batch():
    generator = np.random.default_rng(1)
    estimate = NoiseScale(64, 1024)
    for _ in range(300):
        parts = generator.normal(size=(16, 500)) / 8
        found = estimate.add(float(np.linalg.norm(parts[0])), float(np.linalg.norm(parts.mean(0))))
    assert found is None or found > 1024
