"""Distances between sets: each formula a second time in NumPy, known cases, and a ladder of ever worse pictures."""
import math

import numpy as np
import pytest
import torch

from s2dm_mini import shapes
from s2dm_mini.checkpoints import CheckpointError, write_tensors
from s2dm_mini.data import Images
from s2dm_mini.measure.errors import jackknife_error
from s2dm_mini.measure.metrics import (
    Moments,
    frechet_distance,
    frechet_distance_infinite,
    frechet_left_out,
    kernel_distance,
    precision_recall,
)
from s2dm_mini.measure.references import KEPT, reference


def gaussian(n, d, seed, scale=1.0, shift=0.0):
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def square_root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(values.clip(0)) @ vectors.T


def frechet_by_hand(mean_a, a, mean_b, b):
    """tr((Σ_a·Σ_b)^½) = tr((Σ_a^½·Σ_b·Σ_a^½)^½), which needs roots of symmetric matrices only."""
    root = square_root(a)
    return np.sum((mean_a - mean_b) ** 2) + np.trace(a) + np.trace(b) - 2 * np.trace(square_root(root @ b @ root))


# ------------------------------------------------------------------------------------------------ Fréchet distance

@pytest.mark.parametrize("d", [1, 2, 7, 40])
@pytest.mark.parametrize("seed", [0, 1])
def test_frechet_distance_of_two_gaussians_is_the_closed_form(d, seed):
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(2, d, d)) / math.sqrt(d)
    a, b = roots[0] @ roots[0].T, roots[1] @ roots[1].T + 0.1 * np.eye(d)
    mean_a, mean_b = rng.normal(size=(2, d))
    found = frechet_distance(Moments(100, torch.tensor(mean_a), torch.tensor(a)), Moments(70, torch.tensor(mean_b), torch.tensor(b)))
    assert found == pytest.approx(frechet_by_hand(mean_a, a, mean_b, b), rel=1e-6)


def test_frechet_distance_of_diagonal_gaussians_is_a_sum_over_directions():
    a, b = torch.tensor([4.0, 1.0, 0.25]).double(), torch.tensor([1.0, 1.0, 9.0]).double()
    found = frechet_distance(Moments(9, torch.zeros(3).double(), a.diag()), Moments(9, torch.ones(3).double(), b.diag()))
    assert found == pytest.approx(3 + float((a.sqrt() - b.sqrt()).square().sum()), rel=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(50, 80, 3), (300, 200, 12)])
def test_frechet_distance_of_features_uses_their_sample_moments(n, m, d):
    x, y = gaussian(n, d, 0), gaussian(m, d, 1, scale=1.5, shift=0.3)
    by_hand = frechet_by_hand(x.numpy().mean(0), np.cov(x.numpy().T), y.numpy().mean(0), np.cov(y.numpy().T))
    assert frechet_distance(x, y) == pytest.approx(by_hand, rel=1e-8)
    assert frechet_distance(Moments.of(x), y) == frechet_distance(x, y)
    assert frechet_distance(y.float(), x.float()) == pytest.approx(by_hand, rel=1e-4)


def test_frechet_distance_of_a_set_to_itself_is_zero():
    x = gaussian(500, 8, 0, shift=100.0)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)


def test_few_samples_look_worse_and_the_extrapolation_mends_it():
    truth = Moments(10**9, torch.zeros(16).double(), torch.eye(16).double())
    excess, extrapolated = [], []
    for seed in range(20):
        x = gaussian(400, 16, seed)
        excess.append(frechet_distance(truth, x))
        extrapolated.append(frechet_distance_infinite(truth, x))
    # E of the excess to first order: d/N from the mean, and (d² + d)/(4N) from the covariance.
    assert np.mean(excess) == pytest.approx(16 / 400 + (16**2 + 16) / (4 * 400), rel=0.1)
    assert abs(np.mean(extrapolated)) < 0.1 * np.mean(excess)


