"""PNDM (Liu, Ren, Lin and Zhao, 2022): DDIM steps with a better ε, blended from several predictions.

DDIM steps from t to s as if ε were constant on the way. PNDM keeps the DDIM step, `transfer`, and puts in an average of ε over
the step: earlier predictions extrapolated (linear multistep), or extra predictions (Runge-Kutta). The weights are those of
classical solvers for equal strides. The order is 2 for any weights, as the paper proves, because the step takes ε out of its
integral; with four predictions that limit shows late, and until then errors fall like steps^−3 to steps^−4. For grids of
unequal strides use DEIS, whose weights fit them.
"""
from collections.abc import Iterator

import torch
from torch import Tensor

from ..schedule import NoiseSchedule, lookup
from .common import CLEAN, NoisePredictor, Step, predicted_x0, strides
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


def plms(predict: NoisePredictor, x: Tensor, grid: list[int], schedule: NoiseSchedule) -> Iterator[Step]:
    """Adams-Bashforth 1, 2, 3, then 4, with one network call a step (PNDM, equation 12, warmed up without Runge-Kutta).

    Elsewhere also called iPNDM. x (B, ...) noise at grid[0].
    """
    known = []  # ε at the last timesteps, newest first
    for t, s, a_t, a_s in strides(grid, schedule):
        known = [predict(x, t), *known[:3]]
        x, x0 = transfer(x, blend(ADAMS_BASHFORTH[len(known) - 1], known), a_t, a_s), predicted_x0(x, known[0], a_t)
        yield Step(s, x, x0)


def s_pndm(predict: NoisePredictor, x: Tensor, grid: list[int], schedule: NoiseSchedule) -> Iterator[Step]:
    """S-PNDM: the first step averages ε at its two ends (improved Euler), later ones use (3ε_t − ε_before)/2 (PNDM, appendix).

    steps + 1 network calls. A single step ends at ᾱ = 1, where the network predicts no ε, and is DDIM's. x (B, ...) noise at grid[0].
    """
    known = []
    for t, s, a_t, a_s in strides(grid, schedule):
        known = [predict(x, t), *known[:1]]
        if len(known) == 1 and s != CLEAN:
            eps = (known[0] + predict(transfer(x, known[0], a_t, a_s), s)) / 2
        else:
            eps = blend(ADAMS_BASHFORTH[len(known) - 1], known)
        x, x0 = transfer(x, eps, a_t, a_s), predicted_x0(x, known[0], a_t)
        yield Step(s, x, x0)
        del eps, x0  # frees memory for the next network call


def f_pndm(predict: NoisePredictor, x: Tensor, grid: list[int], schedule: NoiseSchedule) -> Iterator[Step]:
    """F-PNDM: three pseudo Runge-Kutta steps, then Adams-Bashforth of four (PNDM, equations 12 and 13, algorithm 2).

    A Runge-Kutta step calls the network at t, twice halfway and at s, and remembers the first ε. Halfway between timesteps of odd
    distance lies t + ½, where log ᾱ is interpolated and the network receives the fraction. The step to ᾱ = 1 is never a
    Runge-Kutta step, which would need ε there. steps + 9 network calls from 4 steps on. x (B, ...) noise at grid[0].
    """
    known = []
    for t, s, a_t, a_s in strides(grid, schedule):
        known = [predict(x, t), *known[:3]]
        if len(known) < 4 and s != CLEAN:
            a_middle = lookup(schedule.alpha_bar, torch.tensor((t + s) / 2)).item()
            eps = _runge_kutta(predict, x, known[0], (t, (t + s) / 2, s), (a_t, a_middle, a_s))
        else:
            eps = blend(ADAMS_BASHFORTH[len(known) - 1], known)
        x, x0 = transfer(x, eps, a_t, a_s), predicted_x0(x, known[0], a_t)
        yield Step(s, x, x0)
        del eps, x0


def _runge_kutta(predict: NoisePredictor, x: Tensor, e1: Tensor, times: tuple[float, ...], a: tuple[float, ...]) -> Tensor:
    """(ε₁ + 2ε₂ + 2ε₃ + ε₄)/6, each ε predicted where a step along the previous one ends (PNDM, equation 13). Tensors (B, ...).

    times, a: t, the middle and s, and ᾱ there.
    """
    total = eps = e1
    for weight, i in ((2, 1), (2, 1), (1, 2)):
        there = transfer(x, eps, a[0], a[i])
        del eps
        eps = predict(there, times[i])
        total = total + weight * eps
    return total / 6
