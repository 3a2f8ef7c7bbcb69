"""The ledger, data/results/ledger-SIZE.csv: L_0, S²-DM and controls over samplers, step counts and training seeds; a row a measurement.

    python -m s2dm_mini ledger train   --size cpu --setting s2dm10 --seed 0
    python -m s2dm_mini ledger sample  --size cpu --setting s2dm10 --seed 0 --sampler ddim
    python -m s2dm_mini ledger measure --size cpu --setting s2dm10 --seed 0 --sampler ddim

The Snakefile runs these stages for all rows that the table lacks. The networks of a seed are trained from one start on the same images,
timesteps and noise, and all networks draw samples from the same x_T: two rows of a seed differ only in the loss, and are paired.
"""
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from .. import checkpoints
from ..data.shapes import shapes
from ..measure import metrics
from ..measure.features import features_hash, open_features
from ..measure.references import open_reference, reference
from ..samplers import SAMPLERS
from ..schedule import NoiseSchedule
from ..support.files import sole_writer
from ..support.machine import device_name
from ..support.progress import bar
from ..theory.gaussian import cifar10_eigenvalues, gaussian_variance
from ..theory.scales import scale_of, scaled
from ..training.config import DIFFUSERS, TrainConfig
from ..training.watched import train_with_bar
from ..unet import for_sampling
from . import tables
from .evaluate import Bench
from .plan import SETTINGS, Group, experiment_of

# The columns that identify a measurement: the table never holds two rows that agree in all of them.
KEY = ("setting", "training_seed", "scale", "sampler", "spacing", "steps", "sampling_seed", "samples", "features_sha256")


def run_stage(stage: Literal["train", "sample", "measure"], group: Group, size: str = "quick", out: Path = Path("runs/ledger"),
              device: str = "auto", table: Path | None = None, pipeline: str | None = None) -> str | None:
    """Run one stage of the ledger; `snakemake --cores 2 --config size=quick` runs all that are missing.

    Args:
        stage: train a network, sample from it, or measure the samples
        group: the network, its scale and its sampler
        size: dry (does it run?), quick (a CPU, minutes, shapes), cpu (a CPU, a night, fine-tuned on CIFAR-10), scratch (a CPU, some
            nights, trained on it from nothing), full (one GPU, CIFAR-10), hub (a pipeline of diffusers, without training)
        out: folder for networks and samples
        device: auto, cpu, cuda
        table: CSV file to append to; by default data/results/ledger-SIZE.csv
        pipeline: for size hub, the folder or the hub's name of a pipeline of CIFAR-10, in place of google/ddpm-cifar10-32
    """
    if stage == "train":
        path = train_network(size, group, out, device, pipeline)
        if size != "hub":
            return None
        for name in experiment_of(size).features:  # now, so that nothing is sampled in vain
            open_reference("cifar10", 32, open_features(name, device))
        return cost(size, path, device, table)
    if stage == "sample":
        return f"{len(sample_group(size, group, out, device, table))} sets of samples in {out}"
    return "\n".join(f"{row['setting']}, seed {row['training_seed']}, {row['sampler']}, {row['steps']} steps: "
                     f"Fréchet distance {row['fd']:.3f} in {row['features']} features" for row in measure_group(size, group, out, table))


def table_of(size: str) -> Path:
    """The ledger's file."""
    return tables.RESULTS / f"ledger-{size}.csv"


def rows_of(size: str, table: Path | None = None) -> list[dict[str, str]]:
    """The rows measured so far."""
    path = table or table_of(size)
    return tables.read_rows(path) if path.exists() else []


def missing(size: str, table: Path | None = None, parts: int | None = None) -> list[Group]:
    """The groups of a size, or of its first `parts` parts, with only the step counts that the table lacks."""
    return [group for group in (_lacking(size, group, table) for group in experiment_of(size).groups(parts)) if group.steps]


