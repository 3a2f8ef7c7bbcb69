"""Distances between sets of signals (N, C, L): of their own values, as `theory.gaussian` predicts it, and of their power spectra.

tests/benchmarks/compare_signals.py writes data/results/signals.csv with them.
"""
import torch
from torch import Tensor

from ..denoisers import GaussianDenoiser
from ..schedule import NoiseSchedule


def direction_distance(x: Tensor, real: Tensor) -> float:
    """Σ(√v_out − √v)², v and v_out being the variances of real and x, both (N, C, L), along the principal directions of real.

    `theory.gaussian.gaussian_distance` predicts it. N samples overestimate it by about Σv/2N.
    """
    exact = GaussianDenoiser.fit(real, NoiseSchedule.linear())
    v_out = (x.double().flatten(1) @ exact.eigenvectors).var(0)  # (D,)
    return float((v_out.sqrt() - exact.eigenvalues.sqrt()).square().sum())


def power_spectrum(x: Tensor) -> Tensor:
    """Mean power at each frequency, |Σ x_l·e^(−2πi·k·l/L)|²/L, over signals and channels. x: (N, C, L). Returns (L//2 + 1,) float64."""
    return torch.fft.rfft(x.double()).abs().square().mean((0, 1)) / x.shape[2]


def spectrum_distance(x: Tensor, real: Tensor) -> float:
    """The difference of two power spectra in decibels, 10·log₁₀ of their ratio: its root mean square over frequencies."""
    return float((10 * (power_spectrum(x) / power_spectrum(real)).log10()).square().mean().sqrt())
