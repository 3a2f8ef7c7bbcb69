"""Distances between two sets of pictures, in their features (N, D): Fréchet distance, kernel distance, precision and recall.

    features = ClassifierFeatures()
    real = reference(cifar10("train"), features)
    x = features(pixels)                           # (N, D)
    frechet_distance(real.moments, x), kernel_distance(real.features, x), precision_recall(real.features, x)

A distance is valid only with the name of its features: only in Inception's is it the FID of the literature.
"""
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..support.checks import check_finite, check_floating, check_integer, check_seed


@dataclass(frozen=True)
class Moments:
    """Number, mean (D,) and covariance (D, D) of a set of features, float64: all that the Fréchet distance needs."""

    n: int
    mean: Tensor
    covariance: Tensor

    def __post_init__(self):
        check_integer("n", self.n, 2)
        check_floating("mean", self.mean, "(D,)")
        check_floating("covariance", self.covariance, f"({len(self.mean)}, {len(self.mean)})")
        check_finite("mean", self.mean)
        if not bool(self.covariance.isfinite().all()):
            raise ValueError("covariance holds NaN or infinite values.")

    @classmethod
    def of(cls, x: Tensor, name: str = "x") -> "Moments":
        """Of features (N, D), N at least 2. name: of x in errors."""
        _check_features(name, x)
        if len(x) < 2:
            raise ValueError(f"{name} must be features (N, D) with N at least 2, not {tuple(x.shape)}.")
        x = x.double()
        return cls(len(x), x.mean(0), torch.cov(x.T).reshape(x.shape[1], x.shape[1]))


def frechet_distance(a: Tensor | Moments, b: Tensor | Moments) -> float:
    """|μ_a − μ_b|² + tr(Σ_a + Σ_b − 2·(Σ_a·Σ_b)^½) (Heusel et al., 2017), by torchmetrics.

    a, b: features (N, D) or their moments. It is too large by about a constant over N: compare sets of equal N only, or use
    `frechet_distance_infinite`.
    """
    from torchmetrics.image.fid import _compute_fid  # only the formula: the public class takes pictures

    a, b = (m if isinstance(m, Moments) else Moments.of(m, name) for name, m in (("a", a), ("b", b)))
    _check_same_features(a.mean, b.mean)
    return float(_compute_fid(a.mean, a.covariance, b.mean, b.covariance))


def frechet_left_out(real: Tensor | Moments, x: Tensor, blocks: int = 16) -> list[float]:
    """Fréchet distances of x (N, D) without its first, second, … of `blocks` blocks, for `jackknife_error`.

    Networks that start from the same noises in the same order lose the same blocks, so their comparison stays paired.
    """
    _check_features("x", x)
    blocks = check_integer("blocks", blocks, 2)
    if blocks > len(x) or len(x) < 4:
        raise ValueError(f"{len(x)} samples cannot be left out in {blocks} blocks: draw at least {max(blocks, 4)}.")
    real = real if isinstance(real, Moments) else Moments.of(real, "real")
    block = torch.arange(len(x)) * blocks // len(x)  # (N,)
    return [frechet_distance(real, x[block != left_out]) for left_out in range(blocks)]


def frechet_distance_infinite(real: Tensor | Moments, x: Tensor, seed: int = 0) -> float:
    """The Fréchet distance of infinitely many samples, extrapolated (Chong and Forsyth, 2020).

    Its excess is nearly a constant over N. It is measured on 6 random parts of x (N, D), from a quarter to all of it, and a straight line
    in 1/N is read at 0. Raises ValueError for N below 4·D, where the covariance of a quarter lacks full rank.
    """
    _check_features("x", x)
    seed = check_seed(seed)
    n, d = x.shape
    if n < 4 * d:
        raise ValueError(f"to extrapolate from {n} samples, features must be at most {n // 4}, not {d}; draw at least {4 * d:,} samples.")
    real = real if isinstance(real, Moments) else Moments.of(real, "real")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    sizes = [round(n / u) for u in torch.linspace(1, 4, 6).tolist()]  # evenly spaced in 1/N
    distances = torch.tensor([frechet_distance(real, x[order[:size]]) for size in sizes], dtype=torch.float64)
    u = torch.tensor([[1.0, 1 / size] for size in sizes], dtype=torch.float64)
    return float(torch.linalg.lstsq(u, distances[:, None]).solution[0])


def kernel_distance(real: Tensor, x: Tensor, subsets: int = 100, subset_size: int = 1_000, seed: int = 0) -> tuple[float, float]:
    """KID (Bińkowski et al., 2018), by torchmetrics: its mean over random subsets, and their standard deviation.

    Unbiased for every number of samples, and 0 on average for equal distributions, so single values may be negative. real, x: (N, D)
    features; a subset is at most as large as the smaller set.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    _check_features("real", real)
    _check_features("x", x)
    subsets, subset_size = check_integer("subsets", subsets, 1, 10_000), check_integer("subset_size", subset_size, 2)
    seed = check_seed(seed)
    _check_same_features(real, x)
    if min(len(real), len(x)) < 2:
        raise ValueError(f"real and x must be features (N, D) with N at least 2, not {tuple(real.shape)} and {tuple(x.shape)}.")
    extractor = nn.Identity()  # the features stand in the place of the pictures
    extractor.num_features = x.shape[1]
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", UserWarning)  # of its memory for the features
        torch.manual_seed(seed)
        metric = KernelInceptionDistance(extractor, subsets=subsets, subset_size=min(subset_size, len(real), len(x)))
        metric.update(real.double(), real=True)
        metric.update(x.double(), real=False)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def precision_recall(real: Tensor, x: Tensor, k: int = 3) -> tuple[float, float]:
    """Share of samples that lie among real pictures, and of real pictures that lie among samples (Kynkäänniemi et al., 2019).

    A point lies among a set if it is nearer to some member than that member's k-th neighbour within the set. real, x: (N, D), cut to
    equal N, because both shares grow with it.
    """
    _check_features("real", real)
    _check_features("x", x)
    _check_same_features(real, x)
    k = check_integer("k", k, 1)
    n = min(len(real), len(x))
    if n <= k:
        raise ValueError(f"each set needs more than k = {k} pictures, not {n}.")
    real, x = real[:n].float(), x[:n].float()
    return _share_within(x, real, k), _share_within(real, x, k)


def _share_within(points: Tensor, cloud: Tensor, k: int) -> float:
    radius = torch.cdist(cloud, cloud).kthvalue(k + 1, dim=1).values  # (N,); the nearest is the point itself
    return float((torch.cdist(points, cloud) <= radius).any(dim=1).float().mean())


def _check_features(name: str, x: Tensor) -> None:
    check_floating(name, x, "(N, D)")
    check_finite(name, x)


def _check_same_features(a: Tensor, b: Tensor) -> None:
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"both sets must have the same features, not {a.shape[-1]} and {b.shape[-1]} of them.")
