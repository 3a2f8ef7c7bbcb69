"""The exact denoisers against the score of the noisy density, against Monte Carlo, and against each other."""
import re

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from s2dm_mini.denoisers import NO_LABEL, GaussianDenoiser, MixtureDenoiser, Shrunk
from s2dm_mini.losses import shrinkage
from s2dm_mini.samplers import sample
from s2dm_mini.schedule import NoiseSchedule
from s2dm_mini.theory.gaussian import gaussian_ddim_variance
from s2dm_mini.theory.scales import relative_scale

SCHEDULE = NoiseSchedule.linear()
TIMES = [torch.tensor([0, 10, 300, 700, 999]), torch.tensor([0.5, 10.25, 300.0, 699.9, 999.0])]
MEANS = torch.tensor([[1.0, -0.5], [-1.0, 0.3], [0.2, 0.9]], dtype=torch.float64)
STDS, WEIGHTS = torch.tensor([0.1, 0.4, 0.7], dtype=torch.float64), torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)


def eps_from_score(density, x, t):
    """ε = −√(1−ᾱ)·∇ log p(x_t) (Tweedie), one image at a time; density(ᾱ) gives the distribution of x_t."""
    eps = []
    for point, alpha_bar in zip(x, SCHEDULE.alpha_bar_at(t), strict=True):
        point = point.flatten().clone().requires_grad_()
        score, = torch.autograd.grad(density(alpha_bar).log_prob(point), point)
        eps.append(-(1 - alpha_bar).sqrt() * score)
    return torch.stack(eps).reshape(x.shape)


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --------------------------------------------------------------------------------------------------- Gaussian

@pytest.mark.parametrize("t", TIMES, ids=["whole", "between"])
@pytest.mark.parametrize("shape", [(3,), (3, 2, 2)])
@pytest.mark.parametrize("diagonal", [True, False])
def test_gaussian_is_the_score(diagonal, shape, t):
    mean = noise(*shape)
    d = mean.numel()
    root = noise(d, d, seed=1)
    covariance = root @ root.T / d
    if diagonal:
        covariance = covariance.diag().diag()
    x = noise(5, *shape, seed=2)

    def density(alpha_bar):
        return MultivariateNormal(alpha_bar.sqrt() * mean.flatten(), alpha_bar * covariance + (1 - alpha_bar) * torch.eye(d).double())

    eps = GaussianDenoiser(mean, covariance.diag() if diagonal else covariance, SCHEDULE)(x, t)
    torch.testing.assert_close(eps, eps_from_score(density, x, t), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.uint8])
