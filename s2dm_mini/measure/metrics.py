"""How far apart two sets of pictures are, measured in features (N, D) of them (features.py), and how sure one can be of it.

    features = ClassifierFeatures()
    real = reference(cifar10("train"), features)
    x = features(pixels)                           # (N, D)
    frechet_distance(real.moments, x), kernel_distance(real.features, x), precision_recall(real.features, x)

Distances belong to the features they were measured in: only Inception's give the FID of the literature.
"""
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..support.checks import check_finite, check_floating, check_integer, check_numbers, check_seed


@dataclass(frozen=True)
class Moments:
    """What the Fréchet distance knows of a set of features: how many, their mean (D,) and covariance (D, D), float64."""

    n: int
    mean: Tensor
    covariance: Tensor

    def __post_init__(self):
        check_integer("n", self.n, 2)
        check_floating("mean", self.mean, "(D,)")
        check_floating("covariance", self.covariance, "(D, D)")
        if self.covariance.shape != (len(self.mean),) * 2:
            raise ValueError(f"covariance must be (D, D) for a mean (D,), not {tuple(self.covariance.shape)} for {tuple(self.mean.shape)}.")
        check_finite("mean and covariance", self.mean)
        if not bool(self.covariance.isfinite().all()):
            raise ValueError("covariance holds NaN or infinite values.")

    @classmethod
    def of(cls, x: Tensor) -> "Moments":
        """Of features (N, D), N at least 2."""
        _check_features("x", x)
        if len(x) < 2:
            raise ValueError(f"x must be features (N, D) with N at least 2, not {tuple(x.shape)}.")
        x = x.double()
        return cls(len(x), x.mean(0), torch.cov(x.T).reshape(x.shape[1], x.shape[1]))


def frechet_distance(a: Tensor | Moments, b: Tensor | Moments) -> float:
    """|μ_a − μ_b|² + tr(Σ_a + Σ_b − 2·(Σ_a·Σ_b)^½) (Heusel et al., 2017), by torchmetrics.

    a, b: features (N, D) or their moments. With few pictures it comes out too large, by about a constant over N: compare equal N
    only, or use `frechet_distance_infinite`.
    """
    from torchmetrics.image.fid import _compute_fid  # the formula alone: its public class wants to see the pictures themselves

    a, b = (_moments(name, m) for name, m in (("a", a), ("b", b)))
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"both sets must have the same features, not {len(a.mean)} and {len(b.mean)} of them.")
    return float(_compute_fid(a.mean, a.covariance, b.mean, b.covariance))


def frechet_left_out(real: Tensor | Moments, x: Tensor, blocks: int = 16) -> list[float]:
    """The Fréchet distance of x, (N, D), without its first, second, … of so many blocks: `blocks` distances, of N·(1 − 1/blocks) each.

    For a jackknife over the noises that the samples were drawn from (`jackknife_error`). Networks that were given the same noises
    in the same order lose the same ones, so that their comparison stays paired.
    """
    _check_features("x", x)
    blocks = check_integer("blocks", blocks, 2)
    if blocks > len(x) or len(x) < 4:
        raise ValueError(f"{len(x)} samples cannot be left out in {blocks} blocks: draw at least {max(blocks, 4)}.")
    real, block = _moments("real", real), torch.arange(len(x)) * blocks // len(x)  # (N,)
    return [frechet_distance(real, x[block != left_out]) for left_out in range(blocks)]


def frechet_distance_infinite(real: Tensor | Moments, x: Tensor, seed: int = 0) -> float:
    """The Fréchet distance that infinitely many samples would have (Chong and Forsyth, 2020).

    Its excess is nearly a constant over N, so it is measured on 6 random parts of x, (N, D), from a quarter to all of it, and the
    straight line through the values against 1/N is read at 1/N = 0. Raises ValueError for N under 4·D: the covariance of a
    quarter would not have full rank, and the excess is no constant over N there.
    """
    _check_features("x", x)
    seed = check_seed(seed)
    n, d = x.shape
    if n < 4 * d:
        raise ValueError(f"to extrapolate from {n} samples, features must be at most {n // 4}, not {d}; draw at least {4 * d:,} samples.")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    sizes = [round(n / u) for u in torch.linspace(1, 4, 6).tolist()]  # evenly spaced in 1/N
    real = _moments("real", real)
    distances = [frechet_distance(real, x[order[:size]]) for size in sizes]
    u = torch.tensor([[1.0, 1 / size] for size in sizes], dtype=torch.float64)
    return float(torch.linalg.lstsq(u, torch.tensor(distances, dtype=torch.float64)[:, None]).solution[0])


