"""Ways between noises, written a second time with numpy; and inversion, against exact denoisers and its own sampler."""
import math

import numpy as np
import pytest
import torch

from s2dm_mini import GaussianDenoiser, NoiseSchedule, sample
from s2dm_mini.latents import WAYS, interpolate, invert, lerp, slerp

SCHEDULE = NoiseSchedule.linear()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(2,), (3, 8, 8), (1, 5)])
def test_slerp_is_the_formula_with_the_angle_from_arccos(shape):
    a, b = noise(*shape), noise(*shape, seed=1)
    u, v = a.numpy().ravel(), b.numpy().ravel()
    omega = np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
    weights = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0], dtype=torch.float64)
    expected = [(np.sin((1 - w) * omega) * u + np.sin(w * omega) * v) / np.sin(omega) for w in weights.numpy()]
    assert np.allclose(slerp(a, b, weights).flatten(1), expected, atol=1e-12)


def test_slerp_keeps_the_length_and_turns_at_even_speed():
    a, b = noise(3, 16, 16), noise(3, 16, 16, seed=1)
    a, b = a / a.norm(), 1 * b / b.norm()
    way = slerp(a, b, torch.linspace(0, 1, 7, dtype=torch.float64)).flatten(1)
    assert torch.allclose(way.norm(dim=1), torch.ones(7, dtype=torch.float64))
    angles = (way[1:] * way[:-1]).sum(1).acos()
    assert torch.allclose(angles, angles[:1].expand(6))


def test_the_middle_of_a_line_between_noises_has_half_the_variance_and_of_a_circle_all_of_it():
    a, b, half = noise(100_000), noise(100_000, seed=1), torch.tensor([0.5], dtype=torch.float64)
    assert lerp(a, b, half).var().item() == pytest.approx(0.5, abs=0.01)
    assert slerp(a, b, half).var().item() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("way", WAYS)
def test_interpolate_starts_and_ends_at_the_ends(way):
    a, b = noise(3, 4, 4).float(), noise(3, 4, 4, seed=1).float()
    frames = interpolate(a, b, 5, way)
    assert frames.shape == (5, 3, 4, 4) and frames.dtype == torch.float32
    assert torch.allclose(frames[0], a, atol=1e-6) and torch.allclose(frames[-1], b, atol=1e-6)


def test_slerp_between_vectors_of_one_direction_is_the_line_and_between_opposite_ones_refused():
    a = noise(6)
    half = torch.tensor([0.5], dtype=torch.float64)
    assert torch.allclose(slerp(a, 3 * a, half)[0], 2 * a)
    with pytest.raises(ValueError, match="opposite"):
        slerp(a, -a, half)
    assert torch.allclose(slerp(a, a + 1e-9 * noise(6, seed=1), half)[0], a)  # nearly one direction
    for u, v, said in ((a, 0 * a, "zero"), (0 * a, a, "zero"), (a, math.nan * a, "6 of 6 values are NaN")):
        with pytest.raises(ValueError, match=said):
            slerp(u, v, half)


def test_slerp_of_half_precision():
    a, b = noise(200_000).half(), noise(200_000, seed=1).half()
    half = slerp(a, b, torch.tensor([0.5]))
    assert half.dtype == torch.float16
    assert (half[0].double() - (a.double() + b.double()) / 2**0.5).abs().max() < 0.02  # nearly orthogonal: both weights are sin 45°/sin 90°


def test_defaults_are_eight_frames_on_the_circle_and_fifty_plain_uniform_steps():
    a, b = noise(3, 4), noise(3, 4, seed=1)
    assert interpolate(a, b).equal(slerp(a, b, torch.linspace(0, 1, 8, dtype=torch.float64)))
    assert interpolate(a, b, 2, "lerp").equal(torch.stack([a, b]))
    gaussian = GaussianDenoiser(torch.zeros(1), torch.ones(1) / 4, SCHEDULE)
    assert invert(gaussian, a[:, :1], SCHEDULE).equal(invert(gaussian, a[:, :1], SCHEDULE, 50, "uniform", 0))


def test_inversion_keeps_no_record_for_gradients():
    def denoiser(x, t):
        assert not torch.is_grad_enabled()
        return x

    assert not invert(denoiser, noise(1, 2), SCHEDULE, 3).is_inference()


@pytest.mark.parametrize("way", [slerp, lerp])
@pytest.mark.parametrize(("a", "b", "weight", "words"), [
    (torch.ones(3), torch.ones(4), torch.ones(1), r"one shape and type, not torch.float32 of shape \(3,\) and .* \(4,\)"),
    (torch.ones(3), torch.ones(1), torch.ones(1), r"one shape"),
    (torch.ones(3), torch.ones(3).double(), torch.ones(1), "one shape and type"),
    (torch.ones(3).long(), torch.ones(3).long(), torch.ones(1), "floating"),
    (torch.ones(3), torch.ones(3), torch.ones(1, 1), r"weight must be .* \(N,\), .* not .* \(1, 1\)"),
    (torch.ones(3), torch.ones(3), torch.tensor(0.5), r"weight must be .* \(N,\), .* not .* \(\)"),
])
def test_ways_refuse_what_does_not_fit(way, a, b, weight, words):
    with pytest.raises(ValueError, match=words):
        way(a, b, weight)


