"""Every sampler against what must hold: formulas, exact integrals, orders of convergence, counted calls, and bad input."""
import gc
import importlib
import math
import re
from itertools import islice

import mpmath
import numpy as np
import pytest
import torch
from benchmarks.sampler_tables import SLOPE_STEPS, slope_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from s2dm_mini import SAMPLERS, GaussianDenoiser, MixtureDenoiser, NoiseSchedule, Shrunk, sample, shrinkage, trajectory
from s2dm_mini.data.points import RING_STD, ring_means
from s2dm_mini.samplers import Sampler, _walk
from s2dm_mini.samplers.common import CLEAN, NoisePredictor, Step, fresh_noise, strides
from s2dm_mini.samplers.deis import deis_coefficients
from s2dm_mini.schedule import SPACINGS, per_image

pytestmark = pytest.mark.filterwarnings("ignore:the (quadratic|logsnr) grid")
SCHEDULE = NoiseSchedule.linear()
RING = MixtureDenoiser(ring_means(), RING_STD, SCHEDULE)
DETERMINISTIC = [name for name, sampler in SAMPLERS.items() if sampler.deterministic]
every_sampler = pytest.mark.parametrize("name", SAMPLERS)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=seeded(), dtype=dtype)


class GaussianData:
    """ε for data N(0, v) in every number, of any shape: √(1−ᾱ)/(ᾱv + 1 − ᾱ)·x. Keeps the timesteps it was asked at."""

    def __init__(self, v, schedule):
        self.v, self.schedule, self.asked = v, schedule, []

    def __call__(self, x, t):
        self.asked.append(t)
        a = self.schedule.alpha_bar_at(t)
        return per_image((1 - a).sqrt() / (a * self.v + 1 - a), x) * x


# ------------------------------------------------------------------------------------------------ exact outcomes

def variance_factor(grid, v, eta=0.0, schedule=SCHEDULE):
    """What one run multiplies x_T by for data N(0, v), the noise added on the way held fixed; DDIM(η), in the posterior's words."""
    a = [schedule.alpha_bar[t].item() for t in grid] + [1.0]
    factor = 1.0
    for now, then in zip(a, a[1:], strict=False):
        g = math.sqrt(1 - now) / (now * v + 1 - now)  # ε = g·x
        sigma = eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
        factor *= math.sqrt(then / now) * (1 - math.sqrt(1 - now) * g) + math.sqrt(max(1 - then - sigma**2, 0)) * g
    return factor


@pytest.mark.parametrize(("name", "eta"), [("ddim", 0.0), ("ddim", 0.3), ("ddim", 1.0), ("ddpm", 1.0), ("ddpm-large", 1.0),
                                           ("tab-deis-0", 0.0)])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 10, 57])
def test_gaussian_variance_product(name, eta, spacing, steps):
    # The samples' dependence on x_T, from two starts under one seed. DDPM is DDIM with η = 1; the large variance only adds more noise.
    v, x = 0.25, torch.tensor([1.0, -2.0], dtype=torch.float64)
    denoiser = GaussianDenoiser(torch.zeros(()), torch.tensor([v]), SCHEDULE)
    take = {"eta": eta} if name == "ddim" else {}
    ends = [sample(denoiser, start, SCHEDULE, name, steps, spacing, generator=seeded(3), **take) for start in (x, 0 * x)]
    factor = (ends[0] - ends[1]) / x
    expected = variance_factor(SCHEDULE.timesteps(steps, spacing).tolist(), v, eta)
    torch.testing.assert_close(factor.square(), torch.full_like(factor, expected**2), rtol=1e-12, atol=1e-12 * v)


