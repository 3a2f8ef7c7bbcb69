"""DPM-Solver++ (Lu et al., 2022): the same ODE in the variable λ = log(√ᾱ/√(1−ᾱ)), predicting x̂_0 instead of ε."""
import math
from collections.abc import Iterator

from torch import Tensor

from ..schedule import NoiseSchedule
from .common import CLEAN, NoisePredictor, Step, predicted_x0, strides


def dpm_solver_pp(predict: NoisePredictor, x: Tensor, grid: list[int], schedule: NoiseSchedule) -> Iterator[Step]:
    """DPM-Solver++(2M), algorithm 2. From t to s, with h = λ_s − λ_t, r = h_before/h and e^−h = √ᾱ_t·√(1−ᾱ_s)/(√ᾱ_s·√(1−ᾱ_t)):

        D = x̂_0 + (x̂_0 − x̂_0 before)/(2r)        x̂_0 extrapolated to the middle of the step
        x_s = √(1−ᾱ_s)/√(1−ᾱ_t)·x_t + √ᾱ_s·(1 − e^−h)·D

    The first step has no x̂_0 before it, and the last, to ᾱ = 1, has h = ∞: both use D = x̂_0. x (B, ...) noise at grid[0].
    """
    x0_before, h_before = None, None
    for t, s, a_t, a_s in strides(grid, schedule):
        h = math.inf if s == CLEAN else (math.log(a_s / a_t) + math.log((1 - a_t) / (1 - a_s))) / 2
        x0 = predicted_x0(x, predict(x, t), a_t)
        D = x0 if x0_before is None or s == CLEAN else x0 + h / (2 * h_before) * (x0 - x0_before)
        x = ((1 - a_s) / (1 - a_t)) ** 0.5 * x + a_s**0.5 * -math.expm1(-h) * D
        x0_before, h_before = x0, h
        yield Step(s, x, x0)
