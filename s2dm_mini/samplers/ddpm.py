"""DDPM's ancestral sampling (Ho, Jain and Abbeel, 2020), for steps of any length: draw x_s from q(x_s | x_t, x̂_0)."""
from collections.abc import Iterator

from torch import Tensor

from ..schedule import NoiseSchedule
from .common import CLEAN, NoisePredictor, NoiseSource, Step, fresh_noise, predicted_x0, strides


def ddpm(predict: NoisePredictor, x: Tensor, grid: list[int], schedule: NoiseSchedule,
         generator: NoiseSource = None, large_variance: bool = False) -> Iterator[Step]:
    """From t to s, with α = ᾱ_t/ᾱ_s and β = 1 − α (DDPM, equation 7):

        x_s = [√ᾱ_s·β·x̂_0 + √α·(1−ᾱ_s)·x_t] / (1−ᾱ_t) + √variance·z,  variance β·(1−ᾱ_s)/(1−ᾱ_t) ("small") or β ("large").

    With many steps the two variances agree. The last step, to ᾱ = 1, adds no noise. x (B, ...) noise at grid[0].
    """
    for t, s, a_t, a_s in strides(grid, schedule):
        alpha, beta = a_t / a_s, 1 - a_t / a_s
        x0 = predicted_x0(x, predict(x, t), a_t)
        x = (a_s**0.5 * beta * x0 + alpha**0.5 * (1 - a_s) * x) / (1 - a_t)
        if s != CLEAN:
            variance = beta if large_variance else beta * (1 - a_s) / (1 - a_t)
            x = x + variance**0.5 * fresh_noise(x, generator)
        yield Step(s, x, x0)