def test_the_extrapolation_is_the_intercept_of_a_straight_line():
    x, real, n = gaussian(640, 10, 3, scale=1.2), gaussian(2_000, 10, 4), 640
    order = torch.randperm(n, generator=torch.Generator().manual_seed(5))
    sizes = [640, 400, 291, 229, 188, 160]  # N/1, N/1.6, N/2.2, N/2.8, N/3.4, N/4
    points = [frechet_by_hand(real.numpy().mean(0), np.cov(real.numpy().T), x[order[:k]].numpy().mean(0), np.cov(x[order[:k]].numpy().T))
              for k in sizes]
    intercept = np.polyfit(1 / np.array(sizes), points, 1)[1]
    assert frechet_distance_infinite(real, x, seed=5) == pytest.approx(intercept, rel=1e-6)


@pytest.mark.parametrize(("call", "said"), [
    (lambda: frechet_distance(torch.zeros(1, 3), torch.zeros(5, 3)), r"N at least 2, not \(1, 3\)"),
    (lambda: frechet_distance(torch.randn(9, 3), torch.randn(9, 4)), "same features, not 3 and 4"),
    (lambda: frechet_distance(torch.randn(9, 3), torch.full((9, 3), math.nan)), "b must be finite, .*27 of 27 values are NaN"),
    (lambda: frechet_distance_infinite(torch.randn(99, 9), torch.randn(35, 9)), "draw at least 36"),
    (lambda: frechet_left_out(torch.randn(9, 2), torch.randn(15, 2)), "15 samples cannot be left out in 16 blocks: draw at least 16"),
    (lambda: frechet_left_out(torch.randn(9, 2), torch.randn(3, 2), 3), "draw at least 4"),
    (lambda: frechet_left_out(torch.randn(9, 2), torch.randn(30, 2), 1), "blocks"),
    (lambda: jackknife_error([1.0]), "at least two numbers"),
    (lambda: jackknife_error([1.0, float("nan")]), "finite numbers"),
    (lambda: kernel_distance(torch.randn(9, 3), torch.randn(9, 4)), "same features, not 3 and 4"),
    (lambda: kernel_distance(torch.randn(9, 3), torch.randn(1, 3)), r"N at least 2, not \(9, 3\) and \(1, 3\)"),
    (lambda: precision_recall(torch.randn(3, 2), torch.randn(9, 2)), "more than k = 3 pictures, not 3"),
])
def test_errors_are_sentences(call, said):
    with pytest.raises(ValueError, match=said):
        call()


# -------------------------------------------------------------------------------------------------------- jackknife

@pytest.mark.parametrize(("n", "blocks"), [(12, 4), (50, 7), (9, 9)])
def test_a_distance_without_each_block(n, blocks):
    real, x = Moments.of(gaussian(100, 3, 0)), gaussian(n, 3, 1)
    parts = np.array_split(np.arange(n), blocks)  # each follows the last
    expected = [frechet_distance(real, torch.from_numpy(np.delete(x.numpy(), part, 0))) for part in parts]
    assert frechet_left_out(real, x, blocks) == pytest.approx(expected, rel=1e-9)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = [3.0, 5.0, 4.0, 10.0, -2.0]
    left_out = [(sum(values) - value) / 4 for value in values]
    assert jackknife_error(left_out) == pytest.approx(np.std(values, ddof=1) / math.sqrt(5), rel=1e-12)


def test_the_jackknife_of_a_paired_distance_is_the_scatter_over_drawings():
    """Two networks fed the same noises: the error of the quotient of their distances, against 200 drawings of the noises."""
    real, quotients, errors = Moments.of(gaussian(2_000, 4, 0)), [], []
    for seed in range(1, 201):
        noise = gaussian(320, 4, seed)
        a, b = 0.7 * noise, 0.8 * noise + 0.1 * noise.square()
        quotients.append(frechet_distance(real, b) / frechet_distance(real, a))
        if seed <= 20:
            left_out = zip(frechet_left_out(real, b), frechet_left_out(real, a), strict=True)
            errors.append(jackknife_error([ours / theirs for ours, theirs in left_out]))
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(quotients, ddof=1), rel=0.25)