def test_gaussian_fitted_to_data(dtype):
    x = noise(6_000, 2, 2, seed=3) * torch.tensor([[0.2, 0.4], [0.1, 0.3]]) + 0.5  # more points than one part of the sum holds
    x[:, 0] += 0.7 * x[:, 1]
    x = (x * 60 + 100).clamp(0, 255).to(dtype)
    rows = x.flatten(1).double().numpy() / 127.5 - 1 if dtype == torch.uint8 else x.flatten(1).double().numpy()
    fitted = GaussianDenoiser.fit(x, SCHEDULE)
    covariance = fitted.eigenvectors @ fitted.eigenvalues.diag() @ fitted.eigenvectors.T
    assert fitted.mean.shape == (2, 2)
    np.testing.assert_allclose(fitted.mean.flatten().numpy(), rows.mean(0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(covariance.numpy(), np.cov(rows.T), rtol=1e-5, atol=1e-6 * np.cov(rows.T).max())


def test_gaussian_fit_keeps_its_digits_far_from_zero():
    x = noise(500, 2, seed=4) * 1e-3 + 1e4
    fitted = GaussianDenoiser.fit(x, SCHEDULE)
    np.testing.assert_allclose(fitted.eigenvalues.numpy(), np.linalg.eigvalsh(np.cov(x.T.numpy())), rtol=1e-8)


@pytest.mark.parametrize("make", [
    lambda: GaussianDenoiser(torch.zeros(2), torch.ones(2), SCHEDULE),
    lambda: MixtureDenoiser(torch.zeros(1, 2), 1.0, SCHEDULE),
], ids=["Gaussian", "mixture"])
def test_eps_has_the_dtype_of_x(make):
    for dtype in (torch.float32, torch.float64):
        x = noise(5, 2, dtype=dtype)
        eps = make()(x, TIMES[0])
        assert eps.dtype == dtype
        # N(0, I) stays N(0, I) at every t, so that ε = √(1−ᾱ)·x.
        torch.testing.assert_close(eps, ((1 - SCHEDULE.alpha_bar[TIMES[0]]).sqrt()[:, None] * x.double()).to(dtype))


@pytest.mark.parametrize(("mean", "covariance", "said"), [
    (torch.zeros(2), torch.ones(3), r"\(2,\) or \(2, 2\) .* not \(3,\)"),
    (torch.zeros(2, 2), torch.eye(2), r"\(4,\) or \(4, 4\) .* not \(2, 2\)"),
    (torch.zeros(2), torch.tensor([1.0, -0.5]), r"negative eigenvalue -0\.5"),
    (torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "negative eigenvalue -1"),
])
def test_gaussian_refuses(mean, covariance, said):
    with pytest.raises(ValueError, match=said):
        GaussianDenoiser(mean, covariance, SCHEDULE)


def test_gaussian_takes_covariances_that_rounding_has_left_just_below_zero():
    """No negative eigenvalue is kept; one direction, or all, may have no variance; what counts is the size beside the largest."""
    for variances in ([0.0, 0.0], [1.0, 0.0], [1.0, -1e-10], [1e6, -1e-4], [1e-6, -1e-15]):
        kept = GaussianDenoiser(torch.zeros(2), torch.tensor(variances, dtype=torch.float64), SCHEDULE).eigenvalues
        assert kept.tolist() == [variances[0], 0.0]
    with pytest.raises(ValueError, match="negative eigenvalue -1e-12"):
        GaussianDenoiser(torch.zeros(2), torch.tensor([1e-6, -1e-12], dtype=torch.float64), SCHEDULE)


def test_numbers_of_any_type_are_kept_in_float64():
    gaussian = GaussianDenoiser(torch.zeros(2), torch.ones(2), SCHEDULE)
    variance = gaussian_ddim_variance(0.25, SCHEDULE, torch.tensor([500]))
    assert {gaussian.mean.dtype, gaussian.eigenvalues.dtype, variance.dtype} == {torch.float64}
    for weights in (None, torch.ones(3)):
        mixture = MixtureDenoiser(MEANS.float(), 0.5, SCHEDULE, weights)
        assert {mixture.means.dtype, mixture.variance.dtype, mixture.weights.dtype} == {torch.float64}
        assert mixture.weights.sum().item() == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("denoiser", [
    GaussianDenoiser(torch.zeros(2), torch.ones(2), SCHEDULE), GaussianDenoiser(torch.zeros(2), torch.eye(2), SCHEDULE),
    MixtureDenoiser(MEANS, 0.5, SCHEDULE), Shrunk(lambda x, t: x, torch.ones(1000)),
], ids=["diagonal", "full", "mixture", "shrunk"])
def test_answers_come_where_x_is(denoiser):
    """And nothing is read on the way: a meta tensor has no values, and whatever would make a host wait for a GPU raises on it."""
    x = torch.empty(5, 2, device="meta")
    assert denoiser(x, torch.empty(5, dtype=torch.int64, device="meta")).device.type == "meta"
    if not isinstance(denoiser, Shrunk):
        assert denoiser(x, TIMES[0]).device.type == "meta"  # timesteps may have stayed behind


def test_two_points_have_a_covariance():
    fitted = GaussianDenoiser.fit(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), SCHEDULE)
    assert fitted.mean.tolist() == [2.0, 2.0] and fitted.eigenvalues.tolist() == pytest.approx([0.0, 2.0])


def test_gaussian_refuses_data_of_another_shape():
    with pytest.raises(ValueError, match=r"\(B, 3, 2\), not \(5, 3\)"):
        GaussianDenoiser(torch.zeros(3, 2), torch.ones(6), SCHEDULE)(torch.zeros(5, 3), TIMES[0])
    with pytest.raises(ValueError, match="at least 2 data points, not 1"):
        GaussianDenoiser.fit(torch.zeros(1, 2), SCHEDULE)


# ---------------------------------------------------------------------------------------------------- mixture

@pytest.mark.parametrize("t", TIMES, ids=["whole", "between"])
def test_mixture_is_the_score(t):
    def density(alpha_bar):
        spread = (alpha_bar * STDS.square() + 1 - alpha_bar).sqrt()[:, None].expand(3, 2)
        return MixtureSameFamily(Categorical(WEIGHTS), Independent(Normal(alpha_bar.sqrt() * MEANS, spread), 1))

    x = noise(5, 2, seed=5)
    eps = MixtureDenoiser(MEANS, STDS, SCHEDULE, WEIGHTS)(x, t)
    torch.testing.assert_close(eps, eps_from_score(density, x, t), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("t", [100, 400, 900])
def test_mixture_is_the_mean_of_eps_given_x_t(t):
    """E[ε | x_t] by Monte Carlo: data points drawn blindly, each weighted by how well it explains x_t."""
    n, alpha_bar = 400_000, SCHEDULE.alpha_bar[t]
    generator = torch.Generator().manual_seed(t)
    kind = torch.multinomial(WEIGHTS, n, replacement=True, generator=generator)
    x0 = MEANS[kind] + STDS[kind, None] * torch.randn(n, 2, generator=generator, dtype=torch.float64)
    x_t = torch.tensor([[0.3, 0.1], [-0.6, 0.4]], dtype=torch.float64)
    exact = MixtureDenoiser(MEANS, STDS, SCHEDULE, WEIGHTS)(x_t, torch.full((2,), t))
    for x, wanted in zip(x_t, exact, strict=True):
        eps = (x - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()
        weight = (-eps.square().sum(1, keepdim=True) / 2).softmax(0)
        mean = (weight * eps).sum(0)
        standard_error = (weight * (eps - mean)).square().sum(0).sqrt()
        assert (standard_error < 0.02).all()
        assert ((mean - wanted).abs() < 4 * standard_error).all()


def test_one_component_is_a_gaussian():
    x, mean, std = noise(5, 3, seed=6), noise(3, seed=7), 0.6
    for t in TIMES:
        wanted = GaussianDenoiser(mean, torch.tensor([std**2] * 3, dtype=torch.float64), SCHEDULE)(x, t)
        torch.testing.assert_close(MixtureDenoiser(mean[None], std, SCHEDULE)(x, t), wanted, rtol=1e-10, atol=1e-12)


def test_std_zero_is_the_ideal_denoiser_of_a_finite_data_set():
    denoiser, t = MixtureDenoiser(MEANS, 0.0, SCHEDULE), torch.tensor([0, 400, 999])
    x = SCHEDULE.add_noise(MEANS, noise(3, 2, seed=8), t)
    for i in range(3):
        alpha_bar = SCHEDULE.alpha_bar[t[i]].item()
        far = [(x[i] - alpha_bar**0.5 * m).square().sum().item() / (2 - 2 * alpha_bar) for m in MEANS]
        weight = np.exp(min(far) - np.array(far))
        x0 = weight @ MEANS.numpy() / weight.sum()
        wanted = (x[i].numpy() - alpha_bar**0.5 * x0) / (1 - alpha_bar) ** 0.5
        np.testing.assert_allclose(denoiser(x, t)[i].numpy(), wanted, rtol=1e-9)
    # Almost no noise at t = 0: the data point itself is recognised.
    torch.testing.assert_close(SCHEDULE.predict_x0(x, denoiser(x, t), t)[0], MEANS[0])


@pytest.mark.parametrize(("means", "std", "weights", "said"), [
    (torch.zeros(2), 1.0, None, r"\(K, D\) .* not \(2,\)"),
    (torch.zeros(0, 2), 1.0, None, r"K and D at least 1, not \(0, 2\)"),
    (MEANS, torch.ones(2), None, r"std must be one number or 3 .* not of shape \(2,\)"),
    (MEANS, 1.0, torch.ones(2), "weights must be 3 numbers"),
    (MEANS, 1.0, torch.tensor([1.0, 0.0, 1.0]), "above 0"),
])
def test_mixture_refuses(means, std, weights, said):
    with pytest.raises(ValueError, match=said):
        MixtureDenoiser(means, std, SCHEDULE, weights)


def test_mixture_refuses_data_of_another_shape():
    for shape in ((5, 3), (5, 2, 1), (5,)):
        with pytest.raises(ValueError, match=rf"x must be \(B, 2\), not {re.escape(str(shape))}"):
            MixtureDenoiser(MEANS, 1.0, SCHEDULE)(torch.zeros(shape), TIMES[0])


# ----------------------------------------------------------------------------------------------------- Shrunk

@pytest.mark.parametrize("shape", [(2,), (3, 4, 4)])
def test_shrunk_multiplies_by_the_scale_at_t(shape):
    def denoiser(x, t):
        return x.sin()

    x, s = noise(4, *shape, dtype=torch.float32), shrinkage(SCHEDULE, 49, 0.9)
    torch.testing.assert_close(Shrunk(denoiser, 1 / 1.017)(x, torch.zeros(4)), x.sin() / 1.017)
    torch.testing.assert_close(Shrunk(denoiser, torch.tensor(0.5))(x, torch.arange(4)), x.sin() * 0.5)
    for t in (torch.tensor([0, 49, 600, 999]), torch.tensor([0.0, 48.25, 599.5, 999.0])):
        scale = np.interp(t.numpy(), np.arange(1000), s.numpy())
        for i in range(4):
            torch.testing.assert_close(Shrunk(denoiser, s)(x, t)[i], x[i].sin() * scale[i])
    torch.testing.assert_close(Shrunk(denoiser, s[:500])(x, torch.full((4,), 499)), x.sin() * s[499].float())
    with pytest.raises(ValueError, match=r"0\.\.499 for T = 500"):
        Shrunk(denoiser, s[:500])(x, torch.tensor([499, 500, 600, 999]))


def test_shrunk_refuses():
    for scale in (float("nan"), torch.ones(2, 3), torch.tensor([1.0, float("inf")]), torch.ones(0)):
        with pytest.raises(ValueError, match="scale must be (one finite number or a vector|finite numbers)"):
            Shrunk(lambda x, t: x, scale)


# ------------------------------------------------------------------------------- variance of DDIM's samples

@pytest.mark.parametrize(("v", "steps", "wanted"), [
    (0.25, 10, (0.560, 0.561, 0.569, 0.627)), (0.25, 50, (0.893, 0.894, 0.906, 0.988)), (0.25, 100, (0.945, 0.946, 0.958, 1.044)),
    (0.25, 1000, (0.994, 0.995, 1.008, 1.097)), (0.06, 50, (0.811, 0.812, 0.823, 0.899)), (0.06, 1000, (0.988, 0.989, 1.002, 1.092)),
])
def test_published_variances(v, steps, wanted):
    """The table of paper.md: L_0, S²-DM^2, S²-DM^10, S²-DM^50 at τ = 0.99, uniform grid."""
    scales = [1.0, *(shrinkage(SCHEDULE, skip, 0.99) for skip in (1, 9, 49))]
    ratios = [gaussian_ddim_variance(v, SCHEDULE, SCHEDULE.timesteps(steps), scale).item() / v for scale in scales]
    assert ratios == pytest.approx(wanted, abs=5.1e-4)  # half a digit; paper.md cuts 0.98950 down to 0.989


def test_variance_without_a_scale_is_that_of_the_exact_denoiser():
    grid = SCHEDULE.timesteps(10)
    assert gaussian_ddim_variance(0.25, SCHEDULE, grid).equal(gaussian_ddim_variance(0.25, SCHEDULE, grid, 1.0))


@pytest.mark.parametrize("spacing", ["uniform", "quadratic", "trailing"])
@pytest.mark.parametrize("scale", [1.0, 0.98, shrinkage(SCHEDULE, 49, 0.9)], ids=["1", "0.98", "shrinkage"])
def test_variance_is_that_of_the_sampler(scale, spacing):
    """All is linear in x_T: start at x_T = 1 in every direction, and the samples squared are the variances."""
    v = torch.tensor([1e-4, 0.06, 0.25, 1.0, 30.0], dtype=torch.float64)
    denoiser = Shrunk(GaussianDenoiser(torch.zeros(5), v, SCHEDULE), scale)
    for steps in (1, 10, 20):
        samples = sample(denoiser, torch.ones(1, 5, dtype=torch.float64), SCHEDULE, "ddim", steps, spacing)
        wanted = gaussian_ddim_variance(v, SCHEDULE, SCHEDULE.timesteps(steps, spacing), scale)
        # atol: in one long step nearly all of x_t is taken away, and the difference keeps fewer digits.
        torch.testing.assert_close(samples[0].square(), wanted, rtol=1e-12, atol=1e-14)


def test_the_relative_scale_of_a_shrunk_denoiser_is_its_shrinkage():
    exact = MixtureDenoiser(MEANS[:, :2], 0.1, SCHEDULE)
    s = shrinkage(SCHEDULE, 49, 0.9)
    x0 = torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for t in (100, 900):
        assert relative_scale(Shrunk(exact, s), exact, x0, t, SCHEDULE) == pytest.approx(s[t].item(), rel=1e-9)

    def off(x, t):  # what it adds is at right angles to what it copies
        e = exact(x, t)
        return 0.7 * e + torch.stack([-e[:, 1], e[:, 0]], dim=1)

    assert relative_scale(off, exact, x0, 500, SCHEDULE) == pytest.approx(0.7, rel=1e-9)


def test_relative_scale_is_a_projection_in_float64():
    """⟨f, e⟩/⟨e, e⟩ written with numpy; of float32 answers too the sums run in float64."""
    def f(x, t):
        return (0.5 * x + 0.1 * x.square()).float()

    def e(x, t):
        return x.sin().float()

    x0, eps = noise(50, 3), noise(50, 3, seed=4)
    x = np.sqrt(SCHEDULE.alpha_bar[300].item()) * x0.numpy() + np.sqrt(1 - SCHEDULE.alpha_bar[300].item()) * eps.numpy()
    ours, theirs = (0.5 * x + 0.1 * x**2).astype(np.float32).astype(float), np.sin(x).astype(np.float32).astype(float)
    s = relative_scale(f, e, x0, 300, SCHEDULE, torch.Generator().manual_seed(4))
    assert s == pytest.approx((ours * theirs).sum() / (theirs**2).sum(), rel=2e-9)


# --------------------------------------------------------------------------------------------------- labels

LABELS = torch.tensor([0, 4, 0])


def labelled():
    return MixtureDenoiser(MEANS, STDS, SCHEDULE, WEIGHTS, LABELS)


def test_a_labelled_mixture_is_the_mixture_of_that_class():
    x, t, every = noise(5, 2, seed=6), TIMES[0], labelled()
    alone = {0: MixtureDenoiser(MEANS[[0, 2]], STDS[[0, 2]], SCHEDULE, WEIGHTS[[0, 2]])(x, t),
             4: MixtureDenoiser(MEANS[[1]], STDS[[1]], SCHEDULE)(x, t), NO_LABEL: MixtureDenoiser(MEANS, STDS, SCHEDULE, WEIGHTS)(x, t)}
    label = torch.tensor([0, 4, NO_LABEL, 4, 0])
    wanted = torch.stack([alone[int(k)][i] for i, k in enumerate(label)])
    torch.testing.assert_close(every(x, t, label), wanted, rtol=1e-10, atol=1e-12)
    assert every(x, t).equal(alone[NO_LABEL])


def test_labels_that_are_refused():
    x, t = noise(2, 2), torch.tensor([3, 4])
    with pytest.raises(ValueError, match="made without labels"):
        MixtureDenoiser(MEANS, STDS, SCHEDULE)(x, t, torch.tensor([0, 0]))
    with pytest.raises(ValueError, match=r"labels must be among \[0, 4\], or -1 for none, not \[3\]"):
        labelled()(x, t, torch.tensor([3, 3]))
    with pytest.raises(ValueError, match="labels must be 3 numbers, one a component"):
        MixtureDenoiser(MEANS, STDS, SCHEDULE, labels=torch.tensor([0, 1]))


# ------------------------------------------------------------------------------------------------------ refusals

X, T_TWO = noise(2, 2), torch.tensor([3, 4])
NORMAL, SLANTED = GaussianDenoiser(torch.zeros(2), torch.ones(2), SCHEDULE), torch.tensor([[1.0, 0.5], [0.0, 1.0]])


@pytest.mark.parametrize(("call", "said"), [
    (lambda: GaussianDenoiser(torch.zeros(2), torch.ones(2), 1000), "schedule must be of the class NoiseSchedule"),
    (lambda: GaussianDenoiser(torch.zeros(2), "x", SCHEDULE), "covariance must be real numbers"),
    (lambda: GaussianDenoiser("x", torch.ones(2), SCHEDULE), "mean must be real numbers"),
    (lambda: GaussianDenoiser(torch.zeros(0), torch.ones(0), SCHEDULE), r"covariance must be \(0,\) or \(0, 0\) .* at least one"),
    (lambda: GaussianDenoiser(torch.zeros(2), SLANTED, SCHEDULE), r"covariance must be symmetric; it differs from its transpose by 0\.5"),
    (lambda: GaussianDenoiser.fit([[1, 2], [3, 4]], SCHEDULE), r"x must be a floating tensor \(N, D, \.\.\.\)"),
    (lambda: GaussianDenoiser.fit(torch.ones(5), SCHEDULE), r"x must be a floating tensor \(N, D, \.\.\.\)"),
    (lambda: GaussianDenoiser.fit(X * np.inf, SCHEDULE), "x must be finite"),
    (lambda: NORMAL(X, T_TWO[:1]), "t must hold one timestep an image"),
    (lambda: MixtureDenoiser(MEANS, STDS, 1000), "schedule must be of the class NoiseSchedule"),
    (lambda: MixtureDenoiser("x", STDS, SCHEDULE), "means must be real numbers"),
    (lambda: MixtureDenoiser(MEANS, -0.5, SCHEDULE), r"std must be finite numbers in \[0,"),
    (lambda: MixtureDenoiser(MEANS, STDS, SCHEDULE, "x"), "weights must be real numbers"),
    (lambda: MixtureDenoiser(MEANS, STDS, SCHEDULE)(X, T_TWO[:1]), "t must hold one timestep an image"),
    (lambda: Shrunk(None, 1.0), "denoiser must be a function"),
    (lambda: relative_scale(None, NORMAL, X, 3, SCHEDULE), "denoiser must be a function"),
    (lambda: relative_scale(NORMAL, None, X, 3, SCHEDULE), "baseline must be a function"),
    (lambda: relative_scale(NORMAL, NORMAL, X.long(), 3, SCHEDULE), "x0 must be a floating tensor"),
    (lambda: relative_scale(NORMAL, NORMAL, X * np.nan, 3, SCHEDULE), "x0 must be finite"),
    (lambda: relative_scale(NORMAL, NORMAL, X, 3, 1000), "schedule must be of the class NoiseSchedule"),
    (lambda: relative_scale(NORMAL, NORMAL, X, 1000, SCHEDULE), r"t must be an integer in 0\.\.999, not 1000"),
    (lambda: relative_scale(NORMAL, NORMAL, X, -1, SCHEDULE), r"t must be an integer in 0\.\.999, not -1"),
    (lambda: relative_scale(NORMAL, NORMAL, X, 3, SCHEDULE, 5), "generator must be a torch.Generator or None"),
    (lambda: relative_scale(NORMAL, lambda x, t: 0 * x, X, 3, SCHEDULE), "the baseline predicts no noise at all at t = 3"),
    (lambda: gaussian_ddim_variance(0.5, 1000, T_TWO.flip(0)), "schedule must be of the class NoiseSchedule"),
    (lambda: gaussian_ddim_variance(-0.5, SCHEDULE, T_TWO.flip(0)), r"v must be finite numbers in \[0,"),
    (lambda: gaussian_ddim_variance(0.5, SCHEDULE, T_TWO.flip(0), "x"), "scale must be real numbers"),
    (lambda: gaussian_ddim_variance(0.5, SCHEDULE, T_TWO.flip(0), torch.ones(3)), "scale must be one number or 1000 of them"),
    (lambda: gaussian_ddim_variance(0.5, SCHEDULE, torch.tensor([3.0])), r"grid must be a tensor \(B,\) of integer timesteps"),
    (lambda: gaussian_ddim_variance(0.5, SCHEDULE, T_TWO), "grid must hold timesteps that fall strictly"),
    (lambda: gaussian_ddim_variance(0.5, SCHEDULE, torch.tensor([4, 4])), "grid must hold timesteps that fall strictly"),
    (lambda: gaussian_ddim_variance(0.5, SCHEDULE, T_TWO[:0]), "grid must hold timesteps that fall strictly"),
])
def test_a_refusal_names_what_it_refuses(call, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        call()


def test_relative_scale_at_either_end_of_time():
    for t in (0, 999):
        assert relative_scale(Shrunk(NORMAL, 0.5), NORMAL, X, t, SCHEDULE) == pytest.approx(0.5)


def test_labels_go_through_in_their_place():
    def network(x, t, label):
        assert t is T_TWO and label.dtype == torch.int64
        return x

    Shrunk(network, 0.5)(X, T_TWO, torch.tensor([1, 2]))
