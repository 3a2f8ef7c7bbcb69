"""Draw many samples, paired between networks: the same seed gives the same starting noise."""
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..data.images import to_pixels
from ..denoisers import Denoiser
from ..samplers import SAMPLERS, sample
from ..schedule import NoiseSchedule
from ..support.machine import seed_of
from ..support.progress import bar

BLOCK = 50  # images whose starting noise is drawn together


def starting_noise(n: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """x_T for n images, (n, *shape), drawn on the CPU. Image i depends on the seed and i only, on every device and whatever n."""
    blocks = [torch.randn(BLOCK, *shape, generator=torch.Generator().manual_seed(seed_of(seed, block))) for block in range(-(-n // BLOCK))]
    return torch.cat(blocks)[:n]


def draw(denoiser: Denoiser, n: int, shape: tuple[int, ...], schedule: NoiseSchedule, sampler: str = "ddim", steps: int = 50,
         spacing: str = "quadratic", eta: float = 0.0, seed: int = 0, device: torch.device | str = "cpu",
         batch: int | None = None) -> Iterator[Tensor]:
    """Draw n images of (C, H, W) in batches, yielding each as pixels (B, C, H, W) uint8 on the CPU; signals (C, L) as they come, float.

    Every model given the same seed starts from the same noise, so that differences between models are paired. batch: by default
    64 on a CPU, 500 on a GPU; it changes nothing but how sums are rounded.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}.")
    device = torch.device(device)
    batch = batch or (64 if device.type == "cpu" else 500)
    random = sampler in SAMPLERS and (not SAMPLERS[sampler].deterministic or eta > 0)
    for i, x_T in zip(range(0, n, batch), starting_noise(n, shape, seed).split(batch), strict=True):
        noise = [torch.Generator(device).manual_seed(seed_of(seed, 1, j)) for j in range(i, i + len(x_T))] if random else None
        x = sample(denoiser, x_T.to(device), schedule, sampler, steps, spacing, eta, noise)
        yield (to_pixels(x) if x.ndim == 4 else x).cpu()


def draw_watched(title: str, denoiser: Denoiser, n: int, shape: tuple[int, ...], schedule: NoiseSchedule, sampler: str, steps: int,
                 spacing: str, **options) -> Tensor:
    """All that `draw` yields, (n, C, H, W) uint8 or (n, C, L) floating, under a bar; further options as there."""
    evaluations = n * SAMPLERS[sampler].nfe(len(schedule.timesteps(steps, spacing))) if sampler in SAMPLERS else 0  # `draw` refuses those
    with watched(denoiser, evaluations, title) as counted:
        return torch.cat(list(draw(counted, n, shape, schedule, sampler, steps, spacing, **options)))


@contextmanager
def watched(denoiser: Denoiser, evaluations: int, title: str) -> Iterator[Denoiser]:
    """The denoiser under a bar that counts its evaluations, one an image and step, of which there will be so many."""
    with bar(title, evaluations) as progress:
        def counted(x: Tensor, t: Tensor) -> Tensor:
            eps = denoiser(x, t)
            progress.update(len(x))
            return eps

        yield counted
