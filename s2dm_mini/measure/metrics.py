"""Distances between two sets of pictures, in their features (N, D): Fréchet distance, kernel distance, precision and recall.

    features = ClassifierFeatures()
    real = reference(cifar10("train"), features)
    x = features(pixels)                           # (N, D)
    frechet_distance(real.moments, x), kernel_distance(real.features, x), precision_recall(real.features, x)

A distance is valid only with the name of its features: only in Inception's is it the FID of the literature.
"""
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..support.checks import check_finite, check_floating, check_integer, check_seed, require


@dataclass(frozen=True)
class Moments:
    """Number, mean (D,) and covariance (D, D) of a set of features, float64: all that the Fréchet distance needs."""

    n: int
    mean: Tensor
    covariance: Tensor

    def __post_init__(self):
        check_integer("n", self.n, 2)
        check_features("mean", self.mean, "(D,)")
        check_floating("covariance", self.covariance, f"({len(self.mean)}, {len(self.mean)})")
        require(self.covariance.isfinite().all(), "covariance holds NaN or infinite values")

    @classmethod
    def of(cls, x: "Tensor | Moments", name: str = "x") -> "Moments":
        """Of features (N, D), N at least 2; moments pass. name: of x in errors."""
        if isinstance(x, cls):
            return x
        check_features(name, x)
        require(len(x) >= 2, f"{name} must be features (N, D) with N at least 2", tuple(x.shape))
        x = x.double()
        return cls(len(x), x.mean(0), torch.cov(x.T).reshape(x.shape[1], x.shape[1]))


def check_features(name: str, x: Tensor, shape: str = "(N, D)", like: Tensor | None = None) -> None:
    """Refuse features that are not floating and finite. like: other features, which must have as many columns."""
    check_floating(name, x, shape)
    check_finite(name, x)
    if like is not None and x.shape[-1] != like.shape[-1]:
        raise ValueError(f"both sets must have the same features, not {like.shape[-1]} and {x.shape[-1]} of them.")


def frechet_distance(a: Tensor | Moments, b: Tensor | Moments) -> float:
    """|μ_a − μ_b|² + tr(Σ_a + Σ_b − 2·(Σ_a·Σ_b)^½) (Heusel et al., 2017), by torchmetrics.

    a, b: features (N, D) or their moments. It is too large by about a constant over N: compare sets of equal N only, or use
    `frechet_distance_infinite`.
    """
    from torchmetrics.image.fid import _compute_fid  # only the formula: the public class takes pictures

    a, b = Moments.of(a, "a"), Moments.of(b, "b")
    check_features("mean", b.mean, "(D,)", like=a.mean)
    return float(_compute_fid(a.mean, a.covariance, b.mean, b.covariance))


def frechet_left_out(real: Tensor | Moments, x: Tensor, blocks: int = 16) -> list[float]:
    """Fréchet distances of x (N, D) without its first, second, … of `blocks` blocks, for `jackknife_error`.

    Networks that start from the same noises in the same order lose the same blocks, so their comparison stays paired.
    """
    check_features("x", x)
    blocks = check_integer("blocks", blocks, 2)
    require(len(x) >= max(blocks, 4), f"{len(x)} samples cannot be left out in {blocks} blocks: draw at least {max(blocks, 4)}")
    real = Moments.of(real, "real")
    block = torch.arange(len(x)) * blocks // len(x)  # (N,)
    return [frechet_distance(real, x[block != left_out]) for left_out in range(blocks)]


def frechet_distance_infinite(real: Tensor | Moments, x: Tensor, seed: int = 0) -> float:
    """The Fréchet distance of infinitely many samples, extrapolated (Chong and Forsyth, 2020).

    Its excess is nearly a constant over N. It is measured on 6 random parts of x (N, D), from a quarter to all of it, and a straight line
    in 1/N is read at 0. Raises ValueError for N below 4·D, where the covariance of a quarter lacks full rank.
    """
    check_features("x", x)
    (n, d), seed, real = x.shape, check_seed(seed), Moments.of(real, "real")
    require(n >= 4 * d, f"to extrapolate from {n} samples, features must be at most {n // 4}, not {d}; draw at least {4 * d:,} samples")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    sizes = [round(n / u) for u in torch.linspace(1, 4, 6).tolist()]  # evenly spaced in 1/N
    distances = [frechet_distance(real, x[order[:size]]) for size in sizes]
    return float(np.polynomial.polynomial.polyfit([1 / size for size in sizes], distances, 1)[0])


def kernel_distance(real: Tensor, x: Tensor, subsets: int = 100, subset_size: int = 1_000, seed: int = 0) -> tuple[float, float]:
    """KID (Bińkowski et al., 2018), by torchmetrics: its mean over random subsets, and their standard deviation.

    Unbiased for every number of samples, and 0 on average for equal distributions, so single values may be negative. real, x: (N, D)
    features; a subset is at most as large as the smaller set.
    """
    from torchmetrics.image.kid import poly_mmd

    check_features("real", real)
    check_features("x", x, like=real)
    subsets, subset_size = check_integer("subsets", subsets, 1, 10_000), check_integer("subset_size", subset_size, 2)
    require(min(len(real), len(x)) >= 2,
            f"real and x must be features (N, D) with N at least 2, not {tuple(real.shape)} and {tuple(x.shape)}")
    generator, size = torch.Generator().manual_seed(check_seed(seed)), min(subset_size, len(real), len(x))

    def subset(features: Tensor) -> Tensor:
        return features[torch.randperm(len(features), generator=generator)[:size]].double()

    found = torch.stack([poly_mmd(subset(real), subset(x)) for _ in range(subsets)])
    return float(found.mean()), float(found.std(correction=0))


def precision_recall(real: Tensor, x: Tensor, k: int = 3) -> tuple[float, float]:
    """Share of samples that lie among real pictures, and of real pictures that lie among samples (Kynkäänniemi et al., 2019).

    A point lies among a set if it is nearer to some member than that member's k-th neighbour within the set. real, x: (N, D), cut to
    equal N, because both shares grow with it.
    """
    check_features("real", real)
    check_features("x", x, like=real)
    k, n = check_integer("k", k, 1), min(len(real), len(x))
    require(n > k, f"each set needs more than k = {k} pictures", n)
    real, x = real[:n].float(), x[:n].float()

    def share_within(points: Tensor, cloud: Tensor) -> float:
        radius = torch.cdist(cloud, cloud).kthvalue(k + 1, dim=1).values  # (N,); the nearest is the point itself
        return float((torch.cdist(points, cloud) <= radius).any(dim=1).float().mean())

    return share_within(x, real), share_within(real, x)