# --------------------------------------------------------------------------------------------------------- KID

def kid_by_hand(x, y):
    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    n = len(x)
    within = [(kernel(z, z).sum() - np.trace(kernel(z, z))) / (n * (n - 1)) for z in (x, y)]
    return sum(within) - 2 * kernel(x, y).mean()


@pytest.mark.parametrize(("n", "d"), [(20, 3), (150, 16)])
def test_kernel_distance_is_the_unbiased_estimator(n, d):
    x, y = gaussian(n, d, 0), gaussian(n, d, 1, scale=1.3, shift=0.2)
    mean, deviation = kernel_distance(x, y, subsets=3)  # each subset is the whole set
    assert mean == pytest.approx(kid_by_hand(x.numpy(), y.numpy()), rel=1e-9)
    assert deviation == pytest.approx(0, abs=1e-12)


def test_kernel_distance_has_mean_zero_for_equal_distributions_and_grows_with_a_shift():
    values = [kernel_distance(gaussian(100, 4, 2 * i), gaussian(100, 4, 2 * i + 1), subsets=1)[0] for i in range(60)]
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values))
    shifted = [kernel_distance(gaussian(400, 4, 0), gaussian(400, 4, 1, shift=s))[0] for s in (0.0, 0.3, 0.6)]
    assert shifted[0] < shifted[1] < shifted[2]


def test_kernel_distance_depends_on_its_seed_only():
    x, y = gaussian(300, 4, 0), gaussian(300, 4, 1)
    torch.manual_seed(1)
    first, state = kernel_distance(x, y, subset_size=50), torch.get_rng_state()
    torch.manual_seed(2)
    assert kernel_distance(x, y, subset_size=50) == first != kernel_distance(x, y, subset_size=50, seed=1)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was moved"


# ------------------------------------------------------------------------------------------ precision and recall

def test_precision_and_recall_against_loops():
    real, x, k = gaussian(40, 3, 0), gaussian(40, 3, 1, scale=1.6), 3

    def share(points, cloud):
        radii = [sorted(float((c - other).norm()) for other in cloud)[k] for c in cloud]
        return np.mean([any(float((p - c).norm()) <= r for c, r in zip(cloud, radii, strict=True)) for p in points])

    precision, recall = precision_recall(real, x, k)
    assert (precision, recall) == pytest.approx((share(x, real), share(real, x)), abs=1e-6)
    assert precision < recall, "samples wider than the data are less precise than they are complete"


def test_precision_and_recall_tell_lost_modes_from_stray_samples():
    left, right = gaussian(100, 2, 0, 0.1, -5), gaussian(100, 2, 1, 0.1, 5)
    both, one = torch.cat([left, right])[torch.randperm(200, generator=torch.Generator().manual_seed(0))], gaussian(200, 2, 2, 0.1, -5)
    precision, recall = precision_recall(both, one)
    assert precision > 0.9 and recall == pytest.approx(0.5, abs=0.1)
    assert precision_recall(both, both) == (1.0, 1.0)
    assert precision_recall(both, both + 100) == (0.0, 0.0)


# ----------------------------------------------------------------------------------------------------- references

class Averages:
    """Features of one's own: mean colours of the four quarters, (N, 12)."""

    name, hash, calls = "averages", "0123456789abcdef", 0

    def __call__(self, pixels):
        self.calls += 1
        return torch.nn.functional.adaptive_avg_pool2d(pixels.float(), 2).flatten(1)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("S2DM_DATA", str(tmp_path))
    return tmp_path / "references"


