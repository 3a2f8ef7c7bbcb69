"""Guidance: the guided denoiser, the S²-DM loss on its prediction, and the minimiser of that loss."""
import numpy as np
import pytest
import torch

from s2dm_mini.denoisers import MixtureDenoiser, Shrunk
from s2dm_mini.guidance import Guided, guided_s2dm_loss, guided_shrinkage
from s2dm_mini.losses import READINGS, s2dm_loss, shrinkage
from s2dm_mini.samplers import sample
from s2dm_mini.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.linear()
BETA = np.linspace(1e-4, 0.02, 1000)
MEANS = torch.tensor([[1.0, -0.5], [-1.0, 0.3], [0.2, 0.9]], dtype=torch.float64)
MIXTURE = MixtureDenoiser(MEANS, torch.tensor([0.1, 0.4, 0.7]), SCHEDULE, torch.tensor([1.0, 2.0, 5.0]), torch.tensor([0, 4, 0]))


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ----------------------------------------------------------------------------------------- the guided denoiser

@pytest.mark.parametrize("weight", [-0.5, 0, 0.3, 1, 4])
def test_guidance_is_its_formula_at_the_cost_of_one_call(weight):
    x, t, label, asked = noise(4, 2, seed=7), torch.tensor([9, 200, 600, 999]), torch.tensor([0, 4, 4, 0]), []

    def network(x, t, label):
        asked.append(len(x))
        return MIXTURE(x, t, label)

    eps = Guided(network, label, weight)(x, t)
    free, given = MIXTURE(x, t), MIXTURE(x, t, label)
    torch.testing.assert_close(eps, (1 - weight) * free + weight * given, rtol=1e-10, atol=1e-12)
    assert asked == [4 if weight in (0, 1) else 8]
    torch.testing.assert_close(Guided(network, 4, weight)(x, t), Guided(network, torch.full((4,), 4), weight)(x, t))


def test_shrinking_before_guidance_or_after_is_the_same():
    s, x, t = shrinkage(SCHEDULE, 49, 0.5), noise(4, 2, seed=8), torch.tensor([40, 200, 600, 999])
    after = Shrunk(Guided(MIXTURE, 4, 3.0), s)(x, t)
    torch.testing.assert_close(Guided(Shrunk(MIXTURE, s), 4, 3.0)(x, t), after, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(after, s[t][:, None] * Guided(MIXTURE, 4, 3.0)(x, t), rtol=1e-12, atol=1e-14)


def test_guided_samples_go_where_the_class_is():
    x_T = noise(200, 2, seed=9)
    away = {w: (sample(Guided(MIXTURE, 4, w), x_T, SCHEDULE, steps=50) - MEANS[1]).norm(dim=1) for w in (0, 1)}
    assert away[1].mean() < 0.6 < away[0].mean()  # its one component has standard deviation 0.4


def test_labels_are_passed_on_as_int64():
    x, t = noise(2, 2), torch.tensor([3, 4])

    def network(x, t_given, label):
        assert t_given is t and label.dtype == torch.int64
        return x

    Guided(network, torch.tensor([1, 2], dtype=torch.int32), 1.0)(x, t)


# ---------------------------------------------------------------------------------- L_skip on the guided prediction

def denoiser(x, t):
    """Some function of x and t that is not linear in either."""
    t = t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return torch.tanh(0.7 * x) + 0.3 * torch.sin(t / 300)


def denoiser_by_hand(x, t):
    return np.tanh(0.7 * x) + 0.3 * np.sin(t / 300)


def labelled(x, t, label):
    """Some function of x, t and the label; none is a label of its own."""
    return denoiser(x, t) + 0.2 * label.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1)) * x


@pytest.mark.parametrize("reading", READINGS)
def test_guided_loss_is_the_formula(reading, skip=49, tau=0.7, weight=3.0):
    t, label = torch.tensor([0, 48, 49, 600, 999]), torch.tensor([2, 1, -1, 1, 2])
    x0 = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    draws = torch.Generator().manual_seed(5)
    eps, fresh = (torch.randn(x0.shape, generator=draws, dtype=torch.float64) for _ in range(2))
    loss = guided_s2dm_loss(labelled, x0, t, label, SCHEDULE, weight, skip, tau, reading, torch.Generator().manual_seed(5))
    for i, (time, k) in enumerate(zip(t.tolist(), label.tolist(), strict=True)):
        def answer(time, k, i=i):
            signal = np.prod(1 - BETA[:time + 1])
            x = (np.sqrt(signal) * x0[i] + np.sqrt(1 - signal) * eps[i]).numpy()
            return denoiser_by_hand(x, time) + 0.2 * k * x

        f, g = answer(time, k), (1 - weight) * answer(time, -1) + weight * answer(time, k)
        wanted = np.mean((eps[i].numpy() - f) ** 2)
        if time >= skip:
            a = np.prod(1 - BETA[time - skip + 1:time + 1])
            c = np.sqrt((1 - a) / a)
            before = (1 - weight) * answer(time - skip, -1) + weight * answer(time - skip, k)
            l_skip = {"independent": np.mean((fresh[i].numpy() - c * g) ** 2), "expected": 1 + c**2 * np.mean(g**2),
                      "shared": np.mean((eps[i].numpy() - c * g) ** 2), "output": np.mean((g - before) ** 2)}[reading]
            wanted = tau * wanted + (1 - tau) * l_skip
        assert loss[i].item() == pytest.approx(wanted, rel=1e-10)


