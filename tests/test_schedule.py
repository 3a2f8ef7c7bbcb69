"""ᾱ, what is computed from it, and the time grids, each against its formula written a second time."""
import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch

from s2dm_mini.schedule import SPACINGS, NoiseSchedule, timesteps

LINEAR_BETA = np.linspace(1e-4, 0.02, 1000)


@pytest.mark.parametrize(("T", "start", "end"), [(2, 1e-4, 0.02), (50, 1e-3, 0.2), (1000, 1e-4, 0.02)])
def test_linear_alpha_bar(T, start, end):
    schedule = NoiseSchedule.linear(T, start, end)
    assert schedule.T == T and schedule.alpha_bar.dtype == torch.float64
    np.testing.assert_allclose(schedule.alpha_bar.numpy(), np.cumprod(1 - np.linspace(start, end, T)), rtol=1e-13)


def test_linear_ends_where_ddpm_says():
    alpha_bar = NoiseSchedule.linear().alpha_bar
    assert alpha_bar[0].item() == pytest.approx(1 - 1e-4, abs=1e-15)
    assert alpha_bar[-1].item() == pytest.approx(4.0358e-5, rel=1e-4)


@pytest.mark.parametrize("T", [2, 20, 1000])
def test_cosine_alpha_bar(T):
    def f(u):
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    wanted, signal = [], 1.0
    for t in range(T):
        signal *= 1 - min(0.999, 1 - f((t + 1) / T) / f(t / T))
        wanted.append(signal)
    np.testing.assert_allclose(NoiseSchedule.cosine(T).alpha_bar.numpy(), wanted, rtol=1e-11)
    if T == 1000:  # away from the cap, ᾱ is the squared cosine itself
        assert NoiseSchedule.cosine(T).alpha_bar[499].item() == pytest.approx(f(0.5) / f(0), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 3, 4, 4)])
