"""Draw many samples, paired between networks: the same seed gives the same starting noise."""
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..data.images import to_pixels
from ..denoisers import Denoiser
from ..samplers import SAMPLERS, sample
from ..schedule import NoiseSchedule
from ..support.checks import check_name, check_seed, require
from ..support.machine import seed_of
from ..support.progress import bar

BLOCK = 50  # images whose starting noise is drawn together
DIVERGED = 10.0  # |x|: pictures and signals lie in −1..1, and noise that too few steps leave in them within ±6


def starting_noise(n: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """x_T for n images, (n, *shape), drawn on the CPU. Image i depends only on the seed and i, on every device and for every n."""
    seed = check_seed(seed)
    blocks = [torch.randn(BLOCK, *shape, generator=torch.Generator().manual_seed(seed_of(seed, block))) for block in range(-(-n // BLOCK))]
    return torch.cat(blocks)[:n]


def draw(denoiser: Denoiser, n: int, shape: tuple[int, ...], schedule: NoiseSchedule, sampler: str = "ddim", steps: int = 50,
         spacing: str = "quadratic", eta: float = 0.0, seed: int = 0, device: torch.device | str = "cpu",
         batch: int | None = None) -> Iterator[Tensor]:
    """Draw n samples and yield them batch by batch on the CPU: images (C, H, W) as uint8 pixels, signals (C, L) as floats.

    The seed fixes the starting noise, whatever the network, so differences between networks are paired. batch: by default 64 on a CPU
    and 500 on a GPU; it changes nothing but rounding. Warns at the end if the sampler diverged.
    """
    require(n >= 1, "n must be at least 1", n)
    check_name("sampler", sampler, SAMPLERS)
    device = torch.device(device)
    batch = batch or (64 if device.type == "cpu" else 500)
    random, largest = not SAMPLERS[sampler].deterministic or eta > 0, 0.0
    for i, x_T in zip(range(0, n, batch), starting_noise(n, shape, seed).split(batch), strict=True):
        noise = [torch.Generator(device).manual_seed(seed_of(seed, 1, j)) for j in range(i, i + len(x_T))] if random else None
        x = sample(denoiser, x_T.to(device), schedule, sampler, steps, spacing, eta, noise)
        largest = max(largest, x.abs().max().item())
        yield (to_pixels(x) if x.ndim == 4 else x).cpu()
    if largest > DIVERGED:
        warnings.warn(f"{SAMPLERS[sampler].title} diverged: values reach {largest:.3g}, data lie in −1 to 1; take more steps than {steps}, "
                      f"another spacing than {spacing}, or another sampler, or train the network longer.", stacklevel=2)


@contextmanager
def watched(denoiser: Denoiser, evaluations: int, title: str, **options) -> Iterator[Denoiser]:
    """The denoiser under a bar that counts its evaluations, one for each image and step, up to `evaluations`. options: of the bar."""
    with bar(title, evaluations, **options) as progress:
        def counted(x: Tensor, t: Tensor) -> Tensor:
            eps = denoiser(x, t)
            progress.update(len(x))
            return eps

        yield counted
