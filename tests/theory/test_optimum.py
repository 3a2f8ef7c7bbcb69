"""The best s_t: exact distances against formulas and samples, optima against scans and against each other."""
import math

import pytest
import torch

from s2dm_mini.denoisers import MixtureDenoiser, Shrunk
from s2dm_mini.losses import shrinkage
from s2dm_mini.samplers import sample
from s2dm_mini.schedule import NoiseSchedule
from s2dm_mini.theory.gaussian import best_scale, cifar10_eigenvalues, gaussian_ddim_variance, gaussian_distance
from s2dm_mini.theory.optimum import (
    best_constant,
    best_free,
    best_line,
    best_skip_tau,
    gaussian_objective,
    mixture_objective,
    mixture_quantiles,
)
from s2dm_mini.theory.scales import line

SCHEDULE = NoiseSchedule.linear()
V = torch.logspace(1, -2, 12, dtype=torch.float64)
PLAIN = torch.ones(SCHEDULE.T, dtype=torch.float64)


@pytest.mark.parametrize("sampler", ["ddim", "f-pndm", "tab-deis-3", "dpm-solver++"])
def test_the_gaussians_distance_and_its_derivative(sampler):
    distance = gaussian_objective(V, SCHEDULE, sampler, 6)
    scale = shrinkage(SCHEDULE, 49, 0.9).requires_grad_(True)
    value = distance(scale)
    assert value.item() == pytest.approx(gaussian_distance(V, SCHEDULE, sampler, 6, scale=scale.detach()), rel=1e-12)
    value.backward()
    t = int(SCHEDULE.timesteps(6)[2])
    up, down = (scale.detach().clone().index_add(0, torch.tensor([t]), torch.tensor([h], dtype=torch.float64)) for h in (1e-6, -1e-6))
    assert scale.grad[t].item() == pytest.approx(float(distance(up) - distance(down)) / 2e-6, rel=1e-5)
    with pytest.raises(ValueError, match="ddpm adds noise"):
        gaussian_objective(V, SCHEDULE, "ddpm")(PLAIN)


def test_one_direction_can_be_mended_entirely():
    """A single Gaussian direction has one number to get right, its variance: the constant alone suffices."""
    distance = gaussian_objective(torch.tensor([0.25]), SCHEDULE, "ddim", 10)
    best = best_constant(distance)
    assert best.distance < 1e-12 < 1e-3 < float(distance(PLAIN))
    mended = gaussian_ddim_variance(0.25, SCHEDULE, SCHEDULE.timesteps(10), 1 / best.numbers[0])
    assert mended.item() == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
def test_wider_families_do_better_and_each_is_at_its_best(spacing):
    v = cifar10_eigenvalues()[::32]
    distance = gaussian_objective(v, SCHEDULE, "ddim", 8, spacing)
    constant, straight, free = best_constant(distance), best_line(distance), best_free(distance, SCHEDULE, "ddim", 8, spacing)
    two = best_skip_tau(distance, SCHEDULE, (9, 49))
    assert constant.numbers[0] == pytest.approx(best_scale(v, SCHEDULE, "ddim", 8, spacing), abs=1e-3)
    assert free.distance < straight.distance <= constant.distance < float(distance(PLAIN)) and two.distance < float(distance(PLAIN))
    for best, name in ((constant, "constant"), (straight, "line"), (free, "free"), (two, "skip and τ")):
        assert best.scale.shape == (1000,) and float(distance(best.scale)) == pytest.approx(best.distance, rel=1e-9), name
    torch.testing.assert_close(straight.scale, line(*straight.numbers), rtol=1e-12, atol=0)
    torch.testing.assert_close(two.scale, shrinkage(SCHEDULE, *two.numbers), rtol=1e-12, atol=0)
    torch.testing.assert_close(free.scale[SCHEDULE.timesteps(8, spacing)], torch.tensor(free.numbers, dtype=torch.float64))
    for a, b in ((1e-3, 0), (0, 1e-3), (1e-3, -1e-3)):  # no neighbour is better
        first, last = straight.numbers
        assert min(float(distance(line(first + a, last + b))), float(distance(line(first - a, last - b)))) > straight.distance
    skip, tau = two.numbers
    assert all(float(distance(shrinkage(SCHEDULE, int(skip), 1 - (1 - tau) * f))) > two.distance * (1 - 1e-6) for f in (0.9, 1.1))


