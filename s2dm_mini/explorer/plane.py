"""The map of skip and τ: one latent drawn by S²-DM in closed form at every (skip, τ) of a table; a pure function of a `Setting`."""
from collections.abc import Iterator

import torch
from torch import Tensor

from ..denoisers import Denoiser
from ..losses import shrinkage
from ..schedule import per_image
from ..support.machine import best_device
from .ends import latents
from .setting import SCHEDULE, Setting, family, network
from .strips import Row, l0_key, run

SKIPS = (1, 4, 9, 24, 49, 74, 99)
TAUS = (1.0, 0.999, 0.99, 0.97, 0.9, 0.75, 0.5)
PRESETS = {"the paper's small skip": (9, 0.99), "where it shows": (49, 0.99), "too much": (49, 0.9), "τ = 1: L₀": (49, 1.0)}


class ShrunkEach:
    """A denoiser that scales each image of a batch by its own s_t. All images start equal, so the first evaluation needs only one."""

    def __init__(self, denoiser: Denoiser, scales: Tensor):
        self.denoiser, self.scales, self.first = denoiser, scales, True  # scales (B, T)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        eps = self.denoiser(x[:1], t[:1]).expand_as(x) if self.first else self.denoiser(x, t)
        self.first = False
        below, last = int(t[0]), self.scales.shape[1] - 1
        scale = torch.lerp(self.scales[:, below], self.scales[:, min(below + 1, last)], float(t[0]) - below)
        return per_image(scale, x) * eps


def plane(setting: Setting, frame: int = 0) -> Iterator[Row]:
    """The pictures of one frame, counted from 0, for all TAUS and SKIPS, one τ after the other, coarse to fine, one `Row` per sampler step.

    Raises as `views` does.
    """
    scales = torch.stack([shrinkage(SCHEDULE, skip, tau) for tau in TAUS for skip in SKIPS]).to(best_device())  # (B, T)
    denoiser = ShrunkEach(network(family(setting)[0].name), scales)
    key = ("plane", frame, l0_key(setting))
    return run(key, denoiser, lambda setting: latents(setting)[frame].expand(len(scales), -1, -1, -1).contiguous(), setting)


def nearest_cell(setting: Setting) -> tuple[int, int]:
    """Row and column of the map with the nearest skip, and in that column the nearest shrinkage, measured as in `nearest`."""
    wanted = shrinkage(SCHEDULE, setting.skip, setting.tau)
    column = min(range(len(SKIPS)), key=lambda j: abs(SKIPS[j] - setting.skip))
    row = min(range(len(TAUS)), key=lambda i: (shrinkage(SCHEDULE, SKIPS[column], TAUS[i]) - wanted).abs().max().item())
    return row, column
