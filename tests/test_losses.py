"""The losses, derived a second time in plain NumPy, and what minimises them."""
import numpy as np
import pytest
import torch

from s2dm_mini.losses import (
    READINGS,
    s2dm_loss,
    shrinkage,
    simple_loss,
    skip_step_loss,
    timestep_weight,
)
from s2dm_mini.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.linear()
BETA = np.linspace(1e-4, 0.02, 1000)
CLOSED_FORM = ("independent", "expected", "shared")


def denoiser(x, t):
    """Some function of x and t that is not linear in either."""
    t = t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return torch.tanh(0.7 * x) + 0.3 * torch.sin(t / 300)


def denoiser_by_hand(x, t):
    return np.tanh(0.7 * x) + 0.3 * np.sin(t / 300)


def loss_by_hand(x0, t, eps, fresh, skip, tau, reading):
    """The loss of one image, all in NumPy float64: paper.md's formulas, ᾱ as a product of 1 − β."""
    signal = np.prod(1 - BETA[:t + 1])
    x_t = np.sqrt(signal) * x0 + np.sqrt(1 - signal) * eps
    f = denoiser_by_hand(x_t, t)
    l_0 = np.mean((eps - f) ** 2)
    if t < skip:
        return l_0
    a = np.prod(1 - BETA[t - skip + 1:t + 1])
    c = np.sqrt((1 - a) / a)
    if reading == "independent":
        l_skip = np.mean((fresh - c * f) ** 2)
    elif reading == "expected":
        l_skip = 1 + c**2 * np.mean(f**2)
    elif reading == "shared":
        l_skip = np.mean((eps - c * f) ** 2)
    else:
        signal = np.prod(1 - BETA[:t - skip + 1])
        earlier = np.sqrt(signal) * x0 + np.sqrt(1 - signal) * eps
        l_skip = np.mean((f - denoiser_by_hand(earlier, t - skip)) ** 2)
    return tau * l_0 + (1 - tau) * l_skip


