"""Samplers from noise x_T to a picture x_0, all behind `sample` and `trajectory`.

    x = sample(denoiser, x_T, schedule, sampler="ddim", steps=10)
    for t, x_t, x0_hat in trajectory(denoiser, x_T, schedule, steps=10): ...
"""
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..schedule import NoiseSchedule
from ..support.checks import check_walk
from . import ddim, ddpm, deis, dpm_solver, pndm
from .common import CLEAN, NoisePredictor, NoiseSource, Step, signal_left


@dataclass(frozen=True)
class Sampler:
    """A sampler and its properties. A new one needs a function like `ddim.ddim` and one line in SAMPLERS."""

    run: Callable[..., Iterator[Step]]  # run(predict, x_T, grid, schedule); generator=... too if it adds noise
    title: str
    order: int  # on smooth problems the error falls like steps^−order; 0 for samplers that add noise
    # Network calls for a number of steps. Grids may lose steps to rounding: nfe(len(schedule.timesteps(steps, spacing))).
    nfe: Callable[[int], int] = lambda steps: steps
    takes_eta: bool = False

    @property
    def deterministic(self) -> bool:
        """Whether x_T alone decides the sample (for DDIM: at eta = 0)."""
        return self.order > 0


SAMPLERS: dict[str, Sampler] = {
    "ddpm": Sampler(ddpm.ddpm, "DDPM, small variance", order=0),
    "ddpm-large": Sampler(partial(ddpm.ddpm, large_variance=True), "DDPM, large variance", order=0),
    "ddim": Sampler(ddim.ddim, "DDIM", order=1, takes_eta=True),
    "s-pndm": Sampler(partial(pndm.pndm, memory=2, start=pndm.improved_euler), "S-PNDM", order=2,
                      nfe=lambda steps: steps + min(steps - 1, 1)),
    "f-pndm": Sampler(partial(pndm.pndm, memory=4, start=pndm.runge_kutta), "F-PNDM", order=2,
                      nfe=lambda steps: steps + 3 * min(steps - 1, 3)),
    "plms": Sampler(partial(pndm.pndm, memory=4), "PLMS (iPNDM)", order=2),
    **{f"tab-deis-{q}": Sampler(partial(deis.deis, q=q, variable="t"), f"tAB-DEIS, q = {q}", order=q + 1) for q in range(4)},
    **{f"rhoab-deis-{q}": Sampler(partial(deis.deis, q=q, variable="rho"), f"ρAB-DEIS, q = {q}", order=q + 1) for q in range(1, 4)},
    "dpm-solver++": Sampler(dpm_solver.dpm_solver_pp, "DPM-Solver++(2M)", order=2),
}


def sample(denoiser: Denoiser, x_T: Tensor, schedule: NoiseSchedule, sampler: str = "ddim", steps: int = 10,
           spacing: str = "uniform", eta: float = 0.0, generator: NoiseSource = None) -> Tensor:
    """Draw samples: x_T (B, ...) standard normal noise → x_0 like x_T.

    steps, spacing: the time grid, see `schedule.timesteps`. eta: noise level of DDIM, 0 deterministic, 1 like DDPM.
    generator: source of the noise that random samplers add; a list of one an image makes each image independent of the
    batch it is drawn in. Raises ValueError as `trajectory` does.
    """
    x = x_T
    for step in trajectory(denoiser, x_T, schedule, sampler, steps, spacing, eta, generator):
        x = step.x
        del step  # frees x̂_0 before the next network call
    return x


def trajectory(denoiser: Denoiser, x_T: Tensor, schedule: NoiseSchedule, sampler: str = "ddim", steps: int = 10,
               spacing: str = "uniform", eta: float = 0.0, generator: NoiseSource = None) -> Iterator[Step]:
    """The same walk, one `Step` (t, x_t, x̂_0) after each step: for plots, progress bars and widgets.

    t is the timestep reached, −1 at the clean end (ᾱ = 1); x_t the state there; x̂_0 the picture predicted during the step.
    Arguments are checked at once, not at the first step. Raises ValueError for steps outside 1..T, unknown names, an x_T that
    is not floating or not finite, devices that differ, and a denoiser whose answer has another shape or is not finite. On a
    GPU values that are not finite are reported after the last step, so that the CPU need not wait at each. Warns where the
    grid starts at a timestep with much signal left.
    """
    check_walk(denoiser, x_T, schedule, sampler, SAMPLERS, eta, generator)
    chosen, grid = SAMPLERS[sampler], schedule.timesteps(steps, spacing).tolist()
    schedule = schedule.to("cpu")
    if complaint := signal_left(grid, schedule):
        warnings.warn(complaint, stacklevel=2)
    predict = NoisePredictor(denoiser, x_T, len(grid), check_each_call=x_T.device.type == "cpu")
    noise = {"generator": generator} if chosen.takes_eta or not chosen.deterministic else {}
    if chosen.takes_eta:
        noise["eta"] = eta
    return _walk(chosen.run(predict, x_T, grid, schedule, **noise), predict)


def _walk(steps: Iterator[Step], predict: NoisePredictor) -> Iterator[Step]:
    """Run each step without gradients, but not the caller's code between the steps."""
    while True:
        with torch.no_grad():
            step = next(steps, None)
        if step is None:
            break
        if step.t == CLEAN:
            predict.test(step.x, f"the result of step {predict.steps}, the last, holds NaN or infinite values; take more steps, "
                                 "or x_T in float32.")
        yield step
        del step  # frees x̂_0 before the next network call, unless the caller keeps it
        predict.step += 1
    predict.check()
