"""What every sampler needs: the step it yields, pairs of timesteps, ᾱ as plain numbers, and a checked network call.

Coefficients are Python floats computed in float64 on the host, so that no sampler ever copies from a GPU or waits for it.
"""
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..denoisers import Denoiser
from ..schedule import NoiseSchedule
from ..support.checks import check_eps, check_generator

# Where random samplers take their noise from: one generator for the batch, or one an image, so that image i is the same
# whatever it shares a batch with.
NoiseSource = torch.Generator | list[torch.Generator] | None
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
    """ᾱ as a float, for a timestep of the schedule, a time between two of them, or CLEAN.

    A schedule kept on a GPU is read once, before the first step.
    """

    def __init__(self, schedule: NoiseSchedule):
        self.schedule = schedule.to("cpu")

    def __call__(self, t: float) -> float:
        dtype = torch.int64 if isinstance(t, int) else torch.float64
        return 1.0 if t == CLEAN else self.schedule.alpha_bar_at(torch.tensor(t, dtype=dtype)).item()


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
    """eps = predict(x, t): the denoiser, asked for a whole batch x (B, ...) at one time t, and its answer checked.

    The shape is checked at each call. Whether the values are finite is checked on the device, which only notes the number
    of the first bad tensor; `check` reads the note and raises. On a CPU that happens at each call; on a GPU reading makes
    the host wait, so `trajectory` reads once, after the last step.
    """

    def __init__(self, denoiser: Denoiser, x_T: Tensor, steps: int, check_each_call: bool):
        self.denoiser, self.steps, self.check_each_call = denoiser, steps, check_each_call
        self.step = 1  # the step under way, counted by `trajectory`
        self.seen = []  # what each tensor looked at was, in words
        self.first_bad = torch.full((), torch.iinfo(torch.int64).max, device=x_T.device)
        self._look_at(x_T, "x_T holds NaN or infinite values.")

    def __call__(self, x: Tensor, t: float) -> Tensor:
        # Whole timesteps travel as integers, so that denoisers may look them up in tables.
        eps = self.denoiser(x, torch.full((len(x),), int(t) if t == int(t) else t, device=x.device))
        where = f"at t = {t:g}, in step {self.step} of {self.steps},"
        check_eps(eps, x, f"{where} ")
        self._look_at(eps, f"{where} the denoiser returned NaN or infinite values.")
        return eps.to(x.dtype)

    def look_at_the_end(self, x: Tensor) -> None:
        self._look_at(x, f"what came out after step {self.steps}, the last, holds NaN or infinite values; take more steps, "
                         "or x_T in float32.")

    def _look_at(self, tensor: Tensor, complaint: str) -> None:
        bad = ~tensor.isfinite().all()
        self.first_bad = torch.where(bad, self.first_bad.clamp(max=len(self.seen)), self.first_bad)
        self.seen.append(complaint)
        if self.check_each_call:
            self.check()

    def check(self) -> None:
        """Raise ValueError if anything so far was not finite, naming the first: its t and its step."""
        first = int(self.first_bad)
        if first < len(self.seen):
            raise ValueError(self.seen[first])


def check_devices(denoiser: Denoiser, x_T: Tensor, generator: NoiseSource) -> None:
    """Raise ValueError unless network, noise and its generator share a device, as far as that shows before the first call."""
    for g in generator if isinstance(generator, list) else [generator]:
        check_generator(g)
    weight = next(denoiser.parameters(), None) if isinstance(denoiser, nn.Module) else None
    if weight is not None and weight.device != x_T.device:
        raise ValueError(f"x_T is on {x_T.device} but the denoiser's weights are on {weight.device}; move one of them with .to(...).")
    if isinstance(generator, list) and len(generator) != len(x_T):
        raise ValueError(f"a list of generators needs one an image: {len(generator)} for the {len(x_T)} images of x_T.")
    # A generator made for "cuda" may serve any cuda:i, so only the kinds are compared.
    for g in generator if isinstance(generator, list) else [generator]:
        if g is not None and g.device.type != x_T.device.type:
            raise ValueError(f"generator is on {g.device} but x_T on {x_T.device}; make it with "
                             f"torch.Generator(device={x_T.device.type!r}).")