def test_both_ways_can_be_asked_for_by_name():
    assert list(WAYS.items()) == [("slerp", slerp), ("lerp", lerp)]


@pytest.mark.parametrize(("arguments", "words"), [({"frames": 1}, r"in 2\.\."), ({"way": "nlerp"}, "slerp, lerp"),
                                                  ({"frames": True}, "integer"), ({"frames": 2.5}, "integer")])
def test_interpolate_says_what_is_wrong(arguments, words):
    with pytest.raises(ValueError, match=words):
        interpolate(noise(3), noise(3, seed=1), **arguments)


@pytest.mark.parametrize(("steps", "spacing"), [(5, "uniform"), (10, "quadratic"), (20, "trailing")])
def test_plain_inversion_of_a_gaussian_is_a_product_of_its_steps(steps, spacing):
    v = 0.25
    gaussian, x0 = GaussianDenoiser(torch.zeros(1), torch.tensor([v]), SCHEDULE), noise(9, 1)
    alpha_bar, x, before = SCHEDULE.alpha_bar, x0.clone(), 1.0
    for t in SCHEDULE.timesteps(steps, spacing).flip(0):
        now = alpha_bar[t].item()
        eps = math.sqrt(1 - now) / (now * v + 1 - now) * x  # the network is told t, and shown x of the step before
        x = math.sqrt(now) * ((x - math.sqrt(1 - before) * eps) / math.sqrt(before)) + math.sqrt(1 - now) * eps
        before = now
    assert torch.allclose(invert(gaussian, x0, SCHEDULE, steps, spacing), x, atol=1e-12)


def test_refinements_close_in_on_the_exact_inverse():
    gaussian, x0 = GaussianDenoiser(torch.zeros(2), torch.tensor([0.25, 0.06]), SCHEDULE), 0.5 * noise(5, 2)
    errors = []
    for refinements in (0, 2, 6, 60):
        x_T = invert(gaussian, x0, SCHEDULE, 10, "quadratic", refinements)
        errors.append((sample(gaussian, x_T, SCHEDULE, steps=10, spacing="quadratic") - x0).abs().max().item())
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[3] < 1e-9


def test_inversion_refuses_what_is_not_finite_or_no_number_of_refinements():
    gaussian = GaussianDenoiser(torch.zeros(1), torch.ones(1), SCHEDULE)
    with pytest.raises(ValueError, match="1 of 2 values are NaN"):
        invert(gaussian, torch.tensor([[math.nan], [0.0]]), SCHEDULE)
    with pytest.raises(ValueError, match="floating.*int64"):
        invert(gaussian, torch.zeros(1, 1).long(), SCHEDULE)
    for refinements in (-1, True, 1.0):
        with pytest.raises(ValueError, match=f"refinements .*{refinements!r}"):
            invert(gaussian, torch.zeros(1, 1), SCHEDULE, refinements=refinements)
    with pytest.raises(ValueError, match="left the finite numbers"):
        invert(lambda x, t: x * 1e30, torch.ones(1, 1), SCHEDULE, refinements=3)
    with pytest.raises(ValueError, match="at t = 500"):  # where it happens; a GPU is asked at the end, see test_gpu.py
        invert(lambda x, t: x * torch.where(t[:, None] > 400, math.inf, 0.1), torch.ones(1, 1), SCHEDULE, steps=10)


A, HALFWAY = torch.ones(3), torch.tensor([0.5])


@pytest.mark.parametrize(("call", "said"), [
    (lambda: interpolate(A, -A, 1), "frames must be an integer in 2..10000, not 1"),
    (lambda: interpolate(A, -A, 10_001), "frames must be an integer in 2..10000, not 10001"),
    (lambda: interpolate(A, -A, way=1), "way must be one of slerp, lerp"),
    (lambda: interpolate([1.0], A), "a must be a floating tensor"),
    (lambda: lerp([1.0], A, HALFWAY), "a must be a floating tensor"),
    (lambda: lerp(A, [1.0], HALFWAY), "b must be a floating tensor"),
    (lambda: lerp(A, A, torch.tensor([0.1, math.inf])), "a, b and weight must be finite.*1 of 2 values"),
    (lambda: invert(None, A[None], SCHEDULE), "denoiser must be a function"),
    (lambda: invert(lambda x, t: x, [1.0], SCHEDULE), "x0 must be a floating tensor"),
    (lambda: invert(lambda x, t: x, A[None] * math.nan, SCHEDULE), "x0 must be finite"),
    (lambda: invert(lambda x, t: x, A[None], 1000), "schedule must be of the class NoiseSchedule"),
    (lambda: invert(lambda x, t: x, A[None], SCHEDULE, refinements=1_001), r"refinements must be an integer in 0\.\.1000"),
])
def test_a_refusal_names_what_it_refuses(call, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        call()


def test_as_many_frames_and_refinements_as_there_may_be():
    assert interpolate(A, 2 * A, 10_000, "lerp").shape == (10_000, 3)
    assert invert(lambda x, t: 0 * x, A[None], SCHEDULE, steps=1, refinements=1_000).isfinite().all()
