"""Images as uint8 tensors, the range that networks see, and the folder that data sets are kept in."""
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..support.checks import check_floating, check_generator, check_pixels, shown


class DataError(Exception):
    """Data that is missing or not what it should be; the message says which file and what to do."""


@dataclass
class Images:
    """A data set in memory, or mapped into it."""

    name: str
    pixels: Tensor  # (N, 3, H, W) uint8
    labels: Tensor  # (N,) int64
    classes: tuple[str, ...]
    factors: dict[str, Tensor] = field(default_factory=dict)  # for `shapes`: name → (N,) float32

    def __len__(self) -> int:
        return len(self.pixels)

    def augment(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What training sees of some of the pixels, (B, 3, H, W) uint8: float32 −1..1, each mirrored with probability one half."""
        return random_flip(to_unit_range(pixels), generator)


def to_unit_range(pixels: Tensor) -> Tensor:
    """uint8 0..255 → float32 −1..1, the range the networks are trained in. Any shape."""
    check_pixels("pixels", pixels, "(...)")
    return pixels.float() / 127.5 - 1


def to_pixels(x: Tensor) -> Tensor:
    """Float −1..1 → uint8 0..255, rounded; what lies outside is clipped. Any shape."""
    check_floating("x", x, "(...)", empty=True)
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def random_flip(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Mirror each image left to right with probability one half. x: (B, C, H, W)."""
    if not isinstance(x, Tensor) or x.ndim != 4:
        raise ValueError(f"x must be a tensor (B, C, H, W), not {shown(x)}.")
    check_generator(generator)
    flip = torch.rand(len(x), generator=generator, device=x.device) < 0.5
    return torch.where(flip[:, None, None, None], x.flip(3), x)


def data_folder() -> Path:
    """Where data sets are kept: the folder named by S2DM_DATA, else the user's cache folder."""
    if os.environ.get("S2DM_DATA"):
        return Path(os.environ["S2DM_DATA"]).expanduser()
    import pooch

    return Path(pooch.os_cache("s2dm_mini"))


def fingerprint(images: Images) -> str:
    """SHA-256 of the pixels and labels, first 16 digits: which data a checkpoint or a result rests on."""
    digest = hashlib.sha256(images.pixels.contiguous().numpy())
    digest.update(images.labels.contiguous().numpy())
    return digest.hexdigest()[:16]
