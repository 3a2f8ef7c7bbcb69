"""What every sampler needs: the step it yields, pairs of timesteps, ᾱ as plain numbers, and a checked network call.

Coefficients are Python floats computed in float64 on the host, so that no sampler ever copies from a GPU or waits for it.
"""
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..losses import Denoiser
from ..schedule import NoiseSchedule

CLEAN = -1  # the "timestep" of the finished picture, where ᾱ = 1


class Step(NamedTuple):
    """One step of a sampler: `for t, x, x0 in trajectory(...)`."""

    t: int  # timestep reached; CLEAN at the end
    x: Tensor  # state there, (B, ...)
    x0: Tensor  # x̂_0 that the denoiser foresaw on the way, (B, ...)


def pairs(grid: list[int]) -> Iterator[tuple[int, int]]:
    """(t, s) for each step from t down to s; the last s is CLEAN."""
    return zip(grid, grid[1:] + [CLEAN], strict=True)


class AlphaBar:
    """ᾱ as a float, for a timestep of the schedule or CLEAN."""

    def __init__(self, schedule: NoiseSchedule):
        self.schedule = NoiseSchedule.to(schedule, "cpu")

    def __call__(self, t: float) -> float:
        return 1.0 if t == CLEAN else self.schedule.alpha_bar_at(torch.tensor(t)).item()


def predict_noise(denoiser: Denoiser, x: Tensor, t: float) -> Tensor:
    """eps = denoiser(x, t) for the whole batch at one time, its shape and (on CPU) its values checked."""
    eps = denoiser(x, torch.full((len(x),), t, device=x.device))
    if eps.shape != x.shape:
        raise ValueError(f"at t = {t} the denoiser returned {tuple(eps.shape)} for an x of {tuple(x.shape)}; it must return one ε a number of x.")
    if eps.device.type == "cpu" and not eps.isfinite().all():
        raise ValueError(f"at t = {t} the denoiser returned NaN or infinite values; the input "
                         f"{'was finite' if x.isfinite().all() else 'was already not finite'}.")
    return eps
