"""One latent over the plane of skip and τ."""
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.images import to_pixels
from ..denoisers import Denoiser
from ..losses import shrinkage
from ..samplers import trajectory
from ..samplers.common import CLEAN
from ..schedule import per_image
from ..support.machine import best_device
from .ends import end_latent
from .setting import SCHEDULE, Setting, family, grid, network
from .strips import Row, _rows

SKIPS = (1, 4, 9, 24, 49, 74, 99)
TAUS = (1.0, 0.999, 0.99, 0.97, 0.9, 0.75, 0.5)


class ShrunkEach:
    """Every image of a batch with a factor s_t of its own. They start from one x_T, so the first answer is asked for once."""

    def __init__(self, denoiser: Denoiser, scales: Tensor):
        self.denoiser, self.scales, self.first = denoiser, scales, True  # scales (B, T)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        eps = self.denoiser(x[:1], t[:1]).expand_as(x) if self.first else self.denoiser(x, t)
        self.first = False
        below, last = int(t[0]), self.scales.shape[1] - 1
        scale = torch.lerp(self.scales[:, below], self.scales[:, min(below + 1, last)], float(t[0]) - below)
        return per_image(scale, x) * eps


@dataclass(frozen=True)
class Plane:
    """One latent over the plane of skip and τ, at some step of the sampler."""

    setting: Setting
    step: int
    steps: int
    pixels: Tensor  # (len(TAUS)·len(SKIPS), 3, S, S) uint8, τ by τ

    @property
    def done(self) -> bool:
        return self.step == self.steps


def plane(setting: Setting) -> Iterator[Plane]:
    """The first end's picture for all of SKIPS and TAUS in closed form, coarse to fine. Raises as `views` does."""
    key = ("plane", replace(setting, skip=1, tau=1.0, how="trained", amplify=1, second=0, way="slerp", frames=3))
    steps = len(grid(setting))
    if key in _rows:
        _rows.move_to_end(key)
        yield Plane(setting, steps, steps, _rows[key].pixels)
        return
    scales = torch.stack([shrinkage(SCHEDULE, skip, tau) for tau in TAUS for skip in SKIPS]).to(best_device())  # (B, T)
    x_T = end_latent(setting.first, setting).expand(len(scales), -1, -1, -1).contiguous()
    noise = [torch.Generator(x_T.device).manual_seed(0) for _ in x_T]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        walk = trajectory(ShrunkEach(network(family(setting)[0].name), scales), x_T, SCHEDULE, setting.sampler, setting.steps,
                          setting.spacing, setting.eta, noise)
    for number, step in enumerate(walk, 1):
        x = step.x if step.t == CLEAN else step.x0
        pixels = to_pixels(x).cpu()
        if step.t == CLEAN:
            _rows[key] = Row(pixels, (), (), x.abs().max().item())
        yield Plane(setting, number, steps, pixels)


def nearest_cell(setting: Setting) -> tuple[int, int]:
    """Row and column of the plane's cell that is nearest to the setting, as `nearest` measures it."""
    wanted = shrinkage(SCHEDULE, setting.skip, setting.tau)
    column = min(range(len(SKIPS)), key=lambda j: abs(SKIPS[j] - setting.skip))
    row = min(range(len(TAUS)), key=lambda i: (shrinkage(SCHEDULE, SKIPS[column], TAUS[i]) - wanted).abs().max().item())
    return row, column
