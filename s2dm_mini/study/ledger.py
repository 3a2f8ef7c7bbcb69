"""The ledger: L_0 against S²-DM and the controls, over samplers, steps and training seeds; one row a measurement.

    python -m s2dm_mini ledger train   --size cpu --setting s2dm10 --seed 0
    python -m s2dm_mini ledger sample  --size cpu --setting s2dm10 --seed 0 --sampler ddim
    python -m s2dm_mini ledger measure --size cpu --setting s2dm10 --seed 0 --sampler ddim

The Snakefile calls these three for whatever data/results/ledger-SIZE.csv lacks. Every network of a seed is fine-tuned from the same
start on the same images, timesteps and noise, and every network draws its samples from the same x_T: what differs between two rows of a
seed is the loss, and the difference is paired.
"""
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from .. import checkpoints
from ..checkpoints import open_network
from ..data.shapes import shapes
from ..losses import shrinkage
from ..measure import metrics
from ..measure.draw import draw_watched
from ..measure.features import CLASSIFIER, open_features
from ..measure.references import Reference, reference
from ..samplers import SAMPLERS
from ..schedule import NoiseSchedule
from ..support.files import sole_writer
from ..support.machine import best_device, device_name, git_commit
from ..support.progress import bar
from ..theory.gaussian import cifar10_eigenvalues, gaussian_variance
from ..theory.scales import scale_of, scaled
from ..training.watched import train_with_bar
from . import tables
from .plan import SETTINGS, Group, experiment_of

# What tells one measurement from another; the table never holds two rows that agree in all of these.
KEY = ("setting", "training_seed", "scale", "sampler", "spacing", "steps", "sampling_seed", "samples", "features_sha256")


def table_of(size: str) -> Path:
    return tables.RESULTS / f"ledger-{size}.csv"


def rows_of(size: str, table: Path | None = None) -> list[dict[str, str]]:
    """The rows measured so far."""
    path = table or table_of(size)
    return tables.read_rows(path) if path.exists() else []


def missing(size: str, table: Path | None = None, parts: int | None = None) -> list[Group]:
    """The groups of a size, or of its first so many parts, with only the step counts that the table lacks."""
    experiment = experiment_of(size)
    lacking = [replace(group, steps=_lacking(size, group, table)) for group in experiment.groups(parts)]
    return [group for group in lacking if group.steps]


def _lacking(size: str, group: Group, table: Path | None) -> tuple[int, ...]:
    have = {tuple(row[column] for column in KEY) for row in rows_of(size, table)}
    rest = (experiment_of(size).samples, checkpoints.manifest()[CLASSIFIER]["sha256"][:16])
    key = (group.setting, group.seed, group.scale, group.sampler, group.spacing)
    return tuple(n for n in group.steps if tuple(map(str, (*key, n, group.sampling_seed, *rest))) not in have)


def train_network(size: str, group: Group, out: Path, device: str = "auto") -> bool:
    """Train the network of a group, or go on with it; False if stopped on the way."""
    folder = group.network_path(size, out).parent
    config = replace(experiment_of(size).tune, **{"tau": 0.99, **SETTINGS[group.setting]}, seed=group.seed, out=folder, device=device)
    resume = (folder / "state.safetensors").exists()
    return not train_with_bar(config, resume, title=f"{group.setting}, seed {group.seed}").stopped


def sample_group(size: str, group: Group, out: Path, device: str = "auto", table: Path | None = None) -> list[Path]:
    """Draw the samples that the table lacks, one file of pixels (N, C, H, W) uint8 for each step count; what is there is kept."""
    place, experiment = torch.device(best_device() if device == "auto" else device), experiment_of(size)
    network, record = open_network(str(group.network_path(size, out)), place)
    schedule = checkpoints.schedule_of(record)
    # In full precision on a GPU too (no `for_sampling`): the effects to be measured are as small as the rounding of bf16.
    denoiser, hashed, lacking = scaled(network, group.scale, schedule), checkpoints.network_hash(network), _lacking(size, group, table)
    shape = (network.config.image_channels, network.config.image_size, network.config.image_size)
    for steps in lacking:
        path = group.samples_path(size, steps, out)
        with sole_writer(path, wait=True):
            if path.exists():
                continue
            start = time.perf_counter()
            pixels = draw_watched(f"{group.setting}, seed {group.seed}, {steps} steps", denoiser, experiment.samples, shape, schedule,
                                  group.sampler, steps, group.spacing, seed=group.sampling_seed, device=place)
            facts = {"setting": group.setting, "skip": record["config"]["skip"], "tau": record["config"]["tau"],
                     "reading": record["config"]["reading"], "data": record["data"], "training_seed": group.seed,
                     "images_seen": checkpoints.images_seen(record), "network_sha256": hashed, "scale": group.scale,
                     "sampler": group.sampler, "spacing": group.spacing, "steps": steps,
                     "nfe": SAMPLERS[group.sampler].nfe(len(schedule.timesteps(steps, group.spacing))), "samples": len(pixels),
                     "sampling_seed": group.sampling_seed, "seconds": round(time.perf_counter() - start, 2), "device": device_name(place),
                     "torch": torch.__version__, "commit": git_commit(), "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M")}
            checkpoints.write_tensors(path, {"pixels": pixels}, {"samples": facts})
    return [group.samples_path(size, steps, out) for steps in lacking]


