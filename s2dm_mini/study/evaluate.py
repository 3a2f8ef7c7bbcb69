"""A network on the bench; its distance from real images (data/results/evaluations.csv), and a picture of its samples."""
import io
import time
from math import isnan
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints import images_seen, network_hash, open_network, schedule_of
from ..denoisers import Denoiser
from ..measure.draw import draw, watched
from ..measure.features import open_features
from ..measure.references import Reference, open_reference
from ..samplers import SAMPLERS
from ..support.files import write_whole
from ..support.machine import open_device, stamp
from ..unet import for_sampling
from . import tables

MAX_DOTS = 100_000_000  # of a picture of samples


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
             seed: int = 0, features: str = "own", device: str = "auto", table: Path | None = None) -> dict:
    """Measure the distance of a network's samples from its training images.

    Args:
        checkpoint: a shipped network's name, or a file that `train` wrote
        sampler: a name in s2dm_mini.SAMPLERS
        steps: number of sampler steps
        spacing: of the timesteps: uniform, quadratic, trailing, logsnr
        eta: noise added by DDIM
        samples: number of images; with few, distances come out too large
        seed: of the starting noise, which is the same for every checkpoint
        features: own (the package's own; not FID), inception (as in the literature), or a TorchScript file of Inception
        device: auto, cpu, cuda
        table: CSV file to append to; by default data/results/evaluations.csv

    Returns:
        The row, also appended to the table. `seconds` counts only the sampling; a distance is nan if the samples are too few.
    """
    bench = Bench(checkpoint, device, features)
    if bench.config.dimensions == 1:
        raise ValueError(f"{checkpoint} makes signals, and the features that distances are measured in are of pictures; "
                         f"`python -m s2dm_mini compare-signals` measures signals.")
    real = bench.reference()
    pixels, drawn = bench.draw(samples, sampler, steps, spacing, eta, seed, for_sampling(bench.network))
    return tables.add("evaluations", {**bench.facts, **drawn, **tables.distances(real, bench.features(pixels))}, table)


def sentences(row: dict) -> str:
    """A row of `evaluate` in words."""
    too_few = " (too few samples)" if isnan(row["fd_infinite"]) else ""
    lines = [
        f"{row['checkpoint']}, {row['sampler']}, {row['steps']} steps on the {row['spacing']} grid, {row['nfe']} network evaluations "
        "an image",
        f"Fréchet distance in {row['features']} features, {row['samples']:,} samples: {row['fd']:.4g}; "
        f"for infinitely many: {row['fd_infinite']:.4g}{too_few}",
        f"KID in the same: {row['kid']:.3e} (its subsets scatter by {row['kid_deviation']:.1e}); "
        f"precision {row['precision']:.3f}, recall {row['recall']:.3f}",
        f"{row['seconds']:.1f} s of sampling, {row['samples'] / row['seconds']:,.0f} images/s on {row['device']}"]
    if row["features"] != "inception":
        lines.append("This is not the FID of the literature: compare it only with distances in the same features.")
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
    if columns < 1 or enlarge < 1:
        raise ValueError(f"columns and enlarge must be at least 1, not {columns} and {enlarge}.")
    bench = Bench(checkpoint, device)
    pictures = bench.config.dimensions == 2
    if pictures and (dots := n * (enlarge * bench.config.image_size) ** 2) > MAX_DOTS:
        raise ValueError(f"{n} images enlarged {enlarge} times have {dots:,} dots; a picture has at most {MAX_DOTS:,}: enlarge less.")
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