def test_a_reference_is_computed_once_and_kept(cache):
    images, features = shapes(300, size=16), Averages()
    first, again = reference(images, features), reference(images, features)
    assert features.calls == 1 and len(list(cache.iterdir())) == 1
    x = features(images.pixels)
    assert again.moments.n == 300 and torch.allclose(again.moments.covariance, torch.cov(x.double().T))
    assert len(again.features) == min(300, KEPT) and frechet_distance(first.moments, again.moments) == pytest.approx(0, abs=1e-8)
    assert sorted(again.features.sum(1).tolist()) == pytest.approx(sorted(x.sum(1).tolist()), rel=1e-3), "kept in half precision"


def test_other_pictures_and_other_features_have_other_references(cache):
    reference(shapes(20, size=16), Averages())
    reference(shapes(20, size=16, seed=1), Averages())
    other = Averages()
    other.hash = "another"
    reference(shapes(20, size=16), other)
    assert len(list(cache.iterdir())) == 3


def test_a_damaged_reference_is_made_anew(cache):
    images, features = shapes(20, size=16), Averages()
    reference(images, features)
    file = next(cache.iterdir())
    file.write_bytes(file.read_bytes()[:100])
    assert reference(images, features).moments.n == 20 and features.calls == 2
    write_tensors(file, {"mean": torch.zeros(2)}, {"reference": {"features_sha256": features.hash, "n": 3}})
    assert reference(images, features).moments.n == 20 and features.calls == 3


def test_a_shipped_reference_must_be_of_these_features(zoo):
    with pytest.raises(CheckpointError, match="'mnist.averages'"):
        reference("mnist", Averages())
    from shipping import ship

    from s2dm_mini.measure.references import Reference, write_reference
    images, features = shapes(20, size=16), Averages()
    path = zoo / "shapes16.averages.safetensors"
    write_reference(path, Reference.of(features(images.pixels)), images, features)
    ship("shapes16.averages", path, {})
    assert reference("shapes16", features).moments.n == 20
    other = Averages()
    other.hash = "another"
    with pytest.raises(CheckpointError, match="averages features of weights 0123456789abcdef.*another.*references.py"):
        reference("shapes16", other)


# ------------------------------------------------------------------------------------------------------ the ladder

def noisy(pixels, strength):
    generator = torch.Generator().manual_seed(0)
    return (pixels + strength * torch.randn(pixels.shape, generator=generator)).round().clamp(0, 255).to(torch.uint8)


def climb(images: Images, alien: list[torch.Tensor], features):
    """Distances from half of the images: to their other half, mildly noisy (15 of 256 grey levels), heavily noisy, and to other
    pictures altogether."""
    half = len(images) // 2
    real, other = features(images.pixels[:half]), images.pixels[half:]
    rungs = [features(pixels) for pixels in (other, noisy(other, 15), noisy(other, 40), *alien)]
    return [frechet_distance(real, x) for x in rungs], [kernel_distance(real, x)[0] for x in rungs]


@pytest.mark.slow
def test_ladder_of_shapes(classifier_features):
    for distances in climb(shapes(1_200), [], classifier_features):
        assert distances == sorted(distances), distances
        assert distances[0] < 0.2 * distances[1]


@pytest.mark.slow
def test_ladder_of_cifar10(classifier_features, real_cifar10):
    images = real_cifar10["test"]
    part = Images(images.name, images.pixels[:3_000], images.labels[:3_000], images.classes)
    for distances in climb(part, [shapes(1_500).pixels], classifier_features):
        assert distances == sorted(distances), distances
        assert distances[0] < 0.5 * distances[1]


@pytest.mark.slow
def test_the_shipped_reference_is_of_cifar10(classifier_features, real_cifar10):
    real = reference("cifar10-train", classifier_features)
    assert real.moments.n == 50_000 and real.features.shape == (KEPT, 256)
    some = classifier_features(real_cifar10["train"].pixels[::25])  # 2,000 of them
    test = classifier_features(real_cifar10["test"].pixels[::5])
    assert frechet_distance(real.moments, some) < frechet_distance(real.moments, test), "training pictures are nearer than test pictures"
    assert abs(kernel_distance(real.features, some)[0]) < kernel_distance(real.features, classifier_features(shapes(1_000).pixels))[0] / 50