def _lacking(size: str, group: Group, table: Path | None) -> Group:
    experiment, key = experiment_of(size), (group.setting, group.seed, group.scale, group.sampler, group.spacing)
    have = {(*(row[column] for column in KEY[:-1]), row[mark]) for row in rows_of(size, table) for mark in ("features", KEY[-1])}

    def measured(steps: int, name: str) -> bool:
        return (*map(str, (*key, steps, group.sampling_seed, experiment.samples)), features_hash(name) or name) in have

    return replace(group, steps=tuple(n for n in group.steps if not all(measured(n, name) for name in experiment.features)))


def train_network(size: str, group: Group, out: Path, device: str = "auto", pipeline: str | None = None) -> Path:
    """Train the network of a group, or go on with it; returns its file. Raises KeyboardInterrupt if stopped before the end.

    pipeline: for a size without training, its network, if not that of the plan.
    """
    path, training = group.network_path(size, out), experiment_of(size).training
    if isinstance(training, TrainConfig):
        config = SETTINGS[group.setting].training(training, seed=group.seed, out=path.parent, device=device)
        train_to_end(config, f"{group.setting}, seed {group.seed}")
    else:
        _take_pipeline(pipeline or training, path)
    return path


def train_to_end(config: TrainConfig, title: str) -> None:
    """Begin a training, or go on with the one in config.out, until its budget is spent. Raises KeyboardInterrupt if stopped before."""
    begun = (Path(config.out) / "state.safetensors").exists()
    train_with_bar(config, resume=begun, title=title)


def _take_pipeline(name: str, path: Path) -> None:
    """Write the network of a pipeline of diffusers where a trained one would be."""
    if path.exists() and (taken := checkpoints.load_model(path)[1]["pipeline"]) != name:
        raise ValueError(f"{path} is the network of {taken}, not of {name}: give another folder with --out.")
    network, schedule = checkpoints.interop().open_pipeline(name, NoiseSchedule.linear().T)
    config = {"data": "cifar10", "preset": DIFFUSERS, "seed": 0, "tau": 1.0, "skip": 0, "reading": "independent", "T": schedule.T}
    record = {"pipeline": name, "data": "cifar10-train", "config": config, **checkpoints.schedule_entry(schedule)}
    checkpoints.save_model(path, network, record, dtype=torch.float32)


def cost(size: str, path: Path, device: str = "auto", table: Path | None = None) -> str:
    """How long the sampling that the table lacks would take, from the time of one batch."""
    bench, samples = Bench(str(path), device), experiment_of(size).samples
    x, t = torch.zeros(8, *bench.config.shape, device=bench.place), torch.full((8,), 500, device=bench.place)
    with torch.no_grad():
        bench.network(x, t)
        start = time.perf_counter()
        bench.network(x, t).sum().item()
    seconds = (time.perf_counter() - start) / len(x)
    evaluations = sum(samples * SAMPLERS[group.sampler].nfe(n) for group in missing(size, table) for n in group.steps)
    parameters = sum(p.numel() for p in bench.network.parameters())
    return (f"{evaluations:,} evaluations of {parameters:,} parameters, {1000 * seconds:.1f} ms each "
            f"on {device_name(bench.place)}: about {evaluations * seconds / 3600:,.1f} hours. Stopped, it goes on where it was.")


def sample_group(size: str, group: Group, out: Path, device: str = "auto", table: Path | None = None) -> list[Path]:
    """Draw the samples that the table lacks: a file of pixels (N, C, H, W) uint8 for each step count; existing files are kept."""
    bench = Bench(str(group.network_path(size, out)), device)
    denoiser = scaled(for_sampling(bench.network), group.scale, bench.schedule)
    paths = {steps: group.samples_path(size, steps, out) for steps in _lacking(size, group, table).steps}
    for steps, path in paths.items():
        with sole_writer(path, wait=True):
            if not path.exists():
                pixels, drawn = bench.draw(experiment_of(size).samples, group.sampler, steps, group.spacing, seed=group.sampling_seed,
                                           denoiser=denoiser)
                facts = {**bench.facts, "setting": group.setting, "scale": group.scale, **drawn}
                checkpoints.write_tensors(path, {"pixels": pixels}, {"samples": facts})
    return list(paths.values())