def test_half_steps_are_free_between_their_neighbours():
    for sampler, grid, steps, asked in (("f-pndm", "quadratic", 5, [800, 625, 450, 325, 200, 125, 50, 0]),  # Runge–Kutta's middles, too
                                        ("ddim", "uniform", 4, [750, 500, 250, 0])):
        best = best_free(gaussian_objective(V, SCHEDULE, sampler, steps, grid), SCHEDULE, sampler, steps, grid)
        assert best.scale.ne(1).nonzero()[:, 0].tolist() == sorted(asked) and best.scale[asked].tolist() == list(best.numbers)
    distance = gaussian_objective(V, SCHEDULE, "f-pndm", 10, "quadratic")
    free = best_free(distance, SCHEDULE, "f-pndm", 10, "quadratic")
    assert free.distance < best_constant(distance).distance and len(free.numbers) == int((free.scale != 1).sum())
    assert {557, 558} <= set(free.scale.ne(1).nonzero()[:, 0].tolist())


MIXTURE = MixtureDenoiser(torch.tensor([[-1.0], [0.2], [1.0]]), torch.tensor([0.05, 0.1, 0.2]), SCHEDULE, torch.tensor([0.3, 0.2, 0.5]))


def test_quantiles_of_a_mixture():
    p = torch.tensor([1e-4, 0.1, 0.3, 0.5, 0.999], dtype=torch.float64)
    for x, wanted in zip(mixture_quantiles(MIXTURE, p).tolist(), p.tolist(), strict=True):
        parts = zip((0.3, 0.2, 0.5), (-1.0, 0.2, 1.0), (0.05, 0.1, 0.2), strict=True)
        assert sum(w * 0.5 * (1 + math.erf((x - m) / s / 2**0.5)) for w, m, s in parts) == pytest.approx(wanted, abs=1e-7)


def test_one_gaussian_as_a_mixture_gives_the_gaussians_distance():
    alone = MixtureDenoiser(torch.tensor([[0.0]]), 0.5, SCHEDULE)
    for scale in (PLAIN, shrinkage(SCHEDULE, 49, 0.9)):
        expected = gaussian_distance(torch.tensor([0.25]), SCHEDULE, "ddim", 10, scale=scale)
        assert float(mixture_objective(alone, SCHEDULE, "ddim", 10)(scale)) == pytest.approx(expected, rel=2e-3)


def test_distance_of_a_mixture_against_samples():
    """40,000 samples drawn at random, sorted, against as many data: the same number, to sampling error."""
    exact = float(mixture_objective(MIXTURE, SCHEDULE, "ddim", 4)(PLAIN))
    generator, n = torch.Generator().manual_seed(0), 40_000
    drawn = sample(MIXTURE, torch.randn(n, 1, generator=generator, dtype=torch.float64), SCHEDULE, "ddim", 4)[:, 0].sort().values
    component = torch.multinomial(torch.tensor([0.3, 0.2, 0.5]), n, replacement=True, generator=generator)
    data = torch.tensor([-1.0, 0.2, 1.0])[component] + torch.tensor([0.05, 0.1, 0.2])[component] * torch.randn(n, generator=generator)
    assert (drawn - data.sort().values).square().mean().item() == pytest.approx(exact, rel=0.05)
    with pytest.raises(ValueError, match="D = 1, not D = 2"):
        mixture_objective(MixtureDenoiser(torch.zeros(1, 2), 0.1, SCHEDULE), SCHEDULE)


def test_best_constant_of_a_mixture_beats_its_neighbours():
    distance = mixture_objective(MIXTURE, SCHEDULE, "ddim", 6, points=400)
    best = best_constant(distance)
    at = [float(distance(PLAIN / (best.numbers[0] + d))) for d in (-0.002, 0.002)]
    assert best.distance <= min(at) and best.distance < float(distance(PLAIN))
    assert isinstance(Shrunk(MIXTURE, best.scale), Shrunk)


@pytest.mark.parametrize(("steps", "spacing", "best", "gain"), [
    (5, "uniform", 1.077, -0.696), (10, "uniform", 1.048, -0.836), (20, "uniform", 1.026, -0.812), (50, "uniform", 1.011, -0.758),
    (100, "uniform", 1.006, -0.706), (10, "quadratic", 1.050, None), (20, "quadratic", 1.034, None)])
def test_best_constants_for_cifar10(steps, spacing, best, gain):
    """Against figures worked out from the images by other code; those gains are at λ rounded to three digits."""
    distance = gaussian_objective(cifar10_eigenvalues(), SCHEDULE, "ddim", steps, spacing)
    found = best_constant(distance)
    assert found.numbers[0] == pytest.approx(best, abs=6e-4)
    assert gain is None or found.distance / float(distance(PLAIN)) - 1 == pytest.approx(gain, abs=3e-3)
