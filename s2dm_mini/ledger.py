"""The ledger: L_0 against S²-DM and the controls, over samplers, steps and training seeds; one row a measurement.

    python -m s2dm_mini ledger train   --size cpu --setting s2dm10 --seed 0
    python -m s2dm_mini ledger sample  --size cpu --setting s2dm10 --seed 0 --sampler ddim
    python -m s2dm_mini ledger measure --size cpu --setting s2dm10 --seed 0 --sampler ddim

The Snakefile calls these three for whatever data/results/ledger-SIZE.csv lacks. Every network of a seed is fine-tuned from the same
start on the same images, timesteps and noise, and every network draws its samples from the same x_T: what differs between two rows of a
seed is the loss, and the difference is paired.
"""
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from . import checkpoints, metrics, results
from .arguments import check_integer, check_kind, check_name, check_types, shown
from .data import shapes
from .denoisers import Shrunk
from .evaluate import draw_watched, open_features, open_network
from .features import CLASSIFIER
from .files import sole_writer
from .losses import Denoiser, shrinkage
from .prediction import cifar10_eigenvalues, gaussian_variance
from .progress import bar, train_with_bar
from .samplers import SAMPLERS
from .schedule import SPACINGS, NoiseSchedule
from .train import TrainConfig, best_device, device_name

# Name → what the training changes. S²-DM^k has skip = k − 1; τ is 0.99 and the reading the released code's unless said otherwise.
SETTINGS: dict[str, dict] = {
    "l0": {"tau": 1.0},
    "s2dm2": {"skip": 1}, "s2dm10": {"skip": 9}, "s2dm50": {"skip": 49},
    "s2dm50-tau0.9": {"skip": 49, "tau": 0.9}, "s2dm50-tau0.999": {"skip": 49, "tau": 0.999},
    "s2dm50-expected": {"skip": 49, "reading": "expected"}, "s2dm50-shared": {"skip": 49, "reading": "shared"},
    "s2dm50-output": {"skip": 49, "reading": "output"},
    "l0-only-10": {"tau": 1.0, "only_steps": 10},  # the reviewers' baseline: trained only where a sampler of 10 steps looks
}


@dataclass(frozen=True)
class Group:
    """A network, what its ε is multiplied by, a sampler and some step counts: one line in a plot against steps."""

    setting: str = "l0"  # see SETTINGS
    seed: int = 0  # of the training
    scale: str = "none"  # none, s2dmK (closed form: s_t for skip K − 1, τ 0.99), or bX (Epsilon Scaling: ε divided by X)
    sampler: str = "ddim"
    spacing: str = "quadratic"
    steps: tuple[int, ...] = (10,)
    sampling_seed: int = 0

    def __post_init__(self):
        check_types(self)
        for name, known in (("setting", SETTINGS), ("sampler", SAMPLERS), ("spacing", SPACINGS)):
            check_name(name, getattr(self, name), known)
        schedule = NoiseSchedule.linear()
        scale_of(self.scale, schedule)
        for name in ("seed", "sampling_seed"):
            check_integer(name, getattr(self, name), 0)
        for steps in self.steps:
            check_integer("steps", steps, 1, schedule.T)

    def network_path(self, size: str, out: Path) -> Path:
        return out / size / "networks" / f"{self.setting}.{self.seed}" / "model.safetensors"

    def samples_path(self, size: str, steps: int, out: Path) -> Path:
        cell = f"{self.scale}.{self.sampler}.{self.spacing}.{self.sampling_seed}"
        return out / size / "samples" / f"{self.setting}.{self.seed}" / cell / f"{steps}.safetensors"

    @property
    def name(self) -> str:
        steps = "-".join(map(str, self.steps))
        return f"{self.setting}.{self.seed}.{self.scale}.{self.sampler}.{self.spacing}.{steps}.{self.sampling_seed}"

    @property
    def options(self) -> str:
        """Of the command line."""
        return (f"--setting {self.setting} --seed {self.seed} --scale {self.scale} --sampler {self.sampler} --spacing {self.spacing} "
                f"--steps {' '.join(map(str, self.steps))} --sampling-seed {self.sampling_seed}")


