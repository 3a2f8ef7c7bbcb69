"""What S²-DM's loss does to signals: networks fine-tuned with it and with L_0 from one start, measured; rows of data/results/signals.csv.

    python -m s2dm_mini compare-signals --seed 0

No features of pictures are needed: the distance is that of the values themselves, which `prediction.gaussian_distance` foresees; beside
it stand the power spectrum, and which parameters of the generator the samples have.
"""
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from .. import checkpoints
from ..data import signals
from ..denoisers import GaussianDenoiser, Shrunk
from ..losses import shrinkage
from ..measure.draw import draw
from ..schedule import NoiseSchedule
from ..support.machine import device_name, git_commit, open_device
from ..training.loop import train
from ..unet import UNet
from . import tables
from .plan import TWINS
from .zoo import SIZES

START = "wave-waves-l0"


def direction_distance(x: Tensor, real: Tensor) -> float:
    """Σ(√v_out − √v)² over the principal directions of the real signals, v and v_out the variances along them of real and x, (N, C, L).

    What `prediction.gaussian_distance` predicts, measured. It comes out too large by about Σv/2N where x are N.
    """
    exact = GaussianDenoiser.fit(real, NoiseSchedule.linear())
    v_out = (x.double().flatten(1) @ exact.eigenvectors).var(0)  # (D,)
    return float((v_out.sqrt() - exact.eigenvalues.sqrt()).square().sum())


def power_spectrum(x: Tensor) -> Tensor:
    """Mean power at each frequency, |Σ x_l·e^(−2πi·k·l/L)|²/L, over signals and channels. x: (N, C, L). Returns (L//2 + 1,) float64."""
    return torch.fft.rfft(x.double()).abs().square().mean((0, 1)) / x.shape[2]


def spectrum_distance(x: Tensor, real: Tensor) -> float:
    """How far two sets' power spectra are apart, in decibels: the root mean square, over frequencies, of 10·log₁₀ of their ratio."""
    return float((10 * (power_spectrum(x) / power_spectrum(real)).log10()).square().mean().sqrt())


def wasserstein(a: Tensor, b: Tensor) -> float:
    """1-Wasserstein distance of two samples of a number, ∫|F_a − F_b|: how far values must be moved on average. a: (N,), b: (M,)."""
    points = torch.cat([a, b]).sort().values
    below = [torch.searchsorted(sample.sort().values, points[:-1], right=True) / len(sample) for sample in (a, b)]  # F_a, F_b
    return float(((below[0] - below[1]).abs() * points.diff()).sum())


def measures(x: Tensor, real: signals.Signals) -> dict[str, float]:
    """How far waves x (N, 1, L) are from real ones.

    distance: along the principal directions; spectrum: decibels; residual: median over x of what the best fit leaves, root mean square;
    rate, width, r, t: 1-Wasserstein distances of the recovered factors to those drawn, in their units.
    """
    fit = signals.fit_waves(x)
    return {"distance": direction_distance(x, real.pixels), "spectrum": spectrum_distance(x, real.pixels),
            "residual": float(fit.residual.median()),
            **{name: wasserstein(fit.factors[name], real.factors[name]) for name in ("rate", "width", "r", "t")}}


def fine_tuned(setting: str, seed: int, images: int, device: str = "auto") -> UNet:
    """The shipped L_0 network of waves, trained on with a setting of `zoo.TWINS`; settings of one seed see the same waves, t and ε₁."""
    skip, tau = TWINS[setting]
    tune = SIZES["cpu"]["wave-waves"].tune
    *_, record = train(replace(tune, start=START, skip=skip, tau=tau, seed=seed, images=images, warmup=20, device=device))
    return record.ema


def compare_signals(seed: int = 0, settings: tuple[str, ...] = ("s2dm10", "s2dm50"), images: int = 12_800, samples: int = 400,
                    steps: tuple[int, ...] = (5, 10, 20, 50), spacing: str = "quadratic", device: str = "auto",
                    table: Path | None = None) -> list[dict]:
    """Fine-tune with L_0 and each setting from one start, draw from all and from L_0 shrunk in closed form, and append a row for each.

    Everything of one seed starts from the same noise. Returns the rows.
    """
    place = open_device(device)
    schedule, real, rows = NoiseSchedule.linear(), signals.waves(5_000, seed=1), []
    networks = {setting: fine_tuned(setting, seed, images, str(place)) for setting in ("l0", *settings)}
    denoisers = {(setting, "trained"): network for setting, network in networks.items()}
    denoisers |= {(setting, "closed form"): Shrunk(networks["l0"], shrinkage(schedule, *TWINS[setting])) for setting in settings}
    for (setting, how), denoiser in denoisers.items():
        for n in steps:
            x = torch.cat(list(draw(denoiser, samples, real.pixels.shape[1:], schedule, "ddim", n, spacing, seed=seed, device=place)))
            rows.append({
                "start": START, "start_sha256": checkpoints.network_hash(checkpoints.load_pretrained(START)),
                "setting": setting, "how": how, "training_seed": seed, "images": images, "sampler": "ddim",
                "spacing": spacing, "steps": n, "samples": samples,
                "sampling_seed": seed, **{name: round(value, 6) for name, value in measures(x, real).items()},
                "device": device_name(place), "torch": torch.__version__, "commit": git_commit(),
                "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M")})
            tables.append_row(table or tables.RESULTS / "signals.csv", rows[-1])
    return rows
