"""DDPM's ancestral sampling (Ho, Jain and Abbeel, 2020), for steps of any length: draw x_s from q(x_s | x_t, x̂_0)."""
from collections.abc import Iterator

from torch import Tensor

from ..schedule import NoiseSchedule
from .common import CLEAN, AlphaBar, NoisePredictor, NoiseSource, Step, fresh_noise, pairs, predicted_x0


def ddpm(predict: NoisePredictor, x: Tensor, grid: list[int], schedule: NoiseSchedule,
         generator: NoiseSource = None, large_variance: bool = False) -> Iterator[Step]:
    """From t to s, with α = ᾱ_t/ᾱ_s and β = 1 − α (DDPM, equation 7):

        x_s = [√ᾱ_s·β·x̂_0 + √α·(1−ᾱ_s)·x_t] / (1−ᾱ_t) + √variance·z,  variance β·(1−ᾱ_s)/(1−ᾱ_t) ("small") or β ("large").

    The last step, to ᾱ = 1, adds no noise. x (B, ...) noise at grid[0].
    """
    alpha_bar = AlphaBar(schedule)
    for t, s in pairs(grid):
        a_t, a_s = alpha_bar(t), alpha_bar(s)
        alpha, beta = a_t / a_s, 1 - a_t / a_s
        x0 = predicted_x0(x, predict(x, t), a_t)
        x = (a_s**0.5 * beta * x0 + alpha**0.5 * (1 - a_s) * x) / (1 - a_t)
        if s != CLEAN:
            variance = beta if large_variance else beta * (1 - a_s) / (1 - a_t)
            x = x + variance**0.5 * fresh_noise(x, generator)
        yield Step(s, x, x0)


def ddpm_large(predict: NoisePredictor, x: Tensor, grid: list[int], schedule: NoiseSchedule,
               generator: NoiseSource = None) -> Iterator[Step]:
    """`ddpm` with the large variance β; the two agree as steps grow many."""
    return ddpm(predict, x, grid, schedule, generator, large_variance=True)