def scale_of(scale: str, schedule: NoiseSchedule) -> torch.Tensor | float | None:
    """What ε is multiplied by: None for `none`, (T,) for a closed form, one number for Epsilon Scaling."""
    check_kind("schedule", schedule, NoiseSchedule)
    if isinstance(scale, str):  # digits and nothing else, for names become parts of paths and of command lines
        if scale == "none":
            return None
        if re.fullmatch(r"s2dm[0-9]{1,6}", scale) and 2 <= int(scale[4:]) <= schedule.T:
            return shrinkage(schedule, int(scale[4:]) - 1, 0.99)
        if re.fullmatch(r"b[0-9]{1,6}(\.[0-9]{1,9})?", scale) and float(scale[1:]) > 0:
            return 1 / float(scale[1:])
    raise ValueError(f"scale must be none, s2dm and a whole number from 2 to {schedule.T} such as s2dm10, "
                     f"or b and a number such as b1.017, not {shown(scale)}.")


@dataclass(frozen=True)
class Part:
    """All combinations of these, for every training seed of the experiment."""

    settings: tuple[str, ...]
    samplers: tuple[str, ...] = ("ddim",)
    steps: tuple[int, ...] = (5, 10, 20)
    scales: tuple[str, ...] = ("none",)
    spacing: str = "quadratic"


@dataclass(frozen=True)
class Experiment:
    """A size of the ledger."""

    tune: TrainConfig  # of every network; seed and what SETTINGS say are filled in
    parts: tuple[Part, ...]  # most telling first
    seeds: tuple[int, ...] = (0, 1, 2)
    samples: int = 1_024  # of each group and step count: enough to extrapolate the distance in 256 features

    def groups(self, parts: int | None = None) -> list[Group]:
        """Every group of the first so many parts (all by default), most telling first."""
        return [Group(setting, seed, scale, sampler, part.spacing, part.steps)
                for part in self.parts[:parts] for seed in self.seeds for setting in part.settings for scale in part.scales
                for sampler in part.samplers]


_MAIN = ("l0", "s2dm10", "s2dm50")
_PAPER = ("l0", "s2dm2", "s2dm10", "s2dm50")
_ALL_SAMPLERS = ("ddim", "f-pndm", "tab-deis-3")
_CONTROLS = ("s2dm50-tau0.9", "s2dm50-tau0.999", "s2dm50-expected", "s2dm50-shared", "s2dm50-output", "l0-only-10")
_CLOSED = ("s2dm10", "s2dm50")
_SHAPES = TrainConfig(data="shapes", preset="tiny", start="tiny-shapes-l0", batch=32, learning_rate=1e-3, warmup=20, ema_decay=0.99,
                      images=1_600)
_NANO = TrainConfig(preset="nano", start="nano-cifar10-l0", batch=32, learning_rate=1.6e-4, warmup=50, ema_decay=0.99, precision="fp32",
                    images=9_600)
_COMPACT = TrainConfig(preset="compact", start="compact-cifar10-l0", batch=256, learning_rate=1e-4, warmup=50, ema_decay=0.999,
                       images=256_000)
