"""The Gaussian prediction: known numbers, the closed form of DDIM, and a sampling run with a full covariance."""
import math

import pytest
import torch

from s2dm_mini.denoisers import GaussianDenoiser, Shrunk
from s2dm_mini.losses import shrinkage
from s2dm_mini.samplers import sample
from s2dm_mini.schedule import NoiseSchedule
from s2dm_mini.theory.gaussian import (
    best_scale,
    cifar10_eigenvalues,
    gaussian_ddim_variance,
    gaussian_distance,
    gaussian_variance,
)

SCHEDULE = NoiseSchedule.linear()


def test_the_shipped_eigenvalues():
    v = cifar10_eigenvalues()
    assert v.shape == (3072,) and v.dtype == torch.float64 and bool((v.diff() <= 0).all()) and v[-1] >= 0
    assert v[0].item() == pytest.approx(221.45, abs=0.1) and v.sum().item() == pytest.approx(761.6, abs=0.1)
    assert v.median().item() == pytest.approx(0.00166, abs=1e-5)


@pytest.mark.parametrize(("steps", "l0", "s2dm10", "s2dm50"),
                         [(5, 84.7, -0.020, -0.133), (10, 27.4, -0.044, -0.292), (20, 8.42, -0.082, -0.497),
                          (50, 1.69, -0.175, -0.712), (100, 0.507, -0.293, -0.159)])
def test_ddim_on_the_uniform_grid(steps, l0, s2dm10, s2dm50):
    """Against figures worked out from the images by other code."""
    v = cifar10_eigenvalues()
    base = gaussian_distance(v, SCHEDULE, "ddim", steps)
    assert base == pytest.approx(l0, rel=2e-3)
    for skip, change in ((9, s2dm10), (49, s2dm50)):
        distance = gaussian_distance(v, SCHEDULE, "ddim", steps, scale=shrinkage(SCHEDULE, skip, 0.99))
        assert distance / base - 1 == pytest.approx(change, abs=6e-4)


@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
@pytest.mark.parametrize("scale", [1.0, 0.98, shrinkage(SCHEDULE, 49, 0.9)], ids=["plain", "constant", "s_t"])
def test_ddim_equals_its_product_formula(spacing, scale):
    v = torch.tensor([4.0, 0.25, 1e-3])
    expected = gaussian_ddim_variance(v, SCHEDULE, SCHEDULE.timesteps(10, spacing), scale)
    torch.testing.assert_close(gaussian_variance(v, SCHEDULE, "ddim", 10, spacing, scale), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("sampler", ["ddim", "f-pndm", "tab-deis-3", "dpm-solver++"])
def test_every_sampler_against_samples_in_a_turned_basis(sampler):
    """10 directions at an angle to the pixels, 20,000 samples drawn and their covariance measured."""
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(10, 10, generator=generator, dtype=torch.float64))
    v = torch.logspace(1, -2, 10, dtype=torch.float64)
    exact = GaussianDenoiser(torch.zeros(10, dtype=torch.float64), basis @ v.diag() @ basis.T, SCHEDULE)
    denoiser = Shrunk(exact, shrinkage(SCHEDULE, 49, 0.9))
    x_T = torch.randn(20_000, 10, generator=generator, dtype=torch.float64)
    x = sample(denoiser, x_T, SCHEDULE, sampler, 10, "uniform")
    measured = ((x @ basis).square().mean(0) / (x_T @ basis).square().mean(0))  # of the very noise that was drawn: no Monte-Carlo error
    expected = gaussian_variance(v, SCHEDULE, sampler, 10, "uniform", shrinkage(SCHEDULE, 49, 0.9))
    torch.testing.assert_close(measured, expected, rtol=1e-9, atol=0)
    distance = sum((math.sqrt(out) - math.sqrt(true)) ** 2 for out, true in zip(expected.tolist(), v.tolist(), strict=True))
    assert gaussian_distance(v, SCHEDULE, sampler, 10, "uniform", shrinkage(SCHEDULE, 49, 0.9)) == pytest.approx(distance, rel=1e-12)


def test_samplers_that_add_noise_are_refused():
    with pytest.raises(ValueError, match="ddpm adds noise"):
        gaussian_variance(torch.ones(2), SCHEDULE, "ddpm")


def test_the_best_scale_beats_its_neighbours():
    v = cifar10_eigenvalues()
    best = best_scale(v, SCHEDULE, "ddim", 10)
    assert best == pytest.approx(1.048, abs=1e-3)
    at = lambda lam: gaussian_distance(v, SCHEDULE, "ddim", 10, scale=1 / lam)  # noqa: E731
    assert at(best) < min(at(best - 0.002), at(best + 0.002), at(1.0))