@every_sampler
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 11])
def test_one_point_of_data_is_found_in_any_number_of_steps(name, steps):
    # With all data at μ, ε = (x − √ᾱ·μ)/√(1−ᾱ) stays what it is along the ODE, so that every order is exact at every step.
    mu, x = torch.tensor([[0.7, -0.3]], dtype=torch.float64), noise(5, 2)
    denoiser = MixtureDenoiser(mu, 0.0, SCHEDULE)
    grid = SCHEDULE.timesteps(steps)
    a = SCHEDULE.alpha_bar_at(grid[:1])
    eps = (x - a.sqrt() * mu) / (1 - a).sqrt()
    walk = list(trajectory(denoiser, x, SCHEDULE, name, steps, generator=seeded()))
    assert [step.t for step in walk] == grid[1:].tolist() + [CLEAN]
    for t, state, x0 in walk:
        torch.testing.assert_close(x0, mu.expand_as(x), rtol=0, atol=1e-10)
        if SAMPLERS[name].deterministic:
            a = 1.0 if t == CLEAN else SCHEDULE.alpha_bar[t].item()
            torch.testing.assert_close(state, a**0.5 * mu + (1 - a) ** 0.5 * eps, rtol=0, atol=1e-11)
    torch.testing.assert_close(walk[-1].x, mu.expand_as(x), rtol=0, atol=1e-10)


def log_linear(schedule):
    """ᾱ at any time from −1 on, written with numpy."""
    log_alpha_bar = np.log(np.concatenate([[1.0], schedule.alpha_bar.numpy()]))
    return lambda t: math.exp(np.interp(t, np.arange(-1, schedule.T), log_alpha_bar))