def measure_group(size: str, group: Group, out: Path, table: Path | None = None) -> Iterator[dict]:
    """Measure the samples of a group that the table lacks, append a row for each, and yield it."""
    features = open_features("classifier")
    real = _reference(size, features)
    for steps in _lacking(size, group, table):
        tensors, header = checkpoints.read_tensors(group.samples_path(size, steps, out))
        pixels, x = tensors["pixels"], features(tensors["pixels"])
        kid, kid_deviation = metrics.kernel_distance(real.features, x)
        precision, recall = metrics.precision_recall(real.features, x)
        enough = len(x) >= 4 * x.shape[1]
        row = {
            **header["samples"], "features": features.name, "features_sha256": features.hash,
            "fd": round(metrics.frechet_distance(real.moments, x), 5),
            # Without one block of x_T at a time, the same of every network: how far the distance depends on which x_T were drawn.
            "fd_left_out": " ".join(f"{distance:.5f}" for distance in metrics.frechet_left_out(real.moments, x)),
            "fd_infinite": round(metrics.frechet_distance_infinite(real.moments, x), 5) if enough else float("nan"),
            "kid": round(kid, 7), "kid_deviation": round(kid_deviation, 7), "precision": round(precision, 4), "recall": round(recall, 4),
            # Summed over the pixels, in units of −1..1: what the Gaussian prediction speaks of.
            "pixel_variance": round(float((pixels.double() / 127.5).var(0).sum()), 3),
            "command": f"python -m s2dm_mini ledger measure --size {size} {group.options}",
        }
        if tables.append_row(table or table_of(size), row, KEY):
            yield row


def theoretical_scale(group: Group, schedule: NoiseSchedule) -> torch.Tensor | None:
    """What theory says a group's ε is, compared with L_0's: its loss's minimiser times the scale it is sampled with. (T,) float64.

    None where there is no closed form (the reading `output`). Training at a sampler's own timesteps only changes no minimiser there.
    """
    loss = {"skip": 9, "tau": 0.99, "reading": "independent"} | SETTINGS[group.setting]
    if loss["reading"] == "output":
        return None
    trained = shrinkage(schedule, loss["skip"], loss["tau"], loss["reading"])
    factor = scale_of(group.scale, schedule)
    return trained if factor is None else trained * factor


def predict(size: str, table: Path | None = None) -> list[dict]:
    """What the Gaussian with CIFAR-10's own covariance foresees for every cell of a size's plan; written to
    data/results/predictions-SIZE.csv, which is to be done before anything is measured. Left out: samplers that add noise, and losses
    whose minimiser has no closed form."""
    schedule, v, seen, found = NoiseSchedule.linear(), cifar10_eigenvalues(), set(), []
    for group in bar("predicting", iterable=experiment_of(size).groups()):
        factor = theoretical_scale(group, schedule)
        if not SAMPLERS[group.sampler].deterministic or factor is None:
            continue
        for steps in group.steps:
            where = (group.sampler, steps, group.spacing)
            if (group.setting, group.scale, *where) in seen:
                continue
            seen.add((group.setting, group.scale, *where))
            l0, ours = (gaussian_variance(v, schedule, *where, scale) for scale in (1.0, factor))
            distance_l0, distance = (float((out.sqrt() - v.sqrt()).square().sum()) for out in (l0, ours))
            found.append({"setting": group.setting, "scale": group.scale, "sampler": group.sampler, "spacing": group.spacing,
                          "steps": steps, "distance_l0": f"{distance_l0:.6g}", "distance": f"{distance:.6g}",
                          "change": f"{distance / distance_l0 - 1:.5f}",
                          "variance_l0": f"{float(l0.sum()):.6g}", "variance": f"{float(ours.sum()):.6g}",
                          "variance_change": f"{float(ours.sum() / l0.sum()) - 1:.5f}"})
    tables.write_rows(table or tables.RESULTS / f"predictions-{size}.csv", found)
    return found


def _reference(size: str, features) -> Reference:
    """What samples are compared with: CIFAR-10's training images, or as many shapes as can be looked at in seconds."""
    config = experiment_of(size).tune
    if config.data == "cifar10":
        return reference("cifar10-train", features)
    return reference(shapes(2_000, size=16, seed=1), features)