def test_guided_loss_of_weight_one_is_that_of_the_labelled_network():
    t, label, x0 = torch.tensor([0, 60, 700]), torch.tensor([2, -1, 1]), torch.rand(3, 2, dtype=torch.float64)
    guided = guided_s2dm_loss(labelled, x0, t, label, SCHEDULE, 1.0, 49, 0.9, generator=torch.Generator().manual_seed(3))
    plain = s2dm_loss(lambda x, t: labelled(x, t, label), x0, t, SCHEDULE, 49, 0.9, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(guided, plain, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("weight", "dropout"), [(3.0, 0.1), (0.0, 0.2), (1.0, 0.1), (6.0, 0.5), (2.0, 1.0)])
def test_guided_shrinkage_solves_the_normal_equations(weight, dropout, skip=49, tau=0.9):
    """At one x_t the loss is quadratic in the K + 1 answers f_1, …, f_K, f_u: least squares on its rows, one a possible target."""
    chances, answers = np.array([0.5, 0.2, 0.3]), np.array([1.0, -2.0, 0.4])  # P(label | x_t) and E[ε | x_t, label]
    null, guided = guided_shrinkage(SCHEDULE, weight, dropout, skip, tau)
    assert (null[:skip] == 1).all() and (guided[:skip] == 1).all()
    if weight == 1:
        torch.testing.assert_close(null, shrinkage(SCHEDULE, skip, tau))
        torch.testing.assert_close(guided, shrinkage(SCHEDULE, skip, tau))
    for t in (49, 500, 999):
        a = np.prod(1 - BETA[t - skip + 1:t + 1])
        c = np.sqrt((1 - a) / a)
        rows, targets = [], []
        for k in range(3):  # with its label: L_0 on f_k, then L_skip on the guided one, each times the root of its weight
            share, f, u = np.sqrt((1 - dropout) * chances[k]), np.eye(4)[k], np.eye(4)[3]
            rows += [share * np.sqrt(tau) * f, share * np.sqrt(1 - tau) * c * (weight * f + (1 - weight) * u)]
            targets += [share * np.sqrt(tau) * answers[k], 0]
        rows += [np.sqrt(dropout * tau) * u, np.sqrt(dropout * (1 - tau)) * c * u]  # without
        targets += [np.sqrt(dropout * tau) * (chances @ answers), 0]
        *f, u = np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)[0]
        assert u == pytest.approx(null[t].item() * (chances @ answers), rel=1e-9)
        if dropout < 1:
            wanted = guided[t].item() * (weight * answers - (weight - 1) * u)
            np.testing.assert_allclose(weight * np.array(f) + (1 - weight) * u, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("dropout", "tau"), [(0.0, 0.9), (1.1, 0.9), (0.1, 0.0)])
def test_guided_shrinkage_needs_a_null_branch_of_its_own(dropout, tau):
    with pytest.raises(ValueError, match="label_dropout must lie in .* and tau above 0"):
        guided_shrinkage(SCHEDULE, 2.0, dropout, 49, tau)


# ------------------------------------------------------------------------------------------------------ refusals

PIXELS, WHEN, LABEL = torch.zeros(2, 3), torch.tensor([5, 500]), torch.tensor([0, 1])


@pytest.mark.parametrize(("call", "said"), [
    (lambda: Guided(MIXTURE, torch.tensor([0, 4, 0]), 2)(noise(2, 2), WHEN), "3 labels cannot go with 2 images"),
    (lambda: Guided(MIXTURE, 0.5, 2), "label must be one whole number"),
    (lambda: Guided(MIXTURE, torch.zeros(1, 2, dtype=torch.int64), 2), r"label must be one whole number or \(B,\)"),
    (lambda: Guided(MIXTURE, 0, float("inf")), "weight must lie in"),
    (lambda: guided_s2dm_loss(labelled, PIXELS, WHEN, LABEL, SCHEDULE, 2.0, reading="shard"), "reading must be one of .* 'shared'"),
    (lambda: guided_s2dm_loss(labelled, PIXELS, WHEN, LABEL, SCHEDULE, 2.0, tau=-0.1), r"tau must lie in \[0, 1\], not -0.1"),
    (lambda: guided_s2dm_loss(labelled, PIXELS, WHEN, LABEL, SCHEDULE, 2.0, tau=1.5), r"tau must lie in \[0, 1\], not 1.5"),
    (lambda: guided_shrinkage(SCHEDULE, 2.0, 0.1, tau=-0.5), r"tau must lie in \[0, 1\], not -0.5"),
    (lambda: guided_shrinkage(SCHEDULE, 2.0, 0.1, tau=1.5), r"tau must lie in \[0, 1\], not 1.5"),
])
def test_a_refusal_names_what_it_refuses(call, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        call()


def test_what_nobody_says_of_guidance_is_what_nobody_says_without():
    x0 = torch.rand(2, 3, dtype=torch.float64)
    seeded = [torch.Generator().manual_seed(1) for _ in range(2)]
    assert torch.equal(guided_s2dm_loss(labelled, x0, WHEN, LABEL, SCHEDULE, 2.0, generator=seeded[0]),
                       guided_s2dm_loss(labelled, x0, WHEN, LABEL, SCHEDULE, 2.0, 9, 0.99, "independent", seeded[1]))
    for given, by_default in zip(guided_shrinkage(SCHEDULE, 2.0, 0.1, 9, 0.99), guided_shrinkage(SCHEDULE, 2.0, 0.1), strict=True):
        assert torch.equal(given, by_default)


def test_closed_forms_are_on_the_device_of_their_schedule():
    """A meta tensor has no values: whatever would fetch them from a GPU raises on it."""
    for found in guided_shrinkage(SCHEDULE.to("meta"), 2.0, 0.1):
        assert found.device.type == "meta" and found.shape == (1000,)
