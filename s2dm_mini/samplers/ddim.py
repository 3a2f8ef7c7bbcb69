"""DDIM (Song, Meng and Ermon, 2021): predict the noise once a step, then move to the next noise level."""
from collections.abc import Iterator

from torch import Tensor

from ..schedule import NoiseSchedule
from .common import NoisePredictor, NoiseSource, Step, fresh_noise, predicted_x0, strides


def ddim(predict: NoisePredictor, x: Tensor, grid: list[int], schedule: NoiseSchedule, eta: float = 0.0,
         generator: NoiseSource = None) -> Iterator[Step]:
    """From t to s (DDIM, equation 12):  x_s = √ᾱ_s·x̂_0 + √(1−ᾱ_s−σ²)·ε + σ·z,  σ² = η²·(1−ᾱ_s)/(1−ᾱ_t)·(1−ᾱ_t/ᾱ_s).

    x (B, ...) noise at grid[0]. η = 0 adds no noise: the same x gives the same picture. x̂_0 is not clipped.
    """
    for t, s, a_t, a_s in strides(grid, schedule):
        eps = predict(x, t)
        x0 = predicted_x0(x, eps, a_t)
        variance = eta**2 * (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)  # 0 on the last step, where a_s = 1
        x = a_s**0.5 * x0 + (1 - a_s - variance) ** 0.5 * eps
        if variance > 0:
            x = x + variance**0.5 * fresh_noise(x, generator)
        yield Step(s, x, x0)


def transfer(x: Tensor, eps: Tensor, a_t: float, a_s: float) -> Tensor:
    """One DDIM step with η = 0 and any ε: x_s/√ᾱ_s = x_t/√ᾱ_t + (ρ_s − ρ_t)·ε, where ρ = √((1−ᾱ)/ᾱ).

    This is an Euler step of the ODE d(x/√ᾱ) = ε dρ (DDIM, equation 14), exact if ε is constant over the step.
    """
    psi = (a_s / a_t) ** 0.5
    return psi * x + ((1 - a_s) ** 0.5 - psi * (1 - a_t) ** 0.5) * eps
