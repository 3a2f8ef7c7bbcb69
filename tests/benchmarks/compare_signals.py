"""Fine-tunes the network of waves with L_0 and with S²-DM, and measures both and L_0 shrunk in closed form, for signals.csv.

    python tests/benchmarks/compare_signals.py --seed 0

The distance is that of the signals' own values, which `theory.gaussian.gaussian_distance` predicts; further columns hold the power spectrum
and the parameters of the generator that are recovered from the samples.
"""
from pathlib import Path

import torch
import tyro
from scipy.stats import wasserstein_distance
from torch import Tensor
from zoo import WAVE

from s2dm_mini import NoiseSchedule, Shrunk, checkpoints, train
from s2dm_mini.data import signals
from s2dm_mini.measure.draw import draw
from s2dm_mini.study import tables
from s2dm_mini.study.plan import SETTINGS, fine_tuning
from s2dm_mini.study.signals import direction_distance, spectrum_distance
from s2dm_mini.support.checks import check_name
from s2dm_mini.support.machine import open_device, stamp

START = "wave-waves-l0"


def measures(x: Tensor, real: signals.Signals) -> dict[str, float]:
    """Distances of waves x (N, 1, L) from real ones.

    distance: along the principal directions; spectrum: decibels; residual: root mean square that the best fit leaves, median over x;
    rate, width, r, t: 1-Wasserstein distances of the recovered factors from the true ones, in their units.
    """
    fit = signals.fit_waves(x)
    return {"distance": direction_distance(x, real.pixels), "spectrum": spectrum_distance(x, real.pixels),
            "residual": float(fit.residual.median()),
            **{name: float(wasserstein_distance(fit.factors[name], real.factors[name])) for name in ("rate", "width", "r", "t")}}


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
    place, schedule, real, rows, networks = open_device(device), NoiseSchedule.linear(), signals.waves(5_000, seed=1), [], {}
    tune = fine_tuning(WAVE, start=START, seed=seed, images=images, warmup=20, device=str(place))
    for setting in ("l0", *settings):  # all see the same waves, t and ε₁
        *_, record = train(SETTINGS[setting].training(tune))
        networks[setting] = record.ema
    closed = [(setting, "closed form", Shrunk(networks["l0"], SETTINGS[setting].shrinkage(schedule))) for setting in settings]
    start_hash = checkpoints.network_hash(checkpoints.load_pretrained(START))
    for setting, how, denoiser in (*((setting, "trained", network) for setting, network in networks.items()), *closed):
        for n in steps:
            x = torch.cat(list(draw(denoiser, samples, real.pixels.shape[1:], schedule, "ddim", n, seed=seed, device=place)))
            row = tables.add("signals", {
                "start": START, "start_sha256": start_hash, "setting": setting, "how": how, "training_seed": seed, "images": images,
                **tables.sampling_facts(schedule, "ddim", "quadratic", n, samples, seed),
                **{name: round(value, 6) for name, value in measures(x, real).items()}, **stamp(place)}, table)
            print(f"{setting}, {how}, {n:2} steps: distance {row['distance']:.4f}, spectrum {row['spectrum']:.2f} dB, "
                  f"residual {row['residual']:.4f}", flush=True)
            rows.append(row)
    return rows


if __name__ == "__main__":
    tyro.cli(compare_signals)