@pytest.mark.parametrize("steps", [2, 4, 7, 9, 90])
def test_f_pndm_between_timesteps(steps):
    # T = 91: odd strides, so that half steps fall between timesteps. One number of data N(0, v), in y = x/√ᾱ: dy = ε dρ.
    schedule, v = NoiseSchedule.linear(91, 1e-3, 0.1), 0.5
    alpha_bar = log_linear(schedule)
    grid = schedule.timesteps(steps).tolist()

    def rho(t):
        return math.sqrt(1 / alpha_bar(t) - 1)

    def eps(y, t):
        return rho(t) / (v + rho(t) ** 2) * y

    y, old = 1 / math.sqrt(alpha_bar(grid[0])), []
    for t, s in zip(grid, grid[1:] + [-1], strict=True):
        k1 = eps(y, t)
        old.append(k1)
        if s != -1 and len(old) < 4:
            mid = (t + s) / 2
            k2 = eps(y + (rho(mid) - rho(t)) * k1, mid)
            k3 = eps(y + (rho(mid) - rho(t)) * k2, mid)
            k4 = eps(y + (rho(s) - rho(t)) * k3, s)
            blend = (k1 + 2 * k2 + 2 * k3 + k4) / 6
        else:
            weights = {2: [-1 / 2, 3 / 2], 3: [5 / 12, -16 / 12, 23 / 12]}.get(len(old), [-9 / 24, 37 / 24, -59 / 24, 55 / 24])
            blend = np.dot(weights, old[-4:])
        y += (rho(s) - rho(t)) * blend
    denoiser = GaussianData(v, schedule)
    x = sample(denoiser, torch.ones(1, dtype=torch.float64), schedule, "f-pndm", steps)
    assert x.item() == pytest.approx(y, rel=1e-12)
    halves = [t for t in denoiser.asked if t.is_floating_point()]
    assert all((t % 1 == 0.5).all() for t in halves) and all(t.dtype == torch.int64 for t in denoiser.asked if t not in halves)
    assert len(halves) == (2 * min(steps - 1, 3) if grid[0] - grid[1] == 91 // steps and 91 // steps % 2 else 0)


# ------------------------------------------------------------------------------------------------- DEIS integrals

SHORT = NoiseSchedule(torch.tensor([0.97, 0.9, 0.7, 0.3, 0.02, 1e-5], dtype=torch.float64))


def exact_coefficient(schedule, t, s, nodes, j):
    """∫ ψ(τ→s)·(−½ d log ᾱ/dτ)/√(1−ᾱ)·ℓ_j(τ) dτ from t to s (DEIS, equation 15), by adaptive quadrature to 30 digits."""
    with mpmath.workdps(30):
        log_a = [mpmath.mpf(0)] + [mpmath.log(mpmath.mpf(a)) for a in schedule.alpha_bar.tolist()]  # index τ + 1

        def integrand(tau, below):
            slope = log_a[below + 2] - log_a[below + 1]
            a = mpmath.exp(log_a[below + 1] + slope * (tau - below))
            ell = mpmath.fprod((tau - m) / (nodes[j] - m) for i, m in enumerate(nodes) if i != j)
            return mpmath.sqrt(mpmath.exp(log_a[s + 1]) / a) * (-slope / 2) / mpmath.sqrt(1 - a) * ell

        return float(sum(mpmath.quad(lambda tau, k=k: integrand(tau, k), [k + 1, k]) for k in range(t - 1, s - 1, -1)))


@pytest.mark.parametrize("q", [0, 1, 2, 3])
@pytest.mark.parametrize(("schedule", "grid"), [
    (NoiseSchedule.linear(12, 1e-3, 0.6), (11, 8, 5, 2)), (NoiseSchedule.linear(12, 1e-3, 0.6), (9, 7, 4, 3, 0)),
    (NoiseSchedule.cosine(10), (9, 6, 3, 1)), (SHORT, (5, 3, 2, 0)), (SHORT, (5,)),
])
def test_tab_coefficients_are_exact(schedule, grid, q):
    coefficients = deis_coefficients(tuple(schedule.alpha_bar.tolist()), grid, q, "t")
    for i, (t, s) in enumerate(zip(grid, grid[1:] + (-1,), strict=True)):
        nodes = [grid[i - j] for j in range(min(q, i) + 1)]
        exact = [exact_coefficient(schedule, t, s, nodes, j) for j in range(len(nodes))]
        assert coefficients[i] == pytest.approx(exact, rel=0, abs=1e-10 * abs(sum(exact)))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("q", [0, 1, 2, 3])
def test_rhoab_coefficients_are_exact(spacing, q):
    grid = tuple(SCHEDULE.timesteps(12, spacing).tolist())
    alpha_bar = SCHEDULE.alpha_bar.numpy()
    rho = np.sqrt(1 / alpha_bar - 1)
    coefficients = deis_coefficients(tuple(alpha_bar.tolist()), grid, q, "rho")
    for i, (t, s) in enumerate(zip(grid, grid[1:] + (None,), strict=True)):
        nodes = rho[[grid[i - j] for j in range(min(q, i) + 1)]] / rho[t]  # scaled, so that the powers below stay in range
        end, scale = (0.0, rho[t]) if s is None else (rho[s] / rho[t], rho[t] * alpha_bar[s] ** 0.5)
        for j, node in enumerate(nodes):
            factors = [np.polynomial.Polynomial([-m, 1]) / (node - m) for m in np.delete(nodes, j)]
            antiderivative = math.prod(factors, start=np.polynomial.Polynomial([1])).integ()
            exact = scale * (antiderivative(end) - antiderivative(1.0))
            assert coefficients[i][j] == pytest.approx(exact, rel=1e-9, abs=1e-10)


def test_coefficients_are_computed_once():
    arguments = (tuple(SCHEDULE.alpha_bar.tolist()), tuple(SCHEDULE.timesteps(7).tolist()), 2, "t")
    assert deis_coefficients(*arguments) is deis_coefficients(*arguments)
    before = deis_coefficients.cache_info()
    sample(RING, noise(2, 2), SCHEDULE, "tab-deis-2", 7)
    sample(RING, noise(3, 2), NoiseSchedule.linear(), "tab-deis-2", 7)  # an equal schedule, not the same
    after = deis_coefficients.cache_info()
    assert (after.misses, after.hits) == (before.misses, before.hits + 2)


# ------------------------------------------------------------------------------------------- order of convergence

def test_slopes():
    slopes = {name: dict(zip(SLOPE_STEPS[1:], slopes, strict=True)) for name, _, slopes in slope_rows()}
    assert set(slopes) == set(DETERMINISTIC)
    for name in ("ddim", "tab-deis-0"):
        assert slopes[name][960] == pytest.approx(1, abs=0.05)
    for name in ("s-pndm", "tab-deis-1", "rhoab-deis-1", "dpm-solver++"):
        assert slopes[name][960] == pytest.approx(2, abs=0.1), name
    for name in ("tab-deis-2", "rhoab-deis-2"):
        assert slopes[name][960] == pytest.approx(3, abs=0.1), name
    for name in ("tab-deis-3", "rhoab-deis-3"):
        assert slopes[name][480] > 3.9 and slopes[name][960] > 3.9, name
    for name in ("f-pndm", "plms"):  # Adams-Bashforth's fourth order until the DDIM step's own error, of second order, shows
        assert slopes[name][480] > 3.5 and slopes[name][960] < 2.5, name


# -------------------------------------------------------------------------------------------- counts and contracts

@every_sampler
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 60])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_nfe_is_the_number_of_network_calls(name, steps, spacing):
    denoiser = GaussianData(1.0, SCHEDULE)
    walk = list(trajectory(denoiser, noise(1), SCHEDULE, name, steps, spacing))
    grid = SCHEDULE.timesteps(steps, spacing)
    assert (len(grid) < steps) == (steps == 60 and spacing in ("quadratic", "logsnr"))  # these lose steps to rounding
    assert len(walk) == len(grid)
    assert len(denoiser.asked) == SAMPLERS[name].nfe(len(grid))


