"""PNDM (Liu, Ren, Lin and Zhao, 2022): DDIM steps with a better ε, blended from several predictions.

DDIM goes from t to s as if ε stayed what it is at t. PNDM keeps the DDIM step, `transfer`, and puts in an average of ε over
the way: remembered predictions extrapolated (linear multistep), or extra predictions on the way (Runge-Kutta). The blends
are those of classical solvers for equal strides. The whole is of order 2 whatever the blend, as the paper proves, because the
step takes ε out of its integral; with a blend of four that limit shows late, and until then errors fall like steps^−3 to
steps^−4. On grids of unequal strides the blends no longer fit; DEIS does.
"""
from collections.abc import Iterator

import torch
from torch import Tensor

from ..schedule import NoiseSchedule
from .common import CLEAN, AlphaBar, NoisePredictor, Step, pairs, predicted_x0
from .ddim import transfer

# Adams-Bashforth: weights of ε at t and at the timesteps before it, newest first, by how many are known.
ADAMS_BASHFORTH = (
    (1,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def blend(weights: tuple[float, ...], eps: list[Tensor]) -> Tensor:
    """Σ weights_j·ε_j, newest first; eps: (B, ...) each."""
    total = weights[0] * eps[0]
    for weight, e in zip(weights[1:], eps[1:], strict=True):
        total = total + weight * e
    return total


def plms(predict: NoisePredictor, x: Tensor, grid: list[int], schedule: NoiseSchedule,
         generator: torch.Generator | None = None) -> Iterator[Step]:
    """Adams-Bashforth 1, 2, 3, then 4, with one network call a step (PNDM, equation 12, warmed up without Runge-Kutta).

    Elsewhere also called iPNDM. x (B, ...) noise at grid[0].
    """
    alpha_bar = AlphaBar(schedule)
    known = []  # ε at the last timesteps, newest first
    for t, s in pairs(grid):
        a_t, a_s = alpha_bar(t), alpha_bar(s)
        known = [predict(x, t), *known[:3]]
        x, x0 = transfer(x, blend(ADAMS_BASHFORTH[len(known) - 1], known), a_t, a_s), predicted_x0(x, known[0], a_t)
        yield Step(s, x, x0)


def s_pndm(predict: NoisePredictor, x: Tensor, grid: list[int], schedule: NoiseSchedule,
           generator: torch.Generator | None = None) -> Iterator[Step]:
    """S-PNDM: the first step averages ε at both of its ends (improved Euler), the others use (3ε_t − ε_before)/2 (PNDM, appendix).

    steps + 1 network calls; a single step ends at ᾱ = 1, where ε cannot be asked for, and is DDIM's. x (B, ...) noise at grid[0].
    """
    alpha_bar = AlphaBar(schedule)
    known = []
    for t, s in pairs(grid):
        a_t, a_s = alpha_bar(t), alpha_bar(s)
        known = [predict(x, t), *known[:1]]
        if len(known) == 1 and s != CLEAN:
            eps = (known[0] + predict(transfer(x, known[0], a_t, a_s), s)) / 2
        else:
            eps = blend(ADAMS_BASHFORTH[len(known) - 1], known)
        x, x0 = transfer(x, eps, a_t, a_s), predicted_x0(x, known[0], a_t)
        yield Step(s, x, x0)
        del eps, x0  # the next network call needs the room


def f_pndm(predict: NoisePredictor, x: Tensor, grid: list[int], schedule: NoiseSchedule,
           generator: torch.Generator | None = None) -> Iterator[Step]:
    """F-PNDM: three pseudo Runge-Kutta steps, then Adams-Bashforth of four (PNDM, equations 12 and 13, algorithm 2).

    A Runge-Kutta step asks for ε at t, twice halfway and at s; its first ε is remembered. Halfway between timesteps of odd
    distance lies t + ½, where log ᾱ is interpolated and the network is given the fraction. The step to ᾱ = 1 is never a
    Runge-Kutta step, as it would ask for ε there. steps + 9 network calls from 4 steps on. x (B, ...) noise at grid[0].
    """
    alpha_bar = AlphaBar(schedule)
    known = []
    for t, s in pairs(grid):
        a_t, a_s = alpha_bar(t), alpha_bar(s)
        known = [predict(x, t), *known[:3]]
        if len(known) < 4 and s != CLEAN:
            eps = _runge_kutta(predict, x, known[0], t, s, alpha_bar)
        else:
            eps = blend(ADAMS_BASHFORTH[len(known) - 1], known)
        x, x0 = transfer(x, eps, a_t, a_s), predicted_x0(x, known[0], a_t)
        yield Step(s, x, x0)
        del eps, x0


def _runge_kutta(predict: NoisePredictor, x: Tensor, e1: Tensor, t: int, s: int, alpha_bar: AlphaBar) -> Tensor:
    """(ε₁ + 2ε₂ + 2ε₃ + ε₄)/6, each ε asked for where the one before leads (PNDM, equation 13). Tensors (B, ...)."""
    total = eps = e1
    for weight, time in ((2, (t + s) / 2), (2, (t + s) / 2), (1, s)):
        there = transfer(x, eps, alpha_bar(t), alpha_bar(time))
        del eps
        eps = predict(there, time)
        total = total + weight * eps
    return total / 6
