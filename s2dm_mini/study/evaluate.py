"""A network on the bench; its distance from real images (data/results/evaluations.csv), and a picture of its samples."""
import io
import time
from collections.abc import Iterable
from math import isnan
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..checkpoints import images_seen, network_hash, open_network, schedule_of
from ..denoisers import Denoiser
from ..measure.draw import draw, watched
from ..measure.features import OFFLINE, Features, open_features
from ..measure.references import Reference, open_reference
from ..samplers import SAMPLERS
from ..support.checks import require
from ..support.files import write_whole
from ..support.machine import open_device, stamp
from ..unet import for_sampling
from . import tables

MAX_DOTS = 100_000_000  # of a picture of samples


class Judge(NamedTuple):
    """Features, and the training images in them."""

    features: Features
    real: Reference

    def row(self, pixels: Tensor) -> dict:
        """Columns on the distances of pictures (N, 3, H, W) uint8 from the training images."""
        return {"features": self.features.name, "features_sha256": self.features.hash,
                **tables.distances(self.real, self.features(pixels))}


class Bench:
    """A network opened for a study, with its schedule and the features its samples are measured in.

    facts: the columns of a row that name network and features. features: a name for `open_features`, or None where nothing is measured.
    """

    def __init__(self, checkpoint: str, device: str, features: str | None = None):
        self.place = open_device(device)
        self.network, record = open_network(checkpoint, self.place)
        self.schedule, self.config, trained = schedule_of(record), self.network.config, record.get("config", {})
        self.data = trained.get("data")
        self.facts = {"checkpoint": checkpoint, "data": record.get("data"), "training_seed": trained.get("seed"),
                      **{name: trained.get(name) for name in ("preset", "skip", "tau", "reading")}, "images_seen": images_seen(record),
                      "network_sha256": network_hash(self.network)}
        if features is not None:
            self.features = open_features(features, self.place)
            self.facts |= {"features": self.features.name, "features_sha256": self.features.hash}

    def reference(self) -> Reference:
        """The training images, in the features."""
        return open_reference(self.data, self.config.image_size, self.features)

    @property
    def usual_features(self) -> tuple[str, ...]:
        """All that work offline; without shipped references, which take minutes to make, those that are fast."""
        fast = ("pixels", "spectrum") if self.data == "celeba" else ("own", "pixels", "spectrum")  # a CIFAR-10 classifier knows no faces
        return OFFLINE if self.data == "cifar10" else fast

    def judges(self, names: Iterable[str]) -> list[Judge]:
        """All that samples are measured by. Raises ValueError, CheckpointError."""
        opened = [open_features(name, self.place) for name in names]
        return [Judge(features, open_reference(self.data, self.config.image_size, features)) for features in opened]

    def draw(self, samples: int, sampler: str, steps: int, spacing: str, eta: float = 0.0, seed: int = 0,
             denoiser: Denoiser | None = None, quiet: bool = False) -> tuple[Tensor, dict]:
        """Samples (N, ...) of the network, or of a denoiser made from it, and the columns that say how they were drawn.

        A bar shows the progress, unless quiet.
        """
        facts, start = tables.sampling_facts(self.schedule, sampler, spacing, steps, samples, seed), time.perf_counter()
        title, evaluations = f"sampling {self.facts['checkpoint']}", samples * facts["nfe"]
        with watched(denoiser or self.network, evaluations, title, disable=quiet) as counted:
            parts = draw(counted, samples, self.config.shape, self.schedule, sampler, steps, spacing, eta, seed, self.place)
            drawn = torch.cat(list(parts))
        return drawn, {**facts, "eta": eta, "seconds": round(time.perf_counter() - start, 2), **stamp(self.place)}