def test_nfe_of_ten_steps():
    extra = {"s-pndm": 1, "f-pndm": 9}
    assert {name: sampler.nfe(10) - 10 for name, sampler in SAMPLERS.items()} == dict.fromkeys(SAMPLERS, 0) | extra


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(list(SAMPLERS)), T=st.integers(2, 60), share=st.floats(0, 1), spacing=st.sampled_from(list(SPACINGS)),
       dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
       shape=st.sampled_from([(0,), (3,), (0, 4), (5, 2), (2, 3, 4, 4), (0, 3, 8, 8)]), cosine=st.booleans())
def test_any_grid_dtype_and_shape(name, T, share, spacing, dtype, shape, cosine):
    schedule = NoiseSchedule.cosine(T) if cosine else NoiseSchedule.linear(T, min(0.1 / T, 0.5), min(20 / T, 0.5))
    steps = 1 + round(share * (T - 1))
    denoiser = GaussianData(1.0, schedule)  # ε = √(1−ᾱ)·x: of size 1 along the whole way
    x_T = noise(*shape, dtype=dtype)
    walk = list(trajectory(denoiser, x_T, schedule, name, steps, spacing, generator=seeded()))
    grid = schedule.timesteps(steps, spacing).tolist()
    assert [step.t for step in walk] == grid[1:] + [CLEAN]
    assert len(denoiser.asked) == SAMPLERS[name].nfe(len(grid))
    for _, x, x0 in walk:
        assert x.shape == x0.shape == shape and x.dtype == x0.dtype == dtype and bool(x.isfinite().all())
    again = sample(denoiser, x_T, schedule, name, steps, spacing, generator=seeded())
    assert torch.equal(again, walk[-1].x)
    if SAMPLERS[name].deterministic:
        halves = [sample(denoiser, part, schedule, name, steps, spacing) for part in (x_T[:1], x_T[1:])]
        assert torch.equal(torch.cat(halves), again)


@pytest.mark.parametrize("name, eta", [(name, 0.0) for name in SAMPLERS] + [("ddim", 0.7)])
@pytest.mark.parametrize("sizes", [[24], [1] * 24, [5, 7, 12]])
def test_samples_do_not_depend_on_the_batch_split(name, eta, sizes):
    """Deterministic samplers never do; those that draw noise do not if each image brings its own generator."""
    x_T = noise(24, 2)
    one_each = name not in DETERMINISTIC or eta > 0

    def draw(start, stop):
        generator = [seeded(i) for i in range(start, stop)] if one_each else None
        return sample(RING, x_T[start:stop], SCHEDULE, name, 12, "quadratic", eta, generator)

    ends = np.cumsum([0, *sizes])
    assert torch.equal(draw(0, 24), torch.cat([draw(start, stop) for start, stop in zip(ends, ends[1:], strict=False)]))


