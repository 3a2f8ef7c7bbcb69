"""The best s_t there is, family by family, for data whose distance is exact: what a correction of ε could bring at most.

    distance = gaussian_objective(cifar10_eigenvalues(), schedule, "ddim", steps=10)      # or mixture_objective
    distance(torch.ones(schedule.T))                      # L_0; differentiable in the scale (T,)
    best_free(distance, schedule, "ddim", 10)             # a number for each timestep visited
    best_line(distance)                                   # 1/s_t a straight line (scales.line)
    best_constant(distance)                               # Epsilon Scaling
    best_skip_tau(distance, schedule)                     # S²-DM

All distances are squared 2-Wasserstein distances of the samples from the data. The searches go downhill from s_t = 1, so that what they
find is the optimum that can be reached from there; with a number for each timestep there may be others.
"""
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..denoisers import Denoiser, GaussianDenoiser, MixtureDenoiser, Shrunk
from ..losses import shrinkage
from ..samplers import SAMPLERS
from ..samplers.common import NoisePredictor
from ..schedule import NoiseSchedule
from .scales import nelder_mead

Objective = Callable[[Tensor], Tensor]  # distance(scale), scale (T,) or one number


class Best(NamedTuple):
    """The best member of a family: its distance, its s_t (T,), and the numbers that name it within the family."""

    distance: float
    scale: Tensor
    numbers: tuple[float, ...]


def gaussian_objective(eigenvalues: Tensor, schedule: NoiseSchedule, sampler: str = "ddim", steps: int = 10,
                       spacing: str = "uniform") -> Objective:
    """`prediction.gaussian_distance` as a differentiable function of the scale: Σ(√v_out − √v)² over the directions (D,)."""
    v = torch.as_tensor(eigenvalues, dtype=torch.float64)
    exact, x_T = GaussianDenoiser(torch.zeros_like(v), v, schedule), torch.ones(1, len(v), dtype=torch.float64)
    return lambda scale: (_walk(_scaled(exact, scale), x_T, schedule, sampler, steps, spacing)[0].abs() - v.sqrt()).square().sum()


def mixture_objective(data: MixtureDenoiser, schedule: NoiseSchedule, sampler: str = "ddim", steps: int = 10, spacing: str = "uniform",
                      points: int = 2_000) -> Objective:
    """The same for a mixture of Gaussians on a line, D = 1, where any shape of density is allowed.

    A deterministic sampler maps the quantiles of x_T ~ N(0, 1); in one dimension the distance is the mean square difference of the
    quantiles of what comes out, which are it sorted, from those of the data. `points` of them, evenly spaced in probability.
    """
    if data.means.shape[1] != 1:
        raise ValueError(f"quantiles need data on a line, D = 1, not D = {data.means.shape[1]}.")
    probability = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    x_T, wanted = torch.special.ndtri(probability)[:, None], mixture_quantiles(data, probability)
    return lambda scale: (_walk(_scaled(data, scale), x_T, schedule, sampler, steps, spacing)[:, 0].sort().values - wanted).square().mean()


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
    """A number for each timestep at which the sampler asks the denoiser; the numbers are those, in the order of asking.

    Timesteps between two whole ones (PNDM's half steps) are read linearly between their neighbours, which are free then.
    """
    asked: dict[int, None] = {}
    for t in timesteps_asked(schedule, sampler, steps, spacing):
        asked |= dict.fromkeys((int(t), int(t) if t == int(t) else int(t) + 1))
    where = torch.tensor(list(asked))
    scale = lambda s: torch.ones(schedule.T, dtype=torch.float64).index_put((where,), s)  # noqa: E731
    return _downhill(distance, scale, torch.ones(len(where), dtype=torch.float64))


def best_constant(distance: Objective, T: int = 1000) -> Best:
    """Epsilon Scaling with a constant; the number is λ."""
    return _downhill(distance, lambda lam: (1 / lam).expand(T), torch.ones(1, dtype=torch.float64))


def best_line(distance: Objective, T: int = 1000) -> Best:
    """1/s_t a straight line; the numbers are λ_first and λ_last, as in `scales.line`."""
    way = torch.linspace(0, 1, T, dtype=torch.float64)
    return _downhill(distance, lambda ends: 1 / torch.lerp(ends[0], ends[1], way), torch.ones(2, dtype=torch.float64))


def best_skip_tau(distance: Objective, schedule: NoiseSchedule, skips: tuple[int, ...] = (1, 2, 4, 9, 19, 49, 99, 199, 399)) -> Best:
    """S²-DM's closed form, over these skips and all τ; the numbers are skip and τ."""
    found = []
    for skip in skips:
        at = lambda x, skip=skip: float(distance(shrinkage(schedule, skip, _tau(x[0]))))  # noqa: E731
        (log_odds,) = nelder_mead(at, [[-4.0], [-3.0]], 24)
        found.append((at([log_odds]), skip, _tau(log_odds)))
    value, skip, tau = min(found)
    return Best(value, shrinkage(schedule, skip, tau), (skip, tau))


def timesteps_asked(schedule: NoiseSchedule, sampler: str, steps: int, spacing: str = "uniform") -> list[float]:
    """The times at which a sampler asks its denoiser, in order, each once."""
    asked: dict[float, None] = {}
    _walk(lambda x, t: asked.update({float(t[0]): None}) or x, torch.ones(1, dtype=torch.float64), schedule, sampler, steps, spacing)
    return list(asked)


def _tau(log_odds: float) -> float:
    """τ for log((1−τ)/τ)."""
    return float(torch.sigmoid(torch.tensor(-log_odds, dtype=torch.float64)))


def _walk(denoiser: Denoiser, x: Tensor, schedule: NoiseSchedule, sampler: str, steps: int, spacing: str) -> Tensor:
    """`samplers.sample`, but not in inference mode: derivatives pass through every step."""
    if not SAMPLERS[sampler].deterministic:
        raise ValueError(f"{sampler} adds noise on its way; an exact distance needs a deterministic sampler, such as ddim.")
    grid = schedule.timesteps(steps, spacing).tolist()
    for step in SAMPLERS[sampler].run(NoisePredictor(denoiser, x, len(grid), check_each_call=False), x, grid, schedule):
        x = step.x
    return x


def _scaled(exact: Denoiser, scale: Tensor) -> Shrunk:
    """`Shrunk` by (T,) numbers that it does not look at: a line search tries larger ones than a user may."""
    shrunk = Shrunk(exact, torch.ones_like(scale))
    shrunk.scale = scale
    return shrunk


def _downhill(distance: Objective, scale: Callable[[Tensor], Tensor], start: Tensor) -> Best:
    numbers = start.clone().requires_grad_(True)
    search = torch.optim.LBFGS([numbers], max_iter=300, history_size=20, tolerance_grad=1e-9, tolerance_change=1e-12,
                               line_search_fn="strong_wolfe")

    def ask() -> Tensor:
        search.zero_grad()
        value = distance(scale(numbers))
        value.backward()
        return value

    search.step(ask)
    numbers = numbers.detach()
    return Best(float(distance(scale(numbers))), scale(numbers), tuple(numbers.tolist()))
