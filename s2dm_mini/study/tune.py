"""Fit the scale of ε to a network, a sampler and a number of steps: no training, a few dozen small sets of samples.

    python -m s2dm_mini tune nano-cifar10-l0 --sampler ddim --steps 10

ε is divided by the straight line λ_t of `scales`, which says why. What is minimised is the Fréchet distance of a small set of samples.
All candidates start from the same x_T, so that the distance is a smooth function of the line's two ends, and its excess on few samples,
which hardly depends on them, drops out of the comparison. What the search finds, first among constants, then from the best of them
among lines, is measured on seeds that it has not seen.
"""
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from .. import checkpoints
from ..checkpoints import open_network
from ..denoisers import Shrunk
from ..measure import metrics
from ..measure.draw import draw
from ..measure.features import open_features
from ..measure.references import open_reference
from ..samplers import SAMPLERS
from ..support.machine import device_name, git_commit, open_device
from ..theory.scales import fit_line, line, scale_of
from . import tables


def tune(checkpoint: str, sampler: str = "ddim", steps: int = 10, spacing: str = "quadratic", samples: int = 512, seed: int = 100,
         held_out: int = 5, evaluations: int = 24, against: tuple[str, ...] = ("s2dm50",), features: str = "classifier",
         device: str = "auto", table: Path | None = None) -> list[dict]:
    """Fit λ_t to a checkpoint and measure it on other seeds. Appends each measurement to `table` (data/results/tune.csv); returns them.

    The search draws `samples` images from `seed` for each of its `evaluations` candidates. Then no scaling, the best constant, the best
    line and the scales in `against` (names as in the ledger: s2dm50, b1.017) draw as many from each of the `held_out` seeds after it;
    `summary` puts these together. With fewer samples than some thousand all distances are too large, by about the same: believe the
    changes. Raises ValueError for fewer than two held-out seeds.
    """
    from tqdm import tqdm

    if held_out < 2:
        raise ValueError(f"held_out must be at least 2, for there to be an error bar, not {held_out}.")
    commit, place = git_commit(), open_device(device)
    network, record = open_network(checkpoint, place)
    schedule, extract = checkpoints.schedule_of(record), open_features(features, place)
    given = {name: scale_of(name, schedule) for name in against}
    size, channels = network.config.image_size, network.config.image_channels
    real = open_reference(record["config"]["data"], size, extract)
    command = (f"python -m s2dm_mini tune {checkpoint} --sampler {sampler} --steps {steps} --spacing {spacing} --samples {samples} "
               f"--seed {seed} --held-out {held_out} --evaluations {evaluations} --against {' '.join(against)}").rstrip()
    rows, bar = [], tqdm(total=evaluations + held_out * (3 + len(given)), unit=" sets of samples", desc=f"tuning {checkpoint}")

    def measure(role: str, name: str, scale: Tensor | float, sampling_seed: int) -> float:
        start = time.perf_counter()
        pixels = torch.cat(list(draw(Shrunk(network, scale), samples, (channels, size, size), schedule, sampler, steps, spacing,
                                     seed=sampling_seed, device=place)))
        seconds, x = time.perf_counter() - start, extract(pixels)
        first, last = (1 / torch.as_tensor(scale, dtype=torch.float64).expand(schedule.T)[[0, -1]]).tolist()
        row = {
            "checkpoint": checkpoint, "network_sha256": checkpoints.network_hash(network), "sampler": sampler, "spacing": spacing,
            "steps": steps, "nfe": SAMPLERS[sampler].nfe(len(schedule.timesteps(steps, spacing))), "role": role, "scale": name,
            "lambda_first": round(first, 5), "lambda_last": round(last, 5), "samples": samples, "sampling_seed": sampling_seed,
            "fd": round(metrics.frechet_distance(real.moments, x), 5), "kid": round(metrics.kernel_distance(real.features, x)[0], 7),
            "features": extract.name, "features_sha256": extract.hash, "seconds": round(seconds, 2), "device": device_name(place),
            "torch": torch.__version__, "commit": commit, "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), "command": command,
        }
        tables.append_row(table or tables.RESULTS / "tune.csv", row)
        rows.append(row)
        bar.set_postfix_str(f"λ {first:.4f} … {last:.4f}: {row['fd']:.3f}", refresh=False)
        bar.update()
        return row["fd"]

    fit = fit_line(lambda scale: measure("search", "line", scale, seed), schedule.T, evaluations)
    scales = {"none": 1.0, "constant": line(*fit.constant, schedule.T), "line": line(*fit.line, schedule.T), **given}
    for held_out_seed in range(seed + 1, seed + 1 + held_out):
        for name, scale in scales.items():
            measure("held out", name, scale, held_out_seed)
    bar.close()
    return rows


@dataclass(frozen=True)
class Summary:
    """What a scale comes to on the held-out seeds: means, and standard errors of these means over the seeds."""

    scale: str
    lambda_first: float
    lambda_last: float
    fd: float
    fd_error: float
    fd_change: float  # against no scaling, paired by seed; −0.1 is 10 % better
    fd_change_error: float
    kid: float
    kid_error: float
    kid_change: float
    kid_change_error: float


def summary(rows: list[dict]) -> list[Summary]:
    """The held-out rows of one run of `tune`, as returned or as read from the table, put together scale by scale."""
    held_out: dict[str, dict[int, dict]] = {}  # scale → seed → row
    for row in rows:
        if row["role"] == "held out":
            held_out.setdefault(row["scale"], {})[int(row["sampling_seed"])] = row
    seeds = set.intersection(*map(set, held_out.values()))  # all of them, unless the run was stopped in the midst of a seed
    found = []
    for name, of_scale in held_out.items():
        numbers = [float(of_scale[min(seeds)][column]) for column in ("lambda_first", "lambda_last")]
        for measure in ("fd", "kid"):
            values, base = (torch.tensor([float(part[seed][measure]) for seed in sorted(seeds)]) for part in (of_scale, held_out["none"]))
            for quantity in (values, values / base - 1):
                numbers += [float(quantity.mean()), float(quantity.std() / len(quantity) ** 0.5)]
        found.append(Summary(name, *numbers))
    return found
