"""Points in the plane, drawn from two densities that are easy to see."""
import math

import torch
from torch import Tensor

from ..support.checks import check_integer, check_name, check_seed

POINTS = ("ring", "moons")
RING_STD = 0.1
MAX_POINTS = 10_000_000


def points(name: str = "ring", n: int = 1_000, seed: int = 0) -> Tensor:
    """n points of the density `name`, one of POINTS, (n, 2) float32, roughly within −1..1. Raises ValueError for other names and numbers.

    The ring is a mixture of 8 Gaussians of standard deviation RING_STD around `ring_means()`.
    """
    check_name("name", name, POINTS)
    n, generator = check_integer("n", n, 0, MAX_POINTS), torch.Generator().manual_seed(check_seed(seed))
    u, noise = torch.rand(n, 2, generator=generator), torch.randn(n, 2, generator=generator)
    if name == "ring":
        return ring_means()[(u[:, 0] * 8).long().clamp(max=7)].float() + RING_STD * noise
    upper, angle = u[:, 1] < 0.5, math.pi * u[:, 0]
    return torch.where(upper[:, None], torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1),
                       torch.stack([0.5 - angle.cos(), 0.25 - angle.sin()], 1)) * 0.65 + 0.05 * noise


def ring_means() -> Tensor:
    """8 centres on the unit circle, (8, 2) float64: the means of the mixture `ring`."""
    angle = torch.arange(8, dtype=torch.float64) / 8 * 2 * math.pi
    return torch.stack([angle.cos(), angle.sin()], dim=1)
