"""PNDM (Liu, Ren, Lin and Zhao, 2022): DDIM steps with a better ε, blended from several predictions.

DDIM steps from t to s as if ε were constant on the way. PNDM keeps the DDIM step, `transfer`, and puts in an average of ε over
the step: earlier predictions extrapolated (linear multistep), or extra predictions (Runge-Kutta). The weights are those of
classical solvers for equal strides. The order is 2 for any weights, as the paper proves, because the step takes ε out of its
integral; with four predictions that limit shows late, and until then errors fall like steps^−3 to steps^−4. For grids of
unequal strides use DEIS, whose weights fit them.
"""
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..schedule import NoiseSchedule, lookup
from .common import CLEAN, NoisePredictor, Step, Stride, predicted_x0, strides
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


def pndm(predict: NoisePredictor, x: Tensor, grid: list[int], schedule: NoiseSchedule, memory: int,
         start: Callable[..., Tensor] | None = None) -> Iterator[Step]:
    """DDIM steps with ε blended from the last `memory` predictions (PNDM, equation 12, algorithm 2).

    plms     memory 4: Adams-Bashforth 1, 2, 3, then 4; also called iPNDM. One network call a step
    S-PNDM   memory 2, start `improved_euler` (PNDM, appendix). steps + 1 calls
    F-PNDM   memory 4, start `runge_kutta`. steps + 9 calls from 4 steps on

    start: gives ε of a step while fewer predictions are known; not of the step to ᾱ = 1, where the network predicts no ε.
    x (B, ...) noise at grid[0].
    """
    known = []  # ε at the last timesteps, newest first
    for stride in strides(grid, schedule):
        t, s, a_t, a_s = stride
        known = [predict(x, t), *known[:memory - 1]]
        if start and len(known) < memory and s != CLEAN:
            eps = start(predict, x, known[0], stride, schedule)
        else:
            eps = blend(ADAMS_BASHFORTH[len(known) - 1], known)
        x, x0 = transfer(x, eps, a_t, a_s), predicted_x0(x, known[0], a_t)
        yield Step(s, x, x0)
        del eps, x0  # frees memory for the next network call


def improved_euler(predict: NoisePredictor, x: Tensor, e1: Tensor, stride: Stride, schedule: NoiseSchedule) -> Tensor:
    """The mean of ε at both ends of the step, given e1 at its start. Tensors (B, ...)."""
    t, s, a_t, a_s = stride
    return (e1 + predict(transfer(x, e1, a_t, a_s), s)) / 2


def runge_kutta(predict: NoisePredictor, x: Tensor, e1: Tensor, stride: Stride, schedule: NoiseSchedule) -> Tensor:
    """(ε₁ + 2ε₂ + 2ε₃ + ε₄)/6, each ε predicted where a step along the previous one ends (PNDM, equation 13). Tensors (B, ...).

    ε₂ and ε₃ lie halfway, which may be t + ½: log ᾱ is interpolated there, and the network receives the fraction.
    """
    t, s, a_t, a_s = stride
    middle = (t + s) / 2
    a_middle = lookup(schedule.alpha_bar, torch.tensor(middle)).item()
    total = eps = e1
    for weight, time, a in ((2, middle, a_middle), (2, middle, a_middle), (1, s, a_s)):
        there = transfer(x, eps, a_t, a)
        del eps
        eps = predict(there, time)
        total = total + weight * eps
    return total / 6
