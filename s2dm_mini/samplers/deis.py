"""DEIS (Zhang and Chen, 2023): fit a polynomial through ε at the last timesteps and integrate it exactly over the step.

In y = x/√ᾱ and ρ = √((1−ᾱ)/ᾱ) the probability flow ODE is dy = ε dρ. With ε replaced by the polynomial through its values
at the last q + 1 timesteps t_0 (the newest), t_1, …, one step from t to s is exactly (DEIS, equation 14)

    x_s = ψ·x_t + Σ_j C_j·ε_j,    ψ = √(ᾱ_s/ᾱ_t),    C_j = √ᾱ_s·∫ ℓ_j dρ  from ρ_t to ρ_s,

ℓ_j the Lagrange polynomial that is 1 at t_j and 0 at the others: a polynomial in t (tAB-DEIS) or in ρ (ρAB-DEIS).
q = 0 is DDIM in both. The first steps know fewer values and use degrees 0, 1, 2, …, at little cost: near x_T, ε hardly
changes, and the error falls like steps^−(q+1) down to 1e-7 or less.

Between timesteps log ᾱ is linear in t. The last step, to ᾱ = 1, goes on to t = −1 (CLEAN), log ᾱ linear from t = 0 to 0
there. In t its integrand has a pole, √ᾱ_s·dρ/dt ~ 1/√(t+1); in ρ it has none, so the integrals below run over ρ.
"""
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from ..schedule import NoiseSchedule
from .common import CLEAN, NoisePredictor, Step, predicted_x0, strides
from .pndm import blend


def deis(predict: NoisePredictor, x: Tensor, grid: list[int], schedule: NoiseSchedule, *, q: int, variable: str) -> Iterator[Step]:
    """AB-DEIS with polynomials of degree q in `variable` ("t" or "rho"); one network call a step. x (B, ...) noise at grid[0]."""
    coefficients = deis_coefficients(tuple(schedule.alpha_bar.tolist()), tuple(grid), q, variable)
    known = []  # ε at the last timesteps, newest first
    for (t, s, a_t, a_s), C in zip(strides(grid, schedule), coefficients, strict=True):
        known = [predict(x, t), *known[:q]]
        x, x0 = (a_s / a_t) ** 0.5 * x + blend(C, known), predicted_x0(x, known[0], a_t)
        yield Step(s, x, x0)


@lru_cache(maxsize=64)
def deis_coefficients(alpha_bar: tuple[float, ...], grid: tuple[int, ...], q: int, variable: str) -> tuple[tuple[float, ...], ...]:
    """(C_0, C_1, …) of each step of the grid, newest timestep first, in float64; cached for a schedule, grid and order.

    alpha_bar: (T,) numbers; grid: falling timesteps; variable: "t" (tAB) or "rho" (ρAB). Error: below 1e-10 of the step's ΣC_j.
    """
    # Index 0 stands for CLEAN, index t + 1 for timestep t.
    log_alpha_bar = np.log([1.0, *alpha_bar])
    rho = np.sqrt(np.expm1(-log_alpha_bar))
    steps = []
    for i, (t, s) in enumerate(zip(grid, (*grid[1:], CLEAN), strict=True)):
        nodes = np.array(grid[max(i - q, 0):i + 1][::-1])  # t_0, t_1, …
        if variable == "rho":
            points, d_rho = gauss_legendre(rho[[t + 1, s + 1]], 2)  # two points are exact for cubics: the closed form
            ell = lagrange(rho[nodes + 1], points)
        else:
            # Log ᾱ = −log(1+ρ²) is linear in t between two timesteps: one stretch each. In v = asinh ρ its nearest poles are
            # ±iπ/2: with 32 points, a stretch over which ᾱ falls to 1e-5 of its value is still good to 1e-13.
            timesteps = np.arange(t, s - 1, -1)  # (n + 1,)
            v, d_v = gauss_legendre(np.arcsinh(rho[timesteps + 1]), 32)
            start, end = log_alpha_bar[timesteps[:-1] + 1, None], log_alpha_bar[timesteps[1:] + 1, None]
            ell = lagrange(nodes, timesteps[:-1, None] - (-np.log1p(np.sinh(v) ** 2) - start) / (end - start))
            d_rho = np.cosh(v) * d_v
        a_s = 1.0 if s == CLEAN else alpha_bar[s]
        steps.append(tuple((a_s**0.5 * (ell * d_rho).sum(axis=(1, 2))).tolist()))
    return tuple(steps)


def gauss_legendre(ends: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights for ∫ from ends[0] to ends[-1], n on each stretch between neighbours: (stretches, n) each."""
    point, weight = leggauss(n)
    half = np.diff(ends)[:, None] / 2
    return ends[:-1, None] + half * (1 + point), half * weight


def lagrange(nodes: np.ndarray, u: np.ndarray) -> np.ndarray:
    """ℓ_j(u) for each of the k nodes, (k, *u.shape): 1 where u is node j, 0 where it is another."""
    others = [np.delete(nodes, j) for j in range(len(nodes))]
    return np.stack([np.prod([np.ones_like(u)] + [(u - m) / (node - m) for m in other], axis=0)
                     for node, other in zip(nodes, others, strict=True)])