@pytest.mark.parametrize("shape", [(2,), (3, 4, 4)], ids=["points", "images"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("skip", [1, 9, 49])
@pytest.mark.parametrize("reading", READINGS)
def test_s2dm_loss_is_the_formula(reading, skip, dtype, shape):
    t = torch.tensor([0, skip - 1, skip, skip + 1, 300, 600, 999])
    x0 = torch.rand(len(t), *shape, generator=torch.Generator().manual_seed(skip), dtype=dtype) * 2 - 1
    draws = torch.Generator().manual_seed(5)  # ε₁ first, then ε₂: the order in which the loss draws
    eps, fresh = (torch.randn(x0.shape, generator=draws, dtype=dtype).double().numpy() for _ in range(2))
    for tau in (0.99, 0.5, 0.0):
        loss = s2dm_loss(denoiser, x0, t, SCHEDULE, skip, tau, reading, torch.Generator().manual_seed(5))
        wanted = [loss_by_hand(x0[i].double().numpy(), int(t[i]), eps[i], fresh[i], skip, tau, reading) for i in range(len(t))]
        assert loss.shape == t.shape and loss.dtype == dtype
        np.testing.assert_allclose(loss.numpy(), wanted, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-12)


def test_the_defaults_are_the_released_codes():
    x0, t = torch.ones(4, 2), torch.tensor([8, 9, 10, 500])
    seeded = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    assert s2dm_loss(denoiser, x0, t, SCHEDULE, generator=seeded()).equal(
        s2dm_loss(denoiser, x0, t, SCHEDULE, 9, 0.99, "independent", seeded()))
    assert skip_step_loss(denoiser, x0, t, SCHEDULE, generator=seeded()).equal(
        skip_step_loss(denoiser, x0, t, SCHEDULE, 9, "independent", seeded()))
    assert shrinkage(SCHEDULE).equal(shrinkage(SCHEDULE, 9, 0.99, "independent"))


def test_the_baseline_asks_the_network_once():
    """τ = 1 has no use for L_skip, and so does not pay for it."""
    asked = []

    def counted(x, t):
        asked.append(t)
        return denoiser(x, t)

    for tau, calls in ((1, 1), (0.99, 2)):
        asked.clear()
        s2dm_loss(counted, torch.ones(2, 3), torch.tensor([5, 500]), SCHEDULE, 9, tau, "output")
        assert len(asked) == calls


@pytest.mark.parametrize("reading", READINGS)
def test_losses_stay_on_their_device(reading):
    """And read nothing from it: a meta tensor has no values, and whatever would make a host wait for a GPU raises on it."""
    x0, t = torch.empty(2, 3, device="meta"), torch.empty(2, dtype=torch.int64, device="meta")
    assert s2dm_loss(lambda x, t: x, x0, t, SCHEDULE, reading=reading).device.type == "meta"
    if reading != "output":
        assert shrinkage(SCHEDULE.to("meta"), reading=reading).device.type == "meta"


@pytest.mark.parametrize("reading", READINGS)
def test_parts_and_mixture_agree(reading):
    """τ = 1 is L_0 to the bit, and the mixture is made of the two parts where t ≥ skip, of L_0 alone elsewhere."""
    x0, t = torch.rand(40, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(0, 1000, 25)
    seeded = lambda: torch.Generator().manual_seed(3)  # noqa: E731
    l_0 = simple_loss(denoiser, x0, t, SCHEDULE, seeded())
    assert s2dm_loss(denoiser, x0, t, SCHEDULE, 50, 1.0, reading, seeded()).equal(l_0)
    l_skip = skip_step_loss(denoiser, x0, t, SCHEDULE, 50, reading, seeded())
    assert (l_skip[t < 50] == 0).all() and (l_skip[t >= 50] > 0).all()
    mixed = s2dm_loss(denoiser, x0, t, SCHEDULE, 50, 0.7, reading, seeded())
    torch.testing.assert_close(mixed, torch.where(t < 50, l_0, 0.7 * l_0 + 0.3 * l_skip))


@pytest.mark.parametrize("t", [100, 300, 999])
def test_expected_is_the_mean_of_independent(t):
    """Loss and gradient: under one ε₁ the two readings differ by terms in ε₂ alone, whose mean is 0."""
    n, skip = 100_000, 49
    x0, t = torch.full((n, 2), 0.3, dtype=torch.float64), torch.full((n,), t)
    results = {}
    for reading in ("independent", "expected"):
        gain = torch.full((n, 1), 0.8, dtype=torch.float64, requires_grad=True)  # a parameter for each image: gradients apart
        loss = skip_step_loss(lambda x, t: gain * torch.tanh(x), x0, t, SCHEDULE, skip, reading, torch.Generator().manual_seed(7))  # noqa: B023
        results[reading] = loss.detach(), torch.autograd.grad(loss.sum(), gain)[0][:, 0]
    for ours, wanted in zip(results["independent"], results["expected"], strict=True):
        difference = ours - wanted
        standard_error = difference.std() / n**0.5
        assert 0 < standard_error < 0.05 * wanted.mean()  # fine enough to tell the readings from others
        assert difference.mean().abs() < 4 * standard_error


# -------------------------------------------------------------------------------------------------- shrinkage

def lowest(function, start):
    """Where a smooth function of a vector is least, by LBFGS."""
    v = torch.as_tensor(start, dtype=torch.float64).clone().requires_grad_()
    search = torch.optim.LBFGS([v], max_iter=200, tolerance_grad=1e-13, tolerance_change=1e-16, line_search_fn="strong_wolfe")

    def closure():
        search.zero_grad()
        value = function(v)
        value.backward()
        return value

    search.step(closure)
    return v.detach()


@pytest.mark.parametrize("tau", [0.99, 0.9, 0.3])
@pytest.mark.parametrize("skip", [1, 9, 49])
@pytest.mark.parametrize("reading", CLOSED_FORM)
def test_shrinkage_minimises_the_loss_at_one_noisy_point(reading, skip, tau):
    """Stand at one x_t: ε₁ is one of the rows below, and the number f to answer is free. The best f is s_t·mean(ε₁)."""
    eps = torch.randn(50, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.7
    fresh = torch.randn(50, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    fresh = torch.cat([fresh, -fresh])  # of mean exactly 0
    s = shrinkage(SCHEDULE, skip, tau, reading)
    assert s.shape == (1000,) and s.dtype == torch.float64 and (s[:skip] == 1).all()
    for t in (skip, 200, 600, 999):
        a = np.prod(1 - BETA[t - skip + 1:t + 1])
        c = float(np.sqrt((1 - a) / a))

        def mixture(f, c=c):
            second = {"independent": fresh - c * f, "expected": c * f, "shared": eps - c * f}[reading]
            return tau * (eps - f).square().sum(-1).mean() + (1 - tau) * second.square().sum(-1).mean()

        torch.testing.assert_close(lowest(mixture, torch.zeros(3)), s[t] * eps.mean(0), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("reading", CLOSED_FORM)
def test_shrinkage_minimises_the_library_loss(reading):
    """All data at 0: then x_t = √(1−ᾱ)·ε₁, so E[ε₁|x_t] = ε₁ is known, and the best multiple of it is found by search."""
    n, skip, tau = 20_000, 49, 0.9
    x0 = torch.zeros(n, 2, dtype=torch.float64)
    for t in (49, 600, 900):
        steps = torch.full((n,), t)
        noise = (1 - SCHEDULE.alpha_bar[t]).sqrt()
        best = lowest(lambda s: s2dm_loss(lambda x, t: s * x / noise, x0, steps, SCHEDULE, skip, tau, reading,  # noqa: B023
                                          torch.Generator().manual_seed(11)).mean(), torch.ones(1))
        # ε₂ of `independent` is a sample, which leaves (1−τ)·c·mean(ε₂·ε₁), about 0.1·1.2/√40,000 = 0.0006.
        tolerance = 0.0025 if reading == "independent" else 1e-8
        assert best.item() == pytest.approx(shrinkage(SCHEDULE, skip, tau, reading)[t].item(), abs=tolerance)


@pytest.mark.parametrize(("skip", "wanted"), [
    (1, [1.0000, 1.0000, 0.9999, 0.9999, 0.9998, 0.9998]),
    (9, [0.9998, 0.9996, 0.9992, 0.9988, 0.9984, 0.9980]),
    (49, [0.9992, 0.9980, 0.9954, 0.9923, 0.9885, 0.9838]),
])
def test_published_shrinkage(skip, wanted):
    s = shrinkage(SCHEDULE, skip, 0.99)[[100, 200, 400, 600, 800, 999]]
    assert [round(v, 4) for v in s.tolist()] == wanted


def test_shrinkage_at_the_ends_of_tau():
    for reading in CLOSED_FORM:
        assert (shrinkage(SCHEDULE, 9, 1.0, reading) == 1).all()
    assert (shrinkage(SCHEDULE, 9, 0.0, "expected")[9:] == 0).all()
    a = np.prod(1 - BETA[500 - 8:501])
    assert shrinkage(SCHEDULE, 9, 0.0, "shared")[500].item() == pytest.approx(np.sqrt(a / (1 - a)))  # 1/c


# ----------------------------------------------------------------------------------------------------- errors

X0, T = torch.zeros(2, 3), torch.tensor([5, 500])
LOSSES = [
    lambda **options: s2dm_loss(denoiser, X0, T, SCHEDULE, **options),
    lambda **options: skip_step_loss(denoiser, X0, T, SCHEDULE, **options),
    lambda **options: shrinkage(SCHEDULE, **options),
]


@pytest.mark.parametrize("function", LOSSES, ids=["s2dm_loss", "skip_step_loss", "shrinkage"])
def test_bad_readings_and_skips(function):
    with pytest.raises(ValueError, match="independent, expected, shared, output, not 'shred'"):
        function(reading="shred")
    for skip in (0, -9, 1000, 9.0, True):
        with pytest.raises(ValueError, match=rf"skip .*1\.\.999 .*{skip!r}"):
            function(skip=skip)


@pytest.mark.parametrize("function", LOSSES[:2], ids=["s2dm_loss", "skip_step_loss"])
def test_bad_skips_with_the_output_reading(function):
    for skip in (0, -9, 1000):
        with pytest.raises(ValueError, match=rf"skip .*1\.\.999 .*{skip!r}"):
            function(skip=skip, reading="output")


def test_timestep_weights():
    """min(SNR, 5)/SNR and 1/(1 + SNR), SNR = ᾱ/(1−ᾱ), ᾱ as a product of 1 − β."""
    t = np.array([0, 1, 37, 154, 155, 156, 500, 999])
    signal = np.array([np.prod(1 - BETA[:i + 1]) for i in t])
    snr = signal / (1 - signal)
    wanted = {"uniform": np.ones(len(t)), "min-snr-5": np.minimum(snr, 5) / snr, "p2": 1 / (1 + snr)}
    assert 0 < (wanted["min-snr-5"] < 1).sum() < len(t)  # both sides of the limit are tried
    for weighting, values in wanted.items():
        weight = timestep_weight(torch.tensor(t), SCHEDULE, weighting)
        assert weight.dtype == torch.float32
        np.testing.assert_allclose(weight.numpy(), values, rtol=1e-6)
    with pytest.raises(ValueError, match="weighting must be one of uniform, min-snr-5, p2, not 'snr'"):
        timestep_weight(torch.tensor(t), SCHEDULE, "snr")


@pytest.mark.parametrize("tau", [-0.1, 1.01, float("nan")])
def test_bad_taus(tau):
    for function in (LOSSES[0], LOSSES[2]):
        with pytest.raises(ValueError, match=r"tau must lie in \[0, 1\], not (-0.1|1.01|nan)"):
            function(tau=tau)


def test_no_closed_form_for_the_output_reading():
    with pytest.raises(ValueError, match="output .*independent, expected and shared"):
        shrinkage(SCHEDULE, reading="output")


@pytest.mark.parametrize(("t", "said"), [
    (torch.tensor([5.0, 500.0]), "integer timesteps, not torch.float32"),
    (torch.tensor([5, 1000]), r"0\.\.999"),
    (torch.tensor([5]), r"\(1,\)"),
])
def test_bad_timesteps(t, said):
    for loss in (simple_loss, skip_step_loss, s2dm_loss):
        with pytest.raises(ValueError, match=said):
            loss(denoiser, X0, t, SCHEDULE)


# ------------------------------------------------------------------------------------------------------ refusals

PIXELS, WHEN = torch.zeros(2, 3), torch.tensor([5, 500])


@pytest.mark.parametrize(("call", "said"), [
    (lambda: simple_loss(None, PIXELS, WHEN, SCHEDULE), "denoiser must be a function"),
    (lambda: simple_loss(denoiser, PIXELS.long(), WHEN, SCHEDULE), "x0 must be a floating tensor"),
    (lambda: simple_loss(denoiser, torch.zeros(2), WHEN, SCHEDULE), r"x0 must be a floating tensor \(B, D, \.\.\.\)"),
    (lambda: simple_loss(denoiser, PIXELS, WHEN, 1000), "schedule must be of the class NoiseSchedule"),
    (lambda: simple_loss(denoiser, PIXELS, WHEN, SCHEDULE, 3), "generator must be a torch.Generator or None"),
    (lambda: skip_step_loss(denoiser, PIXELS, WHEN, SCHEDULE, reading=1), "reading must be one of"),
    (lambda: s2dm_loss(denoiser, PIXELS, WHEN, SCHEDULE, reading=1), "reading must be one of"),
    (lambda: timestep_weight(WHEN, 1000, "p2"), "schedule must be of the class NoiseSchedule"),
    (lambda: timestep_weight(WHEN.reshape(1, 2), SCHEDULE, "p2"), r"t must be a tensor \(B,\)"),
    (lambda: shrinkage(SCHEDULE, reading=1), "reading must be one of"),
    (lambda: shrinkage(1000), "schedule must be of the class NoiseSchedule"),
])
def test_a_refusal_names_what_it_refuses(call, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        call()


def test_shrinkage_is_on_the_device_of_its_schedule():
    """A meta tensor has no values: whatever would fetch them from a GPU raises on it."""
    schedule = SCHEDULE.to("meta")
    assert shrinkage(schedule).device.type == "meta" and shrinkage(schedule).shape == (1000,)


def test_timesteps_of_few_bits_reach_back_as_far_as_others():
    x0, t, schedule = torch.rand(2, 3, dtype=torch.float64), torch.tensor([10, 120], dtype=torch.uint8), NoiseSchedule.linear(200)
    short, long = (s2dm_loss(denoiser, x0, when, schedule, 49, reading="output", generator=torch.Generator().manual_seed(1))
                   for when in (t, t.long()))
    assert torch.equal(short, long)
