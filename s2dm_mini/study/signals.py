"""Networks of signals fine-tuned with L_0 and with S²-DM from one start, and L_0 shrunk in closed form: rows of data/results/signals.csv.

The distance is that of the signals' own values, which `theory.gaussian.gaussian_distance` predicts; further columns hold the power spectrum
and the parameters of the generator that are recovered from the samples.
"""
from pathlib import Path

import torch
from torch import Tensor

from .. import checkpoints
from ..data import signals
from ..denoisers import GaussianDenoiser, Shrunk
from ..measure.draw import draw
from ..schedule import NoiseSchedule
from ..support.checks import check_name
from ..support.machine import open_device, stamp
from ..training.loop import train
from ..unet import UNet
from . import tables
from .plan import SETTINGS, fine_tuning

START = "wave-waves-l0"


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


def measures(x: Tensor, real: signals.Signals) -> dict[str, float]:
    """Distances of waves x (N, 1, L) from real ones.

    distance: along the principal directions; spectrum: decibels; residual: root mean square that the best fit leaves, median over x;
    rate, width, r, t: 1-Wasserstein distances of the recovered factors from the true ones, in their units.
    """
    from scipy.stats import wasserstein_distance

    fit = signals.fit_waves(x)
    return {"distance": direction_distance(x, real.pixels), "spectrum": spectrum_distance(x, real.pixels),
            "residual": float(fit.residual.median()),
            **{name: float(wasserstein_distance(fit.factors[name], real.factors[name])) for name in ("rate", "width", "r", "t")}}


def fine_tuned(setting: str, seed: int, images: int, device: str = "auto") -> UNet:
    """The shipped L_0 network of waves, fine-tuned with a setting; all settings of a seed see the same waves, t and ε₁."""
    config = fine_tuning("wave-waves", start=START, seed=seed, images=images, warmup=20, device=device)
    *_, record = train(SETTINGS[setting].training(config))
    return record.ema


def compare_signals(seed: int = 0, settings: tuple[str, ...] = ("s2dm10", "s2dm50"), images: int = 12_800, samples: int = 400,
                    steps: tuple[int, ...] = (5, 10, 20, 50), device: str = "auto", table: Path | None = None) -> list[dict]:
    """Fine-tune the network of waves with L_0 and with S²-DM, and measure both and the closed form.

    Args:
        seed: of the training and of the starting noise; several seeds give error bars
        settings: losses of study.plan.SETTINGS to compare with L_0
        images: number of waves that each network is fine-tuned on
        samples: number of waves drawn from each
        steps: numbers of DDIM steps, on the quadratic grid
        device: auto, cpu, cuda
        table: CSV file to append to; by default data/results/signals.csv
    """
    for setting in settings:
        check_name("settings", setting, SETTINGS)
    place = open_device(device)
    schedule, real, rows = NoiseSchedule.linear(), signals.waves(5_000, seed=1), []
    networks = {setting: fine_tuned(setting, seed, images, str(place)) for setting in ("l0", *settings)}
    closed = [(setting, "closed form", Shrunk(networks["l0"], SETTINGS[setting].shrinkage(schedule))) for setting in settings]
    start_hash = checkpoints.network_hash(checkpoints.load_pretrained(START))
    for setting, how, denoiser in (*((setting, "trained", network) for setting, network in networks.items()), *closed):
        for n in steps:
            x = torch.cat(list(draw(denoiser, samples, real.pixels.shape[1:], schedule, "ddim", n, seed=seed, device=place)))
            rows.append(tables.add("signals", {
                "start": START, "start_sha256": start_hash, "setting": setting, "how": how, "training_seed": seed, "images": images,
                **tables.sampling_facts(schedule, "ddim", "quadratic", n, samples, seed),
                **{name: round(value, 6) for name, value in measures(x, real).items()}, **stamp(place)}, table))
    return rows


def sentences(rows: list[dict]) -> str:
    """The rows of `compare_signals` in words."""
    return "\n".join(f"{row['setting']}, {row['how']}, {row['steps']:2} steps: distance {row['distance']:.4f}, "
                     f"spectrum {row['spectrum']:.2f} dB, residual {row['residual']:.4f}" for row in rows)
