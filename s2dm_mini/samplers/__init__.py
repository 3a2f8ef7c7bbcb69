"""Samplers: ways to walk from noise x_T to a picture x_0, all behind `sample` and `trajectory`.

    x = sample(denoiser, x_T, schedule, sampler="ddim", steps=10)
    for t, x_t, x0_hat in trajectory(denoiser, x_T, schedule, steps=10): ...
"""
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..schedule import NoiseSchedule
from ..support.checks import check_denoiser, check_floating, check_kind, check_name, check_number
from .common import CLEAN, NoisePredictor, NoiseSource, Step, check_devices
from .ddim import ddim
from .ddpm import ddpm, ddpm_large
from .deis import deis
from .dpm_solver import dpm_solver_pp
from .pndm import f_pndm, plms, s_pndm


@dataclass(frozen=True)
class Sampler:
    """What one needs to know about a sampler before running it."""

    run: Callable[..., Iterator[Step]]  # run(predict, x_T, grid, schedule, generator=...), see the families' files
    title: str
    order: int  # error falls like steps^−order on smooth problems; 0 for samplers that add noise
    # Network evaluations for so many steps. Grids may lose steps to rounding: nfe(len(schedule.timesteps(steps, spacing))).
    nfe: Callable[[int], int] = lambda steps: steps
    takes_eta: bool = False


SAMPLERS: dict[str, Sampler] = {
    "ddpm": Sampler(ddpm, "DDPM, small variance", order=0),
    "ddpm-large": Sampler(ddpm_large, "DDPM, large variance", order=0),
    "ddim": Sampler(ddim, "DDIM", order=1, takes_eta=True),
    "s-pndm": Sampler(s_pndm, "S-PNDM", order=2, nfe=lambda steps: steps + min(steps - 1, 1)),
    "f-pndm": Sampler(f_pndm, "F-PNDM", order=2, nfe=lambda steps: steps + 3 * min(steps - 1, 3)),
    "plms": Sampler(plms, "PLMS (iPNDM)", order=2),
    **{f"tab-deis-{q}": Sampler(partial(deis, q=q, variable="t"), f"tAB-DEIS, q = {q}", order=q + 1) for q in range(4)},
    **{f"rhoab-deis-{q}": Sampler(partial(deis, q=q, variable="rho"), f"ρAB-DEIS, q = {q}", order=q + 1) for q in range(1, 4)},
    "dpm-solver++": Sampler(dpm_solver_pp, "DPM-Solver++(2M)", order=2),
}


def sample(denoiser: Denoiser, x_T: Tensor, schedule: NoiseSchedule, sampler: str = "ddim", steps: int = 10,
           spacing: str = "uniform", eta: float = 0.0, generator: NoiseSource = None) -> Tensor:
    """Draw samples: x_T (B, ...) standard normal noise → x_0 like x_T.

    steps, spacing: the time grid, see `schedule.timesteps`. eta: DDIM's noise level, 0 deterministic, 1 like DDPM.
    generator: source of the noise that random samplers add; a list of one an image makes each image independent of the
    batch it is drawn in (the other samplers add none, and are so anyway). Raises ValueError as `trajectory` does.
    """
    x = x_T
    for step in trajectory(denoiser, x_T, schedule, sampler, steps, spacing, eta, generator):
        x = step.x
        del step  # and x̂_0 with it, before the next network call
    return x


def trajectory(denoiser: Denoiser, x_T: Tensor, schedule: NoiseSchedule, sampler: str = "ddim", steps: int = 10,
               spacing: str = "uniform", eta: float = 0.0, generator: NoiseSource = None) -> Iterator[Step]:
    """The same walk, one `Step` (t, x_t, x̂_0) after each step: for plots, progress bars and widgets.

    t is the timestep reached, −1 at the clean end (ᾱ = 1); x_t the state there; x̂_0 the picture the denoiser foresaw
    on the way. Arguments are checked at once, not at the first step. Raises ValueError for steps outside 1..T, unknown
    names, an x_T that is not floating or not finite, devices that differ, and a denoiser whose answer has another shape or
    is not finite; on a GPU what is not finite is reported after the last step, so that the host need not wait at each.
    """
    check_name("sampler", sampler, SAMPLERS)
    check_denoiser(denoiser)
    check_floating("x_T", x_T, empty=True)
    check_kind("schedule", schedule, NoiseSchedule)
    eta = check_number("eta", eta, 0, 1)
    if eta and not SAMPLERS[sampler].takes_eta:
        raise ValueError(f"eta = {eta} has no meaning for {sampler}; it belongs to DDIM.")
    check_devices(denoiser, x_T, generator)
    grid = schedule.timesteps(steps, spacing).tolist()
    predict = NoisePredictor(denoiser, x_T, len(grid), check_each_call=x_T.device.type == "cpu")
    noise = {"eta": eta, "generator": generator} if SAMPLERS[sampler].takes_eta else {"generator": generator}
    return _walk(SAMPLERS[sampler].run(predict, x_T, grid, schedule, **noise), predict)


def _walk(steps: Iterator[Step], predict: NoisePredictor) -> Iterator[Step]:
    """Run each step in inference mode, and the caller's code between the steps not."""
    while True:
        with torch.inference_mode():
            step = next(steps, None)
        if step is None:
            break
        if step.t == CLEAN:
            predict.look_at_the_end(step.x)
        yield step
        del step  # x̂_0 is the caller's now; the next network call may need its room
        predict.step += 1
    predict.check()
