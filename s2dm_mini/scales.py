"""Families of s_t, the numbers that multiply ε, and the search for their best member where only values of the distance can be had.

    fit = fit_line(distance, evaluations=16)        # distance(scale) for scale (T,), as exact or as noisy as it may be
    better = Shrunk(network, line(*fit.line))

The family searched is ε/λ_t with λ_t a straight line in t, λ_t = λ_first + (λ_last − λ_first)·t/(T − 1). Why these two numbers:

- It is Epsilon Scaling as Ning et al. (ICLR 2024) propose it, λ_t = k·t + b; with λ_first = λ_last it is the constant that they use most.
- It contains S²-DM, to first order: 1/s_t = 1 + c_t²·(1−τ)/τ with c_t² ≈ skip·β_t (notebook 07), and the β_t of the linear schedule is
  a straight line. With τ = 0.99, the nearest line misses 1/s_t by at most 0.00004 for skip 9 and 0.0014 for skip 49, where t ≥ skip.
- (skip, τ) itself holds neither a constant nor a λ_t below 1, and for skips up to some fifty it is nearly one number, skip·(1−τ)/τ.
  For the Gaussian with CIFAR-10's covariance it does as well as the line on the quadratic grid, with skips of hundreds, and worse on the
  uniform grid, where a constant is best (notebook 02, section 8).

The search needs no derivatives (Nelder and Mead, 1965). `optimum` has the best of wider families, for data whose answer is exact.
"""
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

STEP = 0.02  # size of the first simplex: constants that help at 10 to 50 steps lie within 1 … 1.05


def line(first: float, last: float, T: int = 1000) -> Tensor:
    """s_t = 1/λ_t for λ_t straight from `first` at t = 0 to `last` at t = T − 1: (T,) float64, for `Shrunk`."""
    if not (first > 0 and last > 0):
        raise ValueError(f"λ divides the noise prediction: both its ends must be above 0, not {first:g} and {last:g}.")
    return 1 / torch.linspace(first, last, T, dtype=torch.float64)


@dataclass(frozen=True)
class Fit:
    """What a search has found, as the two ends (λ_first, λ_last)."""

    constant: tuple[float, float]  # the best of the constants tried
    line: tuple[float, float]  # the best of all that was tried
    tried: dict[tuple[float, float], float]  # every candidate and its distance, in the order of trial


def fit_line(distance: Callable[[Tensor], float], T: int = 1000, evaluations: int = 16) -> Fit:
    """The line for which `distance(scale)`, scale (T,) as `line` gives it, is least; asked at most `evaluations` times.

    A third of them goes to constants, from λ = 1 on; the rest to lines, from the best constant on. What is found is therefore never
    worse than no scaling, and may be a local minimum. Raises ValueError for fewer than 6.
    """
    if evaluations < 6:
        raise ValueError(f"evaluations must be at least 6, two for constants and four for lines, not {evaluations}.")
    tried: dict[tuple[float, float], float] = {}

    def at(ends: list[float]) -> float:
        key = (ends[0], ends[-1])
        if key not in tried:
            tried[key] = distance(line(*key, T)) if min(key) > 0 else math.inf
        return tried[key]

    nelder_mead(at, [1.0], STEP, evaluations // 3)
    constant = min(tried, key=tried.get)
    nelder_mead(at, list(constant), STEP, evaluations - len(tried) + 1)  # one of its points is the constant, which is known
    return Fit(constant, min(tried, key=tried.get), tried)


def nelder_mead(f: Callable[[list[float]], float], start: list[float], step: float, evaluations: int) -> list[float]:
    """The point with the least f among at most `evaluations` tried (Nelder and Mead, 1965): a simplex walks downhill and shrinks.

    start: D numbers; the first simplex is `start` and D points `step` away from it, one along each axis.
    """
    left = evaluations

    def ask(x: Tensor) -> tuple[float, Tensor]:
        nonlocal left
        left -= 1
        return f(x.tolist()), x

    x0 = torch.tensor(start, dtype=torch.float64)
    simplex = [ask(x) for x in (x0, *(x0 + step * torch.eye(len(x0), dtype=torch.float64)))[:left]]
    while left > 0:
        simplex.sort(key=lambda vertex: vertex[0])
        worst, others = simplex[-1], simplex[:-1]
        centre = torch.stack([x for _, x in others]).mean(0)
        new = ask(centre + (centre - worst[1]))  # the mirror image of the worst point
        if new[0] < simplex[0][0]:
            if left > 0:  # better than all: further on
                new = min(new, ask(centre + 2 * (centre - worst[1])), key=lambda vertex: vertex[0])
        elif new[0] >= others[-1][0] and left > 0:  # still the worst: half of the way, on the better side
            nearer = min(worst, new, key=lambda vertex: vertex[0])
            new = ask(centre + 0.5 * (nearer[1] - centre))
            if new[0] >= nearer[0]:  # no good either: all towards the best
                best = simplex[0]
                simplex = [best, *(ask(best[1] + 0.5 * (x - best[1])) for _, x in simplex[1:][:left])]
                continue
        simplex[-1] = new
    return min(simplex, key=lambda vertex: vertex[0])[1].tolist()
