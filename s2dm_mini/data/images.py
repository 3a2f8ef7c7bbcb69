"""Images as uint8 tensors, the range −1..1 that networks see, and the folder of the data sets."""
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..support.checks import check_floating, check_pixels


class DataError(Exception):
    """Missing or wrong data; the message names the file and the mend."""


@dataclass
class Images:
    """A data set, in memory or mapped into it."""

    name: str
    pixels: Tensor  # (N, 3, H, W) uint8
    labels: Tensor  # (N,) int64
    classes: tuple[str, ...]
    factors: dict[str, Tensor] = field(default_factory=dict)  # drawn data: name → (N,) float, the numbers behind each example

    def __len__(self) -> int:
        return len(self.pixels)

    def augment(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Training input from a batch of the pixels, (B, 3, H, W) uint8: float32 −1..1, each mirrored with probability 1/2."""
        return random_flip(to_unit_range(pixels), generator)


def to_unit_range(pixels: Tensor) -> Tensor:
    """uint8 0..255 → float32 −1..1, the range of the networks. Any shape. Raises ValueError for another type."""
    check_pixels("pixels", pixels, "(...)")
    return pixels.float() / 127.5 - 1


def to_pixels(x: Tensor) -> Tensor:
    """Float −1..1 → uint8 0..255, rounded; values outside are clipped. Any shape. Raises ValueError for another type."""
    check_floating("x", x, "(...)", empty=True)
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def random_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image of x (B, C, H, W) left to right with probability 1/2."""
    flip = torch.rand(len(x), generator=generator, device=x.device) < 0.5
    return torch.where(flip[:, None, None, None], x.flip(3), x)


def data_folder() -> Path:
    """The folder of the data sets: S2DM_DATA if set, else the user's cache folder."""
    if os.environ.get("S2DM_DATA"):
        return Path(os.environ["S2DM_DATA"]).expanduser()
    import pooch

    return Path(pooch.os_cache("s2dm_mini"))


def fingerprint(images: Images) -> str:
    """The first 16 digits of the SHA-256 of pixels and labels; names the data behind a checkpoint or a result."""
    digest = hashlib.sha256(images.pixels.contiguous().numpy())
    digest.update(images.labels.contiguous().numpy())
    return digest.hexdigest()[:16]