def test_a_list_of_generators_needs_one_an_image():
    with pytest.raises(ValueError, match="one an image: 3 for the 4 images"):
        sample(RING, noise(4, 2), SCHEDULE, "ddpm", 5, generator=[seeded(i) for i in range(3)])


def test_images_with_generators_of_their_own_differ():
    """Noise of one generator an image is standard normal, and not the same for all."""
    x = sample(RING, noise(1, 2).expand(400, 2), SCHEDULE, "ddpm-large", 3, generator=[seeded(i) for i in range(400)])
    assert len(x.unique(dim=0)) == 400


@every_sampler
def test_x_T_and_the_seed_decide_the_sample(name):
    x_T = noise(4, 2)
    before = x_T.clone()
    first, again, other = (sample(RING, x_T, SCHEDULE, name, 9, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and torch.equal(x_T, before)
    assert torch.equal(first, other) == SAMPLERS[name].deterministic


@every_sampler
def test_shrinking_happens_inside_the_walk(name):
    # Training-free S²-DM: a denoiser like any other, at half steps too; not the same as scaling what comes out.
    scale = shrinkage(SCHEDULE, skip=49, tau=0.9)

    def by_hand(x, t):
        s = np.interp(t.double().numpy(), np.arange(SCHEDULE.T), scale.numpy())
        return RING(x, t) * torch.from_numpy(s)[:, None]

    x_T = noise(6, 2)
    ours = sample(Shrunk(RING, scale), x_T, SCHEDULE, name, 11, generator=seeded())
    torch.testing.assert_close(ours, sample(by_hand, x_T, SCHEDULE, name, 11, generator=seeded()), rtol=1e-10, atol=1e-12)
    ratio = ours / sample(RING, x_T, SCHEDULE, name, 11, generator=seeded())
    assert ratio.std() > 1e-4


@every_sampler
def test_holds_at_most_order_plus_two_states(name):
    shape = (3, 1, 7, 11)  # no other tensor of this session has it
    most = 0

    def denoiser(x, t):
        nonlocal most
        most = max(most, sum(type(o) is torch.Tensor and o.shape == shape for o in gc.get_objects()))
        return x * 0.5

    x_T = torch.ones(shape)
    gc.freeze()  # what exists by now need not be looked through
    try:
        sample(denoiser, x_T, SCHEDULE, name, 8)
    finally:
        gc.unfreeze()
    order = 4 if name in ("f-pndm", "plms") else max(SAMPLERS[name].order, 1)  # these two remember four ε
    assert 1 < most <= order + 2


@every_sampler
def test_never_reads_from_the_device(name):
    # A meta tensor has no values: whatever would make a host wait for a GPU (item, bool, cpu) raises on it.
    def denoiser(x, t):
        assert t.device.type == "meta"
        return torch.empty_like(x)

    walk = trajectory(denoiser, torch.empty(2, 3, 8, 8, device="meta"), SCHEDULE, name, 8)
    assert [step.t for step in islice(walk, 8)][-1] == CLEAN
    with pytest.raises(RuntimeError, match="meta"):
        next(walk)  # the one look at the end, at whether everything was finite


def test_steps_record_no_gradients_and_results_are_ordinary_tensors():
    def denoiser(x, t):
        assert not torch.is_grad_enabled()
        return x

    for step in trajectory(denoiser, noise(1), SCHEDULE, steps=3):
        assert torch.is_grad_enabled() and not step.x.is_inference()
    x = sample(denoiser, noise(1), SCHEDULE, steps=2).clamp_(-1, 1)
    weight = torch.ones((), dtype=x.dtype, requires_grad=True)
    (weight * x).sum().backward()
    torch.testing.assert_close(weight.grad, x.sum())


# ---------------------------------------------------------------------------------------------------- bad input

@every_sampler
@pytest.mark.parametrize("steps", [0, -1, 1001, 2.0, True])
def test_steps_out_of_range(name, steps):
    with pytest.raises(ValueError, match=rf"1\.\.1000 for T = 1000, not {steps}"):
        trajectory(RING, noise(1, 2), SCHEDULE, name, steps)


@pytest.mark.parametrize(("wrong", "near"), [("dim", "ddim"), ("DDIM", None), ("f-pdnm", "f-pndm"), ("dpm-solver", "dpm-solver++"),
                                             ("tab-deis-4", "tab-deis-"), ("rhoab-deis", "rhoab-deis-"), ("zzz", None), (None, None)])
def test_unknown_sampler(wrong, near):
    with pytest.raises(ValueError, match="sampler must be one of") as error:
        trajectory(RING, noise(1, 2), SCHEDULE, wrong)
    assert (f"Did you mean '{near}" if near else "dpm-solver++, not") in str(error.value)


@pytest.mark.parametrize(("x_T", "found"), [
    (torch.ones(2, 2, dtype=torch.int64), "int64"), (torch.ones(2, dtype=torch.complex64), "complex64"),
    (torch.tensor(1.0), r"shape \(\)"), ([[0.0, 1.0]], r"\[\[0\.0, 1\.0\]\]"),
])
def test_x_T_of_the_wrong_kind(x_T, found):
    with pytest.raises(ValueError, match=f"x_T must be a floating tensor .* not .*{found}"):
        trajectory(RING, x_T, SCHEDULE)


def test_x_T_not_finite():
    x_T = noise(3, 2)
    x_T[1, 0] = math.inf
    with pytest.raises(ValueError, match="x_T holds NaN or infinite values"):
        trajectory(RING, x_T, SCHEDULE)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "ddim"])