def test_add_noise_and_its_inverse(shape, dtype):
    schedule, generator = NoiseSchedule.linear(), torch.Generator().manual_seed(1)
    x0, eps = torch.randn(2, *shape, generator=generator, dtype=dtype)
    t = torch.tensor([0, 1, 250, 600, 999])
    x_t = schedule.add_noise(x0, eps, t)
    for i in range(5):
        signal = np.prod(1 - LINEAR_BETA[: t[i] + 1])
        wanted = math.sqrt(signal) * x0[i].double().numpy() + math.sqrt(1 - signal) * eps[i].double().numpy()
        np.testing.assert_allclose(x_t[i].numpy(), wanted, atol=1e-6 if dtype == torch.float32 else 1e-13)
    assert x_t.dtype == dtype
    # Dividing by √ᾱ_999 = 0.006 magnifies rounding about 160 times.
    torch.testing.assert_close(schedule.predict_x0(x_t, eps, t), x0, rtol=0, atol=2e-4 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("skip", [1, 9, 49, 999])
def test_alpha_skip_is_the_product_of_the_skipped_steps(skip):
    t = torch.tensor(sorted({0, skip - 1, skip, min(skip + 1, 999), 500, 999}))
    a = NoiseSchedule.linear().alpha_skip(t, skip)
    wanted = [np.prod(1 - LINEAR_BETA[i - skip + 1: i + 1]) if i >= skip else 1.0 for i in t.tolist()]
    np.testing.assert_allclose(a.numpy(), wanted, rtol=1e-12)
    assert a.dtype == torch.float64 and bool((a[t >= skip] < 1).all())


def test_alpha_bar_between_timesteps_is_linear_in_its_log():
    schedule = NoiseSchedule.cosine(100)
    t = torch.tensor([[0.0, 0.25, 17.5], [42.0, 98.75, 99.0]])
    wanted = np.exp(np.interp(t.numpy(), np.arange(100), np.log(schedule.alpha_bar.numpy())))
    np.testing.assert_allclose(schedule.alpha_bar_at(t).numpy(), wanted, rtol=1e-12)
    for dtype in (torch.uint8, torch.int32, torch.int64, torch.float32, torch.float64):
        whole = schedule.alpha_bar_at(torch.tensor([0, 3, 99], dtype=dtype))
        torch.testing.assert_close(whole, schedule.alpha_bar[[0, 3, 99]], rtol=1e-14, atol=0)
    assert schedule.alpha_bar_at(torch.zeros(0)).shape == (0,)


@pytest.mark.parametrize("t", [-1, 100, -0.5, 99.01, math.nan])
def test_timesteps_outside_the_schedule_are_refused(t):
    with pytest.raises(ValueError, match=r"0\.\.99 .*T = 100"):
        NoiseSchedule.cosine(100).alpha_bar_at(torch.tensor([5, t]))


def test_schedule_moves_with_its_table():
    moved = NoiseSchedule.linear(10).to("meta")
    assert moved.alpha_bar.device.type == "meta" and moved.T == 10


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_timesteps_on_another_device_bring_the_table_there_and_are_not_read(dtype):
    """A meta tensor has no values: whatever would make a host wait for a GPU raises on it."""
    looked_up = NoiseSchedule.linear(10).alpha_bar_at(torch.zeros(3, dtype=dtype, device="meta"))
    assert looked_up.device.type == "meta" and looked_up.shape == (3,) and looked_up.dtype == torch.float64


def test_what_nobody_says_is_the_papers():
    assert NoiseSchedule.cosine().T == NoiseSchedule.linear().T == 1000
    assert timesteps(1000, 10).equal(timesteps(1000, 10, "uniform"))
    assert NoiseSchedule.linear().timesteps(10).equal(timesteps(1000, 10, "uniform"))


def test_a_table_of_any_type_is_kept_in_float64():
    assert NoiseSchedule(torch.tensor([0.75, 0.5], dtype=torch.float32)).alpha_bar.dtype == torch.float64


def test_beta_may_stay_what_it_is():
    np.testing.assert_allclose(NoiseSchedule.linear(5, 0.1, 0.1).alpha_bar.numpy(), 0.9 ** np.arange(1, 6), rtol=1e-14)


# ------------------------------------------------------------------------------------------------- time grids

def uniform(T, steps):
    return [i * (T // steps) for i in range(steps)]


def quadratic(T, steps):
    """⌊0.8·T·(i/(steps−1))²⌋ in exact fractions."""
    return [math.floor(Fraction(4 * T, 5) * Fraction(i, max(steps - 1, 1)) ** 2) for i in range(steps)]


def trailing(T, steps):
    return [round(T - Fraction(i * T, steps)) - 1 for i in range(steps)]


@pytest.mark.parametrize("formula", [uniform, quadratic, trailing])
@pytest.mark.parametrize("T", [2, 7, 100, 1000])
def test_grids(T, formula):
    for steps in sorted({1, 2, min(5, T), min(7, T), T // 2, T * 3 // 4, T}):
        wanted = sorted(set(formula(T, steps)), reverse=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error" if len(wanted) == steps else "ignore")
            grid = timesteps(T, steps, formula.__name__)
        assert grid.dtype == torch.int64 and grid.tolist() == wanted


def test_trailing_grid_of_many_steps():
    assert timesteps(10_000, 9_999, "trailing").tolist() == trailing(10_000, 9_999)  # some strides end 1/20,000 from a half


@pytest.mark.parametrize("steps", [10, 20, 50, 100, 1000])
def test_quadratic_grid_is_ddims_own(steps):
    squares = np.linspace(0, np.sqrt(1000 * 0.8), steps) ** 2
    wanted = sorted({int(s) for s in squares}, reverse=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert timesteps(1000, steps, "quadratic").tolist() == wanted


@pytest.mark.parametrize("schedule", [NoiseSchedule.linear(), NoiseSchedule.cosine(200)], ids=["linear", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 5, 7])
def test_logsnr_grid(schedule, steps):
    alpha_bar = schedule.alpha_bar.numpy()
    log_snr = np.log(alpha_bar / (1 - alpha_bar))
    stride = (log_snr[-1] - log_snr[0]) / max(steps - 1, 1)
    wanted = [min(range(schedule.T), key=lambda t: abs(log_snr[t] - log_snr[0] - i * stride)) for i in range(steps)]
    assert schedule.timesteps(steps, "logsnr").tolist() == wanted[::-1]


@pytest.mark.parametrize("spacing", SPACINGS)
def test_grids_fall_strictly_within_the_schedule(spacing):
    for schedule in (NoiseSchedule.linear(), NoiseSchedule.cosine(37)):
        for steps in (1, 2, 10, 36, schedule.T):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                grid = schedule.timesteps(steps, spacing)
            assert 1 <= len(grid) <= steps and grid[0] < schedule.T and grid[-1] >= 0
            assert bool((grid.diff() < 0).all())


@pytest.mark.parametrize("spacing", ["quadratic", "logsnr"])
def test_repeated_timesteps_are_removed_with_a_warning(spacing):
    schedule = NoiseSchedule.linear()
    with pytest.warns(UserWarning, match=rf"{spacing} grid of 500 steps .* (\d+) different") as warned:
        grid = schedule.timesteps(500, spacing)
    assert len(grid) < 500 and f" {len(grid)} different" in str(warned[0].message)


# ----------------------------------------------------------------------------------------------------- errors

@pytest.mark.parametrize("steps", [0, -3, 1001, 2.5, True, "10", None])
def test_bad_numbers_of_steps(steps):
    with pytest.raises(ValueError, match=rf"steps .*1\.\.1000 .*{steps!r}"):
        timesteps(1000, steps)


def test_bad_spacings():
    with pytest.raises(ValueError, match="uniform, quadratic, trailing, logsnr, not 'quadratc'"):
        timesteps(1000, 10, "quadratc")
    with pytest.raises(ValueError, match=r"schedule\.timesteps"):
        timesteps(1000, 10, "logsnr")


@pytest.mark.parametrize("skip", [0, -1, 100, 9.0, True, None])
def test_bad_skips(skip):
    with pytest.raises(ValueError, match=rf"skip .*1\.\.99 .*{skip!r}"):
        NoiseSchedule.linear(100).alpha_skip(torch.tensor([50]), skip)


@pytest.mark.parametrize("T", [1, 0, -5, 10.0, True])
@pytest.mark.parametrize("make", [NoiseSchedule.linear, NoiseSchedule.cosine])
def test_bad_lengths(make, T):
    with pytest.raises(ValueError, match=rf"T must be .*2\.\.\d+, not {T!r}"):
        make(T)


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.02), (0.03, 0.02), (1e-4, 1.0)])
def test_bad_betas(start, end):
    with pytest.raises(ValueError, match=f"beta_start = {start}, beta_end = {end}"):
        NoiseSchedule.linear(10, start, end)


@pytest.mark.parametrize(("alpha_bar", "said"), [
    ([0.5], "at least 2"), ([[0.5, 0.4]], r"\(1, 2\)"), ([[0.9, 0.8], [0.5, 0.4]], r"\(2, 2\)"),
    ([0.5, 0.5], "strictly"), ([1.0, 0.5], "below 1"), ([0.5, 0.0], "above 0"),
    ([0.5, math.nan], "finite"), ([0.5, 0.1, -0.1], "above 0"),
])
def test_bad_tables(alpha_bar, said):
    with pytest.raises(ValueError, match=said):
        NoiseSchedule(torch.tensor(alpha_bar))


@pytest.mark.parametrize(("eps", "t"), [((2, 4), (2,)), ((2, 3), (3,)), ((2, 3), (2, 1))])
def test_shapes_that_do_not_fit(eps, t):
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        NoiseSchedule.linear(10).add_noise(torch.zeros(2, 3), torch.zeros(eps), torch.zeros(t, dtype=torch.int64))


SCHEDULE, X, HALF = NoiseSchedule.linear(100), torch.zeros(2, 3), torch.tensor([0, 1])


@pytest.mark.parametrize(("call", "said"), [
    (lambda: NoiseSchedule("x"), "alpha_bar must be real numbers"),
    (lambda: NoiseSchedule.linear(10, beta_start="x"), "beta_start must lie in"),
    (lambda: NoiseSchedule.linear(10, beta_end="x"), "beta_end must lie in"),
    (lambda: SCHEDULE.alpha_bar_at(0.5), "t must be a tensor of any shape of timesteps"),
    (lambda: SCHEDULE.alpha_skip(torch.tensor([0.5]), 1), "t must be a tensor of any shape of integer timesteps"),
    (lambda: SCHEDULE.add_noise(X.long(), X, HALF), r"x0 must be a floating tensor"),
    (lambda: SCHEDULE.add_noise(X, X.long(), HALF), r"eps must be a floating tensor"),
    (lambda: SCHEDULE.add_noise(X, X, [0, 1]), r"x0 and eps must share one shape .*and \[0, 1\]"),
    (lambda: SCHEDULE.predict_x0(X.long(), X, HALF), r"x must be a floating tensor"),
    (lambda: SCHEDULE.predict_x0(X[:1], X, HALF), r"x and eps must share one shape .*\(1, 3\), \(2, 3\)"),
    (lambda: timesteps(0, 1), r"T must be an integer in 1\.\.100000, not 0"),
    (lambda: timesteps(10, 2, 3), "spacing must be one of"),
    (lambda: timesteps(10, 2, "logsnr", [0.5] * 10), r"alpha_bar must be a tensor \(10,\), as a schedule of T = 10 has it"),
    (lambda: timesteps(10, 2, "logsnr", SCHEDULE.alpha_bar), r"alpha_bar must be a tensor \(10,\), .*not torch.float64 of shape"),
])
def test_a_refusal_names_what_it_refuses(call, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        call()


def test_the_longest_schedule_and_the_shortest_grid():
    assert NoiseSchedule.linear(100_000, 1e-7, 1e-6).T == 100_000
    with pytest.raises(ValueError, match="at most 100,000"):
        NoiseSchedule(torch.linspace(0.9, 0.1, 100_001, dtype=torch.float64))
    assert timesteps(100_000, 1).tolist() == timesteps(1, 1).tolist() == [0]


def test_timesteps_of_few_bits_reach_back_as_far_as_others():
    t = torch.tensor([5, 100], dtype=torch.int8)
    assert torch.equal(NoiseSchedule.linear(400).alpha_skip(t, 90), NoiseSchedule.linear(400).alpha_skip(t.long(), 90))
    assert torch.equal(NoiseSchedule.linear(400).alpha_skip(t, 300), torch.ones(2, dtype=torch.float64))