SIZES = {
    # Seconds: it only shows whether the pipeline runs.
    "dry": Experiment(replace(_SHAPES, images=64), (Part(("l0", "s2dm10"), steps=(2, 3)), Part(("l0",), steps=(2,), scales=("s2dm10",))),
                      seeds=(0,), samples=16),
    # A CPU, a minute or two; networks and pictures are small enough to do it in a lesson.
    "quick": Experiment(_SHAPES, (Part(_MAIN, steps=(5, 10)), Part(("l0",), steps=(5, 10), scales=_CLOSED)), seeds=(0, 1), samples=512),
    # A CPU, a night.
    "cpu": Experiment(_NANO, (
        Part(_MAIN), Part(("l0",), scales=_CLOSED), Part(_MAIN, ("tab-deis-3",)), Part(_MAIN, ("f-pndm",), steps=(5, 10)),
        Part(_CONTROLS, steps=(10,)), Part(("s2dm2",)), Part(("l0",), scales=("b1.005", "b1.01", "b1.017")),
        Part(("l0",), steps=(10,), scales=("b1.035", "b1.05", "b1.07")), Part(_MAIN, steps=(50,)), Part(_MAIN, ("f-pndm",), steps=(20,)),
        Part(_MAIN, steps=(10, 20), spacing="uniform"), Part(("l0",), steps=(50,), scales=_CLOSED), Part(("s2dm2",), steps=(50,)),
        Part(_MAIN, ("tab-deis-3",), steps=(50,)), Part(_MAIN, ("f-pndm",), steps=(50,)),
        Part(("l0", "s2dm50"), ("ddpm",), steps=(50,)), Part(("s2dm50-tau0.9", "s2dm50-tau0.999", "s2dm50-shared"), steps=(20,)),
        Part(("s2dm2",), ("tab-deis-3", "f-pndm"), steps=(5, 10, 20, 50)),
    )),
    # One GPU.
    "full": Experiment(_COMPACT, (
        Part(_PAPER, _ALL_SAMPLERS, (5, 10, 20, 50, 100)), Part(("l0",), _ALL_SAMPLERS, (5, 10, 20, 50, 100), ("s2dm2", *_CLOSED)),
        Part(("l0",), steps=(5, 10, 20, 50), scales=("b1.005", "b1.01", "b1.017", "b1.025", "b1.035", "b1.05")),
        Part(_CONTROLS, steps=(10, 20, 50, 100)), Part(_MAIN, ("ddpm",), (50, 100)), Part(_MAIN, steps=(1000,)),
        Part(_MAIN, steps=(10, 20, 50, 100), spacing="uniform"),
    ), samples=10_000),
}
# What tells one measurement from another; the table never holds two rows that agree in all of these.
KEY = ("setting", "training_seed", "scale", "sampler", "spacing", "steps", "sampling_seed", "samples", "features_sha256")


def table_of(size: str) -> Path:
    return results.RESULTS / f"ledger-{size}.csv"


def rows_of(size: str, table: Path | None = None) -> list[dict[str, str]]:
    """The rows measured so far."""
    path = table or table_of(size)
    return results.read_rows(path) if path.exists() else []


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


def experiment_of(size: str) -> Experiment:
    check_name("size", size, SIZES)
    return SIZES[size]


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
                     "torch": torch.__version__, "commit": checkpoints.git_commit(), "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M")}
            checkpoints.write_tensors(path, {"pixels": pixels}, {"samples": facts})
    return [group.samples_path(size, steps, out) for steps in lacking]


def scaled(denoiser: Denoiser, scale: str, schedule: NoiseSchedule) -> Denoiser:
    """The denoiser with its ε multiplied as `scale` says."""
    factor = scale_of(scale, schedule)
    return denoiser if factor is None else Shrunk(denoiser, factor)


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
        if results.append_row(table or table_of(size), row, KEY):
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
        if SAMPLERS[group.sampler].order == 0 or factor is None:
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
    results.write_rows(table or results.RESULTS / f"predictions-{size}.csv", found)
    return found


def _reference(size: str, features) -> metrics.Reference:
    """What samples are compared with: CIFAR-10's training images, or as many shapes as can be looked at in seconds."""
    config = experiment_of(size).tune
    if config.data == "cifar10":
        return metrics.reference("cifar10-train", features)
    return metrics.reference(shapes(2_000, size=16, seed=1), features)