def test_eta_belongs_to_ddim(name):
    with pytest.raises(ValueError, match=f"no meaning for {re.escape(name)}"):
        trajectory(RING, noise(1, 2), SCHEDULE, name, eta=0.5)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_eta_out_of_range(eta):
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\]"):
        trajectory(RING, noise(1, 2), SCHEDULE, eta=eta)


def test_devices_that_differ():
    elsewhere = torch.empty(2, 3, device="meta")
    with pytest.raises(ValueError, match="x_T is on meta but the denoiser's weights are on cpu"):
        trajectory(nn.Linear(3, 3), elsewhere, SCHEDULE)
    with pytest.raises(ValueError, match=r"generator is on cpu but x_T on meta; make it with torch.Generator\(device='meta'\)"):
        trajectory(RING, elsewhere, SCHEDULE, generator=seeded())
    with pytest.raises(ValueError, match="at t = 900, in step 1 of 10, the denoiser returned .* on meta for an x of .* on cpu"):
        sample(lambda x, t: x.to("meta"), noise(2, 2), SCHEDULE)


@every_sampler
def test_answer_of_another_shape(name):
    asked = []

    def denoiser(x, t):
        asked.append(t)
        return x if t[0] > 500 else x[:, :1]

    with pytest.raises(ValueError, match=r"at t = 500, in step (4|5) of 10, the denoiser returned \(4, 1\) .* for an x of \(4, 2\)"):
        sample(denoiser, noise(4, 2), SCHEDULE, name)
    with pytest.raises(ValueError, match="returned a tuple for an x"):
        sample(lambda x, t: (x,), noise(4, 2), SCHEDULE, name)


def not_finite_at(t_bad, value):
    def denoiser(x, t):
        eps = 0.1 * x
        if t[0] <= t_bad:
            eps[0, 0] = value
        return eps
    return denoiser


@every_sampler
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_answer_not_finite(name, value):
    with pytest.raises(ValueError, match="at t = 300, in step (6|7) of 10, the denoiser returned NaN or infinite values"):
        sample(not_finite_at(300, value), noise(4, 2), SCHEDULE, name)


@every_sampler
def test_answer_not_finite_is_reported_at_the_end_on_a_gpu(name):
    # The way of a GPU, on a CPU: nothing is read before the last step, and then the first bad answer is named, not the last.
    predict = NoisePredictor(not_finite_at(300, math.nan), noise(4, 2), 10, check_each_call=False)
    grid = SCHEDULE.timesteps(10).tolist()
    walk = _walk(SAMPLERS[name].run(predict, noise(4, 2), grid, SCHEDULE), predict)
    assert [step.t for step in islice(walk, 10)][-1] == CLEAN
    with pytest.raises(ValueError, match="at t = 300, in step 7 of 10, the denoiser returned NaN or infinite values"):
        next(walk)


