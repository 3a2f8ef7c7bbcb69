"""What needs no network: how much variance pictures hold at each spatial frequency.

    ring_powers(pixels)        # (N, 16): at 1 to 16 cycles across a picture of 32×32
    power_spectrum(pixels)     # (16,): their mean over the pictures
    spectrum_distance(power_spectrum(pixels), power_spectrum(real))    # decibels
"""
import torch
from torch import Tensor

from ..support.checks import check_finite, check_floating, check_pixels


def ring_powers(pixels: Tensor) -> Tensor:
    """Mean squared Fourier coefficients of pictures (N, 3, H, H) uint8 in rings of 1, 2, … H/2 cycles a side: (N, H/2) float64.

    In squared grey levels a coefficient, mean over the colours. White noise of standard deviation σ gives σ² in each ring.
    """
    check_pixels("pixels", pixels)
    side = pixels.shape[-1]
    if pixels.shape[-2] != side or side < 4:
        raise ValueError(f"pixels must be square, at least 4 a side, not {tuple(pixels.shape)}.")
    down, right = torch.fft.fftfreq(side) * side, torch.arange(side // 2 + 1)
    ring = (down[:, None].square() + right.square()).sqrt().round().long().flatten()  # (H·(H/2 + 1),)
    share = torch.stack([(ring == cycles).double() / (ring == cycles).sum() for cycles in range(1, side // 2 + 1)], dim=1)  # no corners
    power = (torch.fft.rfft2(part.double(), norm="ortho").abs().square().mean(1) for part in pixels.split(1_000))  # (B, H, H/2 + 1) each
    return torch.cat([part.flatten(1) @ share for part in power])


def power_spectrum(pixels: Tensor) -> Tensor:
    """Mean over the pictures (N, 3, H, H) uint8 of `ring_powers`: (H/2,) float64."""
    return ring_powers(pixels).mean(0)


def spectrum_distance(a: Tensor, b: Tensor) -> float:
    """Root mean square over the rings of 10·log10(a/b), in decibels, of two spectra (K,) above 0."""
    for name, x in (("a", a), ("b", b)):
        check_floating(name, x, "(K,)")
        check_finite(name, x)
    if len(a) != len(b) or not bool((a > 0).all() and (b > 0).all()):
        raise ValueError(f"a and b must hold equally many values above 0, not {a.tolist()} and {b.tolist()}.")
    return float((10 * (a / b).log10()).square().mean().sqrt())