def measure_group(size: str, group: Group, out: Path, table: Path | None = None) -> Iterator[dict]:
    """Measure the samples of a group that the table lacks, append a row for each, and yield it."""
    experiment = experiment_of(size)
    judges = [open_features(name) for name in experiment.features]
    # CIFAR-10's training images, or 2,000 shapes, whose features take seconds.
    references = [open_reference("cifar10", 32, features) if experiment.data == "cifar10" else
                  reference(shapes(2_000, size=16, seed=1), features) for features in judges]
    for steps in _lacking(size, group, table).steps:
        tensors, header = checkpoints.read_tensors(group.samples_path(size, steps, out))
        pixels = tensors["pixels"]
        for features, real in zip(judges, references, strict=True):
            x = features(pixels)
            yield tables.add("ledger", {
                **header["samples"], "features": features.name, "features_sha256": features.hash, **tables.distances(real, x),
                # The distance without one block of x_T at a time, the same blocks for every network: for the error over x_T.
                "fd_left_out": " ".join(f"{distance:.6g}" for distance in metrics.frechet_left_out(real.moments, x)),
                # Summed over the pixels, in units of −1..1, as the Gaussian prediction is.
                "pixel_variance": round(float((pixels.double() / 127.5).var(0).sum()), 3),
                "command": f"python -m s2dm_mini ledger measure --size {size} {group.options}"}, table or table_of(size), KEY)


def theoretical_scale(group: Group, schedule: NoiseSchedule) -> torch.Tensor | None:
    """The factor of a group's ε against L_0's, (T,) float64: that of its loss's minimiser times the scale it is sampled with.

    None for the reading `output`, which has no closed form. Training only at a sampler's timesteps leaves the minimiser there unchanged.
    """
    trained, factor = SETTINGS[group.setting].shrinkage(schedule), scale_of(group.scale, schedule)
    return trained if trained is None or factor is None else trained * factor


def predict(size: str = "cpu", table: Path | None = None) -> list[dict]:
    """Predict every cell of the ledger from theory, before anything is measured.

    The data are taken as a Gaussian with CIFAR-10's covariance. Cells of samplers that add noise, and of losses whose minimiser has no
    closed form, are left out.

    Args:
        size: of the ledger, quick, cpu, scratch or full
        table: CSV file to write; by default data/results/predictions-SIZE.csv
    """
    schedule, v, found = NoiseSchedule.linear(), cifar10_eigenvalues(), []
    cells = dict.fromkeys(replace(group, seed=0, sampling_seed=0, steps=(n,))
                          for group in experiment_of(size).groups() for n in group.steps)
    for group in bar("predicting", iterable=list(cells)):
        factor, [steps] = theoretical_scale(group, schedule), group.steps
        if not SAMPLERS[group.sampler].deterministic or factor is None:
            continue
        l0, ours = (gaussian_variance(v, schedule, group.sampler, steps, group.spacing, scale) for scale in (1.0, factor))
        distance_l0, distance = (float((out.sqrt() - v.sqrt()).square().sum()) for out in (l0, ours))
        found.append({"setting": group.setting, "scale": group.scale, "sampler": group.sampler, "spacing": group.spacing, "steps": steps,
                      "distance_l0": f"{distance_l0:.6g}", "distance": f"{distance:.6g}", "change": f"{distance / distance_l0 - 1:.5f}",
                      "variance_l0": f"{float(l0.sum()):.6g}", "variance": f"{float(ours.sum()):.6g}",
                      "variance_change": f"{float(ours.sum() / l0.sum()) - 1:.5f}"})
    tables.write_rows(table or tables.RESULTS / f"predictions-{size}.csv", found)
    return found
