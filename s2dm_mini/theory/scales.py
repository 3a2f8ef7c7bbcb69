"""Scales s_t that multiply ε: by name, measured on networks, and searched for where only values of the distance are available.

    better = scaled(network, "b1.017", schedule)    # Epsilon Scaling: ε/1.017; "s2dm10" is S²-DM's closed form
    fit = fit_line(distance, evaluations=24)        # distance(scale) for scale (T,), exact or noisy
    best = Shrunk(network, line(*fit.line))

The search varies ε/λ_t with λ_t a straight line in t. This is Epsilon Scaling as Ning et al. (ICLR 2024) propose it, and it contains
S²-DM to first order: 1/s_t = 1 + c_t²·(1−τ)/τ with c_t² ≈ skip·β_t (notebook 07), and the linear schedule's β_t is a straight line. With
τ = 0.99 the nearest line misses 1/s_t by at most 0.00004 for skip 9 and 0.0014 for skip 49, where t ≥ skip. Notebook 02, section 8,
compares the families. `optimum` finds the best of wider families, by gradient, for data whose distance is exact.
"""
import math
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..denoisers import Denoiser, Shrunk
from ..losses import shrinkage
from ..schedule import NoiseSchedule
from ..support.checks import check_denoiser, check_eps, check_finite, check_floating, check_generator, check_integer, check_kind, shown

STEP = 0.02  # size of the first simplex: constants that help at 10 to 50 steps lie within 1 … 1.05


def line(first: float, last: float, T: int = 1000) -> Tensor:
    """s_t = 1/λ_t with λ_t straight from `first` at t = 0 to `last` at t = T − 1: (T,) float64, for `Shrunk`."""
    if not (first > 0 and last > 0):
        raise ValueError(f"λ divides the noise prediction: both its ends must be above 0, not {first:g} and {last:g}.")
    return 1 / torch.linspace(first, last, T, dtype=torch.float64)


def scale_of(scale: str, schedule: NoiseSchedule) -> Tensor | float | None:
    """The factor that a name stands for: None for `none`, 1/1.017 for `b1.017`, s_t (T,) for a loss.

    `s2dm10` has τ = 0.99 and the released reading of the loss; `s2dm50-tau0.9` and `s2dm50-expected` name what they change.
    """
    check_kind("schedule", schedule, NoiseSchedule)
    if isinstance(scale, str):  # digits only: names become parts of paths and of command lines
        if scale == "none":
            return None
        loss = re.fullmatch(r"s2dm([0-9]{1,6})(?:-tau(0\.[0-9]{1,9})|-(expected|shared))?", scale)
        if loss and 2 <= int(loss[1]) <= schedule.T and float(loss[2] or 1) > 0:
            return shrinkage(schedule, int(loss[1]) - 1, float(loss[2] or 0.99), loss[3] or "independent")
        if re.fullmatch(r"b[0-9]{1,6}(\.[0-9]{1,9})?", scale) and float(scale[1:]) > 0:
            return 1 / float(scale[1:])
    raise ValueError(f"scale must be none, s2dm and a whole number from 2 to {schedule.T} such as s2dm10, s2dm50-tau0.9 or s2dm50-shared, "
                     f"or b and a number such as b1.017, not {shown(scale)}.")


def scaled(denoiser: Denoiser, scale: str, schedule: NoiseSchedule) -> Denoiser:
    """The denoiser times the factor of this name."""
    factor = scale_of(scale, schedule)
    return denoiser if factor is None else Shrunk(denoiser, factor)


def relative_scale(denoiser: Denoiser, baseline: Denoiser, x0: Tensor, t: int, schedule: NoiseSchedule,
                   generator: torch.Generator | None = None) -> float:
    """The number s for which s·baseline is nearest to the denoiser at timestep t: ⟨f, e⟩/⟨e, e⟩, summed over images and pixels.

    For a network trained with S²-DM against one trained with L_0, compare it with `losses.shrinkage` at t. x0: (B, ...) data.
    """
    check_denoiser(denoiser)
    check_denoiser(baseline, "baseline")
    check_floating("x0", x0)
    check_finite("x0", x0)
    check_kind("schedule", schedule, NoiseSchedule)
    check_integer("t", t, 0, schedule.T - 1)
    check_generator(generator)
    eps = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
    times = torch.full((len(x0),), t, device=x0.device)
    x = schedule.add_noise(x0, eps, times)
    with torch.no_grad():
        f, e = (check_eps(network(x, times), x).double() for network in (denoiser, baseline))
    if not bool(e.any()):
        raise ValueError(f"the baseline predicts no noise at all at t = {t}, so no multiple of it comes near the denoiser.")
    return float((f * e).sum() / e.square().sum())


class Fit(NamedTuple):
    """The result of `fit_line`, as the two ends (λ_first, λ_last)."""

    constant: tuple[float, float]  # the best constant tried
    line: tuple[float, float]  # the best line tried
    tried: dict[tuple[float, float], float]  # every candidate and its distance, in the order of trial


def fit_line(distance: Callable[[Tensor], float], T: int = 1000, evaluations: int = 24) -> Fit:
    """Search for the line with the least `distance(scale)`, scale (T,) as `line` gives it, in at most `evaluations` evaluations.

    A third of them tries constants from λ = 1 on; the others start from the best constant and two lines with λ_first below λ_last, the
    direction of S²-DM's s_t and of the Gaussian's best line on the quadratic grid. The result is never worse than no scaling; it may be
    a local minimum, and below about twenty evaluations the search is often unfinished. Raises ValueError for fewer than 6.
    """
    if evaluations < 6:
        raise ValueError(f"evaluations must be at least 6, two for constants and four for lines, not {evaluations}.")
    tried: dict[tuple[float, float], float] = {}

    def at(ends: np.ndarray) -> float:
        key = (float(ends[0]), float(ends[-1]))
        if key not in tried:
            tried[key] = distance(line(*key, T)) if min(key) > 0 else math.inf
        return tried[key]

    nelder_mead(at, [[1.0], [1.0 + STEP]], max(2, evaluations // 3))
    constant = min(tried, key=tried.get)
    c = constant[0]
    # One more evaluation: the first point, the constant, is known.
    nelder_mead(at, [[c, c], [c - STEP, c + STEP], [c - STEP, c]], evaluations - len(tried) + 1)
    return Fit(constant, min(tried, key=tried.get), tried)


def nelder_mead(f: Callable[[np.ndarray], float], simplex: list[list[float]], evaluations: int) -> np.ndarray:
    """The point (D,) with the least f of at most `evaluations` tried: a simplex of D + 1 points walks downhill and shrinks, by SciPy."""
    from scipy.optimize import minimize

    options = {"initial_simplex": simplex, "maxfev": evaluations, "xatol": 0, "fatol": 0}
    return minimize(f, simplex[0], method="Nelder-Mead", options=options).x