def evaluate(checkpoint: str, sampler: str = "ddim", steps: int = 50, spacing: str = "quadratic", eta: float = 0.0, samples: int = 5_000,
             seed: int = 0, features: tuple[str, ...] = (), device: str = "auto", table: Path | None = None) -> list[dict]:
    """Measure the distances of a network's samples from its training images, in several features: they do not always agree.

    Args:
        checkpoint: a shipped network's name, or a file that `train` wrote
        sampler: a name in s2dm_mini.SAMPLERS
        steps: number of sampler steps
        spacing: of the timesteps: uniform, quadratic, trailing, logsnr
        eta: noise added by DDIM
        samples: number of images; with few, distances come out too large
        seed: of the starting noise, which is the same for every checkpoint
        features: own and plain (this package's CIFAR-10 classifiers), efficientnet-lite0 (ImageNet's), pixels and spectrum (no network),
            inception (FID, as in the literature; downloads); by default all for CIFAR-10 that work offline, and pixels, spectrum
            and, but for faces, own for other data
        device: auto, cpu, cuda
        table: CSV file to append to; by default data/results/evaluations.csv

    Returns:
        A row for each of the features, also appended to the table. `seconds` counts only the sampling; fd_infinite is nan if the samples
        are too few.
    """
    require(samples >= 4, "samples must be at least 4, for precision and recall", samples)
    bench = Bench(checkpoint, device)
    require(bench.config.dimensions == 2,
            f"{checkpoint} makes signals, and the features that distances are measured in are of pictures; notebook 11 measures signals")
    judges = bench.judges(features or bench.usual_features)
    pixels, drawn = bench.draw(samples, sampler, steps, spacing, eta, seed, for_sampling(bench.network))
    return [tables.add("evaluations", {**bench.facts, **drawn, **judge.row(pixels)}, table) for judge in judges]


def sentences(rows: list[dict]) -> str:
    """The rows of `evaluate` as a table, a line for each of the features."""
    row = rows[0]
    lines = [f"{row['checkpoint']}, {row['sampler']}, {row['steps']} steps on the {row['spacing']} grid, {row['nfe']} network evaluations "
             f"an image",
             f"{row['samples']:,} samples in {row['seconds']:.1f} s, {row['samples'] / row['seconds']:,.0f} images/s on {row['device']}",
             f"{'features':<20}{'Fréchet distance':>18}{'of infinitely many':>20}{'KID':>12} ± scatter{'precision':>12}{'recall':>8}"]
    for row in rows:
        infinite = "too few" if isnan(row["fd_infinite"]) else f"{row['fd_infinite']:.4g}"
        lines.append(f"{row['features']:<20}{row['fd']:>18.4g}{infinite:>20}{row['kid']:>12.3e} ± {row['kid_deviation']:.1e}"
                     f"{row['precision']:>12.3f}{row['recall']:>8.3f}")
    if all(row["features"] != "inception" for row in rows):
        lines.append("None of these is the FID of the literature: compare a distance only with distances in the same features.")
    return "\n".join(lines)


def samples_picture(checkpoint: str, out: Path = Path("samples.png"), n: int = 64, sampler: str = "ddim", steps: int = 50,
                    spacing: str = "uniform", eta: float = 0.0, seed: int = 0, columns: int = 8, enlarge: int = 3,
                    device: str = "auto") -> str:
    """Draw images from a network, or signals as curves, and write them as one PNG.

    Args:
        checkpoint: a shipped network's name, or a file that `train` wrote
        out: the PNG file
        n: number of images
        sampler: a name in s2dm_mini.SAMPLERS
        steps: number of sampler steps
        spacing: of the timesteps: uniform, quadratic, trailing, logsnr
        eta: noise added by DDIM
        seed: of the starting noise; image i depends only on the seed and i
        columns: images in a row
        enlarge: side of a pixel in the picture, in pixels
        device: auto, cpu, cuda
    """
    require(columns >= 1 and enlarge >= 1, f"columns and enlarge must be at least 1, not {columns} and {enlarge}")
    columns, bench = min(columns, n), Bench(checkpoint, device)
    pictures, dots = bench.config.dimensions == 2, n * (enlarge * bench.config.image_size) ** 2
    require(not pictures or dots <= MAX_DOTS,
            f"{n} images enlarged {enlarge} times have {dots:,} dots; a picture has at most {MAX_DOTS:,}: enlarge less")
    drawn, facts = bench.draw(n, sampler, steps, spacing, eta, seed)
    file = io.BytesIO()
    if pictures:
        from PIL import Image

        from ..plots import tile

        Image.fromarray(tile(drawn, columns, enlarge)).save(file, "PNG")
    else:
        from ..plots import signal_grid

        signal_grid(drawn, columns).savefig(file, format="png")
    write_whole(out, file.getvalue())
    return (f"{n} {'images' if pictures else 'signals'}, {SAMPLERS[sampler].title}, {steps} steps, {facts['nfe']} network evaluations "
            f"each, {facts['seconds']:.1f} s on {facts['device']}: {out}")