def kernel_distance(real: Tensor, x: Tensor, subsets: int = 100, subset_size: int = 1_000, seed: int = 0) -> tuple[float, float]:
    """KID (Bińkowski et al., 2018), by torchmetrics: its mean over random subsets, and their standard deviation.

    Unbiased: its expectation does not depend on the number of samples, and is 0 for equal distributions; single values may be
    negative. real, x: (N, D) features; subsets are at most as large as the smaller set.
    """
    import warnings

    from torchmetrics.image.kid import KernelInceptionDistance

    _check_features("real", real)
    _check_features("x", x)
    subsets, subset_size = check_integer("subsets", subsets, 1, 10_000), check_integer("subset_size", subset_size, 2)
    seed = check_seed(seed)
    if real.shape[1] != x.shape[1] or min(len(real), len(x)) < 2:
        raise ValueError(f"both sets must be features (N, D) with the same D and N at least 2, "
                         f"not {tuple(real.shape)} and {tuple(x.shape)}.")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", UserWarning)  # it says that it keeps the features in memory, where they already are
        torch.manual_seed(seed)
        metric = KernelInceptionDistance(_AsTheyAre(x.shape[1]), subsets=subsets, subset_size=min(subset_size, len(real), len(x)))
        metric.update(real.double(), real=True)
        metric.update(x.double(), real=False)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def precision_recall(real: Tensor, x: Tensor, k: int = 3) -> tuple[float, float]:
    """Share of samples that lie among real pictures, and of real pictures that lie among samples (Kynkäänniemi et al., 2019).

    Among: within the distance of some member of the other set to its own k-th neighbour. real, x: (N, D); cut to equal numbers,
    since both shares grow with the number of pictures they are looked for among.
    """
    _check_features("real", real)
    _check_features("x", x)
    if real.shape[1] != x.shape[1]:
        raise ValueError(f"both sets must have the same features, not {real.shape[1]} and {x.shape[1]} of them.")
    k = check_integer("k", k, 1)
    n = min(len(real), len(x))
    if n <= k:
        raise ValueError(f"each set needs more than k = {k} pictures, not {n}.")
    real, x = real[:n].float(), x[:n].float()
    return _share_within(x, real, k), _share_within(real, x, k)


def _moments(name: str, x: Tensor | Moments) -> Moments:
    if isinstance(x, Moments):
        return x
    _check_features(name, x)
    return Moments.of(x)


def _check_features(name: str, x: Tensor) -> None:
    check_floating(name, x, "(N, D)")
    if bad := int((~x.isfinite()).any(1).sum()):
        raise ValueError(f"{name}: {bad} of the {len(x)} feature vectors hold NaN or infinite values.")
    check_finite(name, x)


def _share_within(points: Tensor, cloud: Tensor, k: int) -> float:
    radius = torch.cdist(cloud, cloud).kthvalue(k + 1, dim=1).values  # the nearest is the point itself, (N,)
    return float((torch.cdist(points, cloud) <= radius).any(dim=1).float().mean())


class _AsTheyAre(nn.Module):
    """A feature extractor for torchmetrics that takes features for pictures and returns them."""

    def __init__(self, width: int):
        super().__init__()
        self.num_features = width

    def forward(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Estimate:
    """A mean with the two uncertainties of it kept apart; nan where there is only one seed to judge by."""

    mean: float
    error_training: float  # standard error of the mean from one training seed to the next
    error_sampling: float  # and from one sampling seed to the next, the networks staying as they are

    def __str__(self) -> str:
        return f"{self.mean:.3g} ± {self.error_training:.2g} (training) ± {self.error_sampling:.2g} (sampling)"


def estimate(values: Tensor) -> Estimate:
    """Mean and standard errors of a measure taken with K training seeds times M sampling seeds, (K, M).

    The first error is the scatter of the K networks' own means over √K: what another team's trainings would scatter by, the noise
    of sampling included. The second is the scatter among the M drawings from the same network, over √(K·M).
    """
    values = check_numbers("values", values)
    if values.ndim != 2 or not values.numel():
        raise ValueError(f"values must be (training seeds, sampling seeds), not {tuple(values.shape)}.")
    k, m = values.shape
    between = float(values.mean(1).std() / math.sqrt(k)) if k > 1 else math.nan
    within = float(values.var(1).mean().sqrt() / math.sqrt(k * m)) if m > 1 else math.nan
    return Estimate(float(values.mean()), between, within)
