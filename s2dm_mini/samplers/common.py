"""Parts that all samplers share: the step they yield, ᾱ as plain numbers, fresh noise, and the checked network call.

Coefficients are Python floats computed in float64 on the CPU, so that no sampler copies from a GPU or waits for it.
"""
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..schedule import NoiseSchedule, lookup
from ..support.checks import check_eps

# Source of the noise that random samplers add: one generator for the batch, or one an image, which makes image i independent of
# the batch it is drawn in.
NoiseSource = torch.Generator | list[torch.Generator] | None
Stride = tuple[int, int, float, float]  # t, s, ᾱ_t, ᾱ_s
CLEAN = -1  # the "timestep" of the finished picture, where ᾱ = 1
# ᾱ at the first timestep, from which `signal_left` complains. For Gaussian data of standard deviation 0.5 the samples of a deterministic
# sampler are then wider by 1/√(1 − 0.75ᾱ) than from an x_T with that signal in it: 1.0 % at 0.025. Uniform grids of DDPM's schedule come to
# 0.002 % with 50 steps, 0.01 % with 10, 0.06 % with 5, 0.4 % with 3, 3.1 % with 2 and with 501; of the cosine schedule to 0.9 % with 10.
SIGNAL_LEFT = 0.025


class Step(NamedTuple):
    """One step of a sampler: `for t, x, x0 in trajectory(...)`."""

    t: int  # timestep reached; CLEAN at the end
    x: Tensor  # state there, (B, ...)
    x0: Tensor  # x̂_0 predicted during the step, (B, ...)


def strides(grid: list[int], schedule: NoiseSchedule) -> Iterator[Stride]:
    """(t, s, ᾱ_t, ᾱ_s) of each step from t down to s; the last s is CLEAN, with ᾱ = 1."""
    alpha_bar = [*lookup(schedule.alpha_bar, torch.tensor(grid)).tolist(), 1.0]
    return zip(grid, [*grid[1:], CLEAN], alpha_bar[:-1], alpha_bar[1:], strict=True)


def signal_left(grid: list[int], schedule: NoiseSchedule) -> str:
    """A sentence if the network expects signal in x_t at the grid's first timestep and gets pure noise, else an empty string."""
    first, last = lookup(schedule.alpha_bar, torch.tensor([grid[0], schedule.T - 1])).tolist()
    if first <= SIGNAL_LEFT:
        return ""
    mend = (f"another number of steps, or spacing = 'trailing', which starts at t = {schedule.T - 1}" if last <= SIGNAL_LEFT
            else f"a schedule that ends nearer to 0 than ᾱ = {last:.2g}")
    return (f"sampling starts at t = {grid[0]}, where ᾱ = {first:.2g} is the signal left in x_t, but x_T is pure noise: samples of data "
            f"with standard deviation 0.5 come out {100 * ((1 - 0.75 * first) ** -0.5 - 1):.1f} % too wide; take {mend}.")


def predicted_x0(x: Tensor, eps: Tensor, a_t: float) -> Tensor:
    """x̂_0 = (x_t − √(1−ᾱ_t)·ε)/√ᾱ_t, like x."""
    return (x - (1 - a_t) ** 0.5 * eps) / a_t**0.5


def fresh_noise(x: Tensor, generator: NoiseSource) -> Tensor:
    """z ~ N(0, I) like x, (B, ...)."""
    if isinstance(generator, list):
        noise = torch.empty_like(x)
        for image, g in zip(noise, generator, strict=True):
            image.copy_(torch.randn(image.shape, generator=g, dtype=x.dtype, device=x.device))
        return noise
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


class NoisePredictor:
    """eps = predict(x, t): calls the denoiser for a batch x (B, ...) at one time t and checks the answer.

    The shape is checked at each call. A test for NaN and infinite values runs on the device and notes the number of the first
    bad tensor; `check` reads the note and raises ValueError. On a CPU that happens at each call. On a GPU reading would make
    the CPU wait, so `trajectory` reads once, after the last step.
    """

    def __init__(self, denoiser: Denoiser, x_T: Tensor, steps: int, check_each_call: bool):
        self.denoiser, self.steps, self.check_each_call = denoiser, steps, check_each_call
        self.step = 1  # the current step, counted by `trajectory`
        self.complaints = []  # the error for each tensor tested
        self.first_bad = torch.full((), torch.iinfo(torch.int64).max, device=x_T.device)
        self.test(x_T, "x_T holds NaN or infinite values.")

    def __call__(self, x: Tensor, t: float) -> Tensor:
        # Whole timesteps are passed as integers, so that denoisers may look them up in tables.
        eps = self.denoiser(x, torch.full((len(x),), int(t) if t == int(t) else t, device=x.device))
        where = f"at t = {t:g}, in step {self.step} of {self.steps},"
        check_eps(eps, x, f"{where} ")
        self.test(eps, f"{where} the denoiser returned NaN or infinite values.")
        return eps.to(x.dtype)

    def test(self, tensor: Tensor, complaint: str) -> None:
        """Note whether the tensor holds NaN or infinite values, without reading from the device."""
        bad = ~tensor.isfinite().all()
        self.first_bad = torch.where(bad, self.first_bad.clamp(max=len(self.complaints)), self.first_bad)
        self.complaints.append(complaint)
        if self.check_each_call:
            self.check()

    def check(self) -> None:
        """Raise ValueError if a tensor so far was not finite; the message names the first one, its t and its step."""
        first = int(self.first_bad)
        if first < len(self.complaints):
            raise ValueError(self.complaints[first])