# ------------------------------------------------------------------------------------------------ the registry

def test_a_new_sampler_is_one_function_and_one_line(monkeypatch):
    def euler(predict, x, grid, schedule):
        """An Euler step of d(x/√ᾱ) = ε dρ, in its own words; twice the network calls it needs."""
        for t, s, a_t, a_s in strides(grid, schedule):
            eps = (predict(x, t) + predict(x, t)) / 2
            x0 = (x - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
            x = math.sqrt(a_s) * (x / math.sqrt(a_t) + (math.sqrt(1 / a_s - 1) - math.sqrt(1 / a_t - 1)) * eps)
            yield Step(s, x, x0)

    monkeypatch.setitem(SAMPLERS, "mine", Sampler(euler, "Euler, twice", order=1, nfe=lambda steps: 2 * steps))
    denoiser, x_T = GaussianData(0.25, SCHEDULE), noise(5, 2)
    x = sample(denoiser, x_T, SCHEDULE, "mine", 7, "quadratic", generator=seeded())
    assert len(denoiser.asked) == SAMPLERS["mine"].nfe(7) == 14 and SAMPLERS["mine"].deterministic
    torch.testing.assert_close(x, sample(denoiser, x_T, SCHEDULE, "ddim", 7, "quadratic"), rtol=1e-10, atol=1e-12)
    walk = list(trajectory(denoiser, x_T, SCHEDULE, "mine", 7, "quadratic"))
    assert [step.t for step in walk] == [*SCHEDULE.timesteps(7, "quadratic").tolist()[1:], CLEAN] and torch.equal(walk[-1].x, x)


def test_a_new_sampler_that_adds_noise_takes_the_generator(monkeypatch):
    def only_noise(predict, x, grid, schedule, generator=None):
        for t, s, _, _ in strides(grid, schedule):
            yield Step(s, fresh_noise(x, generator), predict(x, t))

    monkeypatch.setitem(SAMPLERS, "mine", Sampler(only_noise, "noise", order=0))
    assert not SAMPLERS["mine"].deterministic
    assert torch.equal(sample(RING, noise(3, 2), SCHEDULE, "mine", 1, generator=seeded(4)),
                       torch.randn(3, 2, generator=seeded(4), dtype=torch.float64))


def test_no_sampler_hides_its_module():
    from s2dm_mini import samplers

    for name in ("common", "ddim", "ddpm", "deis", "dpm_solver", "pndm"):
        assert getattr(samplers, name) is importlib.import_module(f"s2dm_mini.samplers.{name}")


# --------------------------------------------------------------------------------- what no exact outcome shows

def test_the_registry():
    titles = {"ddpm": ("DDPM, small variance", 0), "ddpm-large": ("DDPM, large variance", 0), "ddim": ("DDIM", 1), "s-pndm": ("S-PNDM", 2),
              "f-pndm": ("F-PNDM", 2), "plms": ("PLMS (iPNDM)", 2), "dpm-solver++": ("DPM-Solver++(2M)", 2)}
    titles |= {f"tab-deis-{q}": (f"tAB-DEIS, q = {q}", q + 1) for q in (0, 1, 2, 3)}
    titles |= {f"rhoab-deis-{q}": (f"ρAB-DEIS, q = {q}", q + 1) for q in (1, 2, 3)}
    assert {name: (sampler.title, sampler.order) for name, sampler in SAMPLERS.items()} == titles
    for name, sampler in SAMPLERS.items():
        assert sampler.deterministic == (name not in ("ddpm", "ddpm-large"))
        if "deis" in name:
            assert sampler.run.keywords == {"q": int(name[-1]), "variable": "rho" if name.startswith("rho") else "t"}


@pytest.mark.parametrize(("name", "eta"), [("ddpm", 1.0), ("ddpm-large", 1.0), ("ddim", 0.3), ("ddim", 1.0)])
@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
def test_noise_on_the_way_is_the_formula(name, eta, spacing, v=0.25):
    """The posterior of DDPM and DDIM's equation 12 written out once more, with the very noise that the sampler drew."""
    x, draws, denoiser = noise(3, 2).numpy(), seeded(3), GaussianData(v, SCHEDULE)
    grid = SCHEDULE.timesteps(7, spacing).tolist()
    abar = [SCHEDULE.alpha_bar[t].item() for t in grid] + [1.0]
    for now, then in zip(abar, abar[1:], strict=False):
        eps = math.sqrt(1 - now) / (now * v + 1 - now) * x
        x0 = (x - math.sqrt(1 - now) * eps) / math.sqrt(now)
        beta = 1 - now / then
        if name.startswith("ddpm"):
            mean = (math.sqrt(then) * beta * x0 + math.sqrt(now / then) * (1 - then) * x) / (1 - now)
            sigma = math.sqrt(beta if name == "ddpm-large" else beta * (1 - then) / (1 - now))
        else:
            sigma = eta * math.sqrt((1 - then) / (1 - now) * beta)
            mean = math.sqrt(then) * x0 + math.sqrt(1 - then - sigma**2) * eps
        x = mean if then == 1 else mean + sigma * torch.randn(3, 2, generator=draws, dtype=torch.float64).numpy()
    found = sample(denoiser, noise(3, 2), SCHEDULE, name, 7, spacing, generator=seeded(3), **({"eta": eta} if name == "ddim" else {}))
    np.testing.assert_allclose(found, x, rtol=1e-10)


@every_sampler
def test_x0_is_what_the_denoiser_foresaw_at_the_state_before(name):
    denoiser, x, t = GaussianData(0.25, SCHEDULE), noise(2, 3), SCHEDULE.timesteps(9, "quadratic")[0].item()
    for step in trajectory(denoiser, x, SCHEDULE, name, 9, "quadratic", generator=seeded()):
        a = SCHEDULE.alpha_bar[t].item()
        wanted = (x - math.sqrt(1 - a) * denoiser(x, torch.full((2,), t))) / math.sqrt(a)
        torch.testing.assert_close(step.x0, wanted, rtol=1e-9, atol=1e-12)
        t, x = step.t, step.x


def test_a_walk_without_noise_leaves_the_generator_alone():
    generator = seeded()
    sample(RING, noise(2, 2), SCHEDULE, "ddim", generator=generator)
    assert torch.equal(generator.get_state(), seeded().get_state())


def test_a_list_of_generators_draws_in_the_precision_of_x():
    x = noise(2, 3)
    found = fresh_noise(x, [seeded(1), seeded(2)])
    wanted = torch.stack([torch.randn(3, generator=seeded(k), dtype=torch.float64) for k in (1, 2)])
    assert torch.equal(found, wanted)


def test_a_walk_has_ten_steps_unless_told_otherwise():
    assert len(list(trajectory(RING, noise(2, 2), SCHEDULE))) == 10


def test_networks_of_another_precision_leave_x_in_its_own():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, x, t):
            return x.double() * self.weight

    assert sample(Wide(), noise(2, 3, dtype=torch.float32), SCHEDULE).dtype == torch.float32


@pytest.mark.parametrize(("call", "said"), [
    (lambda: sample(None, noise(2, 2), SCHEDULE), "denoiser must be a function"),
    (lambda: sample(RING, noise(2, 2), 1000), "schedule must be of the class NoiseSchedule"),
    (lambda: sample(RING, noise(2, 2), SCHEDULE, generator=3), "generator must be a torch.Generator or None, not 3"),
    (lambda: sample(RING, noise(2, 2) * math.nan, SCHEDULE), r"x_T holds NaN or infinite values\.$"),
    (lambda: sample(lambda x, t: torch.full_like(x, 3e38), noise(2, 2, dtype=torch.float32), SCHEDULE, "ddim", 1, "trailing"),
     "the result of step 1, the last, holds NaN or infinite values"),
])
def test_a_refusal_names_what_it_refuses(call, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        call()
