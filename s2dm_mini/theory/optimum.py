"""The best s_t of each family, for data whose distance is known exactly: the most that a scaling of ε can gain.

    distance = gaussian_objective(cifar10_eigenvalues(), schedule, "ddim", steps=10)      # or mixture_objective
    distance(torch.ones(schedule.T))                      # L_0; differentiable in the scale (T,)
    best_free(distance, schedule, "ddim", 10)             # one number for each timestep visited
    best_line(distance)                                   # 1/s_t a straight line (scales.line)
    best_constant(distance)                               # Epsilon Scaling
    best_skip_tau(distance, schedule)                     # S²-DM

Distances are squared 2-Wasserstein distances of the samples from the data. Searches start from s_t = 1 and follow the gradient, so
`best_free` may end in a local optimum.
"""
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..denoisers import Denoiser, GaussianDenoiser, MixtureDenoiser
from ..losses import shrinkage
from ..samplers import SAMPLERS
from ..schedule import NoiseSchedule
from ..support.checks import require
from .gaussian import check_deterministic
from .scales import nelder_mead

Objective = Callable[[Tensor], Tensor]  # distance(scale), scale (T,) or one number


class Best(NamedTuple):
    """The best member of a family: its distance, its s_t (T,), and its parameters within the family."""

    distance: float
    scale: Tensor
    numbers: tuple[float, ...]


def gaussian_objective(eigenvalues: Tensor, schedule: NoiseSchedule, sampler: str = "ddim", steps: int = 10,
                       spacing: str = "uniform") -> Objective:
    """`gaussian.gaussian_distance` as a differentiable function of the scale: Σ(√v_out − √v)² over the directions (D,)."""
    v = torch.as_tensor(eigenvalues, dtype=torch.float64)
    exact, x_T = GaussianDenoiser(torch.zeros_like(v), v, schedule), torch.ones(1, len(v), dtype=torch.float64)
    return lambda scale: (_end(exact, scale, x_T, schedule, sampler, steps, spacing)[0].abs() - v.sqrt()).square().sum()


def mixture_objective(data: MixtureDenoiser, schedule: NoiseSchedule, sampler: str = "ddim", steps: int = 10, spacing: str = "uniform",
                      points: int = 2_000) -> Objective:
    """The same for a mixture of Gaussians on a line, D = 1, whose density may have any shape.

    In one dimension the distance is the mean square difference between the quantiles of the samples and of the data. A deterministic
    sampler turns the quantiles of x_T ~ N(0, 1) into samples, sorted here; `points` quantiles, evenly spaced in probability.
    """
    require(data.means.shape[1] == 1, f"quantiles need data on a line, D = 1, not D = {data.means.shape[1]}")
    probability = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    x_T, wanted = torch.special.ndtri(probability)[:, None], mixture_quantiles(data, probability)
    return lambda scale: (_end(data, scale, x_T, schedule, sampler, steps, spacing)[:, 0].sort().values - wanted).square().mean()


def mixture_quantiles(data: MixtureDenoiser, probability: Tensor) -> Tensor:
    """x with P(data ≤ x) = probability, (N,) float64, for a mixture on a line with std above 0; by bisection, to 1e-12."""
    means, std = data.means[:, 0], data.variance.sqrt()
    low, high = (torch.full_like(probability, float(end)) for end in ((means - 40 * std).min(), (means + 40 * std).max()))
    for _ in range(60):
        middle = (low + high) / 2
        below = (data.weights * torch.special.ndtr((middle[:, None] - means) / std)).sum(1) < probability
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def best_free(distance: Objective, schedule: NoiseSchedule, sampler: str, steps: int, spacing: str = "uniform") -> Best:
    """One number for each timestep at which the sampler evaluates its denoiser; `numbers` holds them in that order.

    For a half step of PNDM both whole timesteps beside it are free: the scale is linear between them.
    """
    asked: list[float] = []

    def listen(x: Tensor, t: Tensor) -> Tensor:
        asked.append(float(t[0]))
        return x

    _end(listen, torch.ones(()), torch.ones(1, dtype=torch.float64), schedule, sampler, steps, spacing)
    where = torch.tensor(list(dict.fromkeys(beside for t in asked for beside in (math.floor(t), math.ceil(t)))))
    return _descend(distance, lambda s: torch.ones(schedule.T, dtype=torch.float64).index_put((where,), s), [1.0] * len(where))


def best_constant(distance: Objective, T: int = 1000) -> Best:
    """Epsilon Scaling with a constant; the number is λ."""
    return _descend(distance, lambda lam: (1 / lam).expand(T), [1.0])


def best_line(distance: Objective, T: int = 1000) -> Best:
    """1/s_t a straight line; the numbers are λ_first and λ_last, as in `scales.line`."""
    way = torch.linspace(0, 1, T, dtype=torch.float64)
    return _descend(distance, lambda ends: 1 / torch.lerp(ends[0], ends[1], way), [1.0, 1.0])


def best_skip_tau(distance: Objective, schedule: NoiseSchedule, skips: tuple[int, ...] = (1, 2, 4, 9, 19, 49, 99, 199, 399)) -> Best:
    """S²-DM's closed form, over these skips and all τ; the numbers are skip and τ."""
    def at(skip: int, log_odds: float) -> tuple[float, int, float]:  # of (1−τ)/τ
        tau = float(torch.sigmoid(torch.tensor(-log_odds, dtype=torch.float64)))
        return float(distance(shrinkage(schedule, skip, tau))), skip, tau

    value, skip, tau = min(at(skip, *nelder_mead(lambda x, skip=skip: at(skip, *x)[0], [[-4.0], [-3.0]], 24)) for skip in skips)
    return Best(value, shrinkage(schedule, skip, tau), (skip, tau))


def _end(exact: Denoiser, scale: Tensor, x: Tensor, schedule: NoiseSchedule, sampler: str, steps: int, spacing: str) -> Tensor:
    """x_0, the end of the sampler's walk from x (B, ...) with the exact ε times `scale`.

    `samplers.sample` runs without gradients; this calls the sampler directly. The scale is not checked: a line
    search tries larger numbers than `Shrunk` accepts.
    """
    check_deterministic(sampler)
    scale = torch.as_tensor(scale, dtype=torch.float64).expand(schedule.T)

    def predict(x: Tensor, t: float) -> Tensor:
        below = int(t)
        s = torch.lerp(scale[below], scale[min(below + 1, schedule.T - 1)], t - below)
        return s * exact(x, torch.full((len(x),), below if t == below else t))

    *_, last = SAMPLERS[sampler].run(predict, x, schedule.timesteps(steps, spacing).tolist(), schedule)
    return last.x


def _descend(distance: Objective, scale: Callable[[Tensor], Tensor], start: list[float]) -> Best:
    """The numbers with the least distance(scale(numbers)), by L-BFGS."""
    numbers = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([numbers], max_iter=300, history_size=20, tolerance_grad=1e-9, tolerance_change=1e-12,
                               line_search_fn="strong_wolfe")

    def evaluate() -> Tensor:
        search.zero_grad()
        value = distance(scale(numbers))
        value.backward()
        return value

    search.step(evaluate)
    numbers = numbers.detach()
    return Best(float(distance(scale(numbers))), scale(numbers), tuple(numbers.tolist()))
