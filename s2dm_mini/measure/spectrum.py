"""What needs no network: how much variance pictures hold at each spatial frequency.

    power_spectrum(pixels)                       # (16,) from 1 to 16 cycles across a picture of 32×32
    spectrum_distance(power_spectrum(pixels), power_spectrum(real))    # decibels
"""
import torch
from torch import Tensor

from ..support.checks import check_floating, check_pixels


def power_spectrum(pixels: Tensor) -> Tensor:
    """Mean squared Fourier coefficients of pictures (N, 3, H, H) uint8 in rings of 1, 2, … H/2 cycles a side: (H/2,) float64.

    In squared grey levels a coefficient, mean over the colours. White noise of standard deviation σ gives σ² in each ring.
    """
    check_pixels("pixels", pixels)
    side = pixels.shape[-1]
    if pixels.shape[-2] != side or side < 4:
        raise ValueError(f"pixels must be square, at least 4 a side, not {tuple(pixels.shape)}.")
    power = sum(torch.fft.rfft2(part.double(), norm="ortho").abs().square().sum((0, 1)) for part in pixels.split(1_000))  # (H, H/2 + 1)
    down, right = torch.fft.fftfreq(side) * side, torch.arange(side // 2 + 1)
    ring = (down[:, None].square() + right.square()).sqrt().round().long()  # the corners, beyond H/2 cycles, are left out
    mean = power / (len(pixels) * pixels.shape[1])
    return torch.stack([mean[ring == cycles].mean() for cycles in range(1, side // 2 + 1)])


def spectrum_distance(a: Tensor, b: Tensor) -> float:
    """Root mean square over the rings of 10·log10(a/b), in decibels, of two spectra (K,) above 0."""
    for name, x in (("a", a), ("b", b)):
        check_floating(name, x, "(K,)")
        if len(a) != len(b) or not bool((x > 0).all()):
            raise ValueError(f"a and b must hold equally many values above 0, not {a.tolist()} and {b.tolist()}.")
    return float((10 * (a / b).log10()).square().mean().sqrt())
