"""Draw samples from a network: measure their distance from real images (data/results/evaluations.csv), or write them as a picture."""
import io
import time
from math import isnan
from pathlib import Path

from ..checkpoints import open_network, schedule_of
from ..measure.draw import draw_watched
from ..measure.features import open_features
from ..measure.references import open_reference
from ..samplers import SAMPLERS
from ..support.files import write_whole
from ..support.machine import device_name, open_device, stamp
from ..unet import for_sampling
from . import tables

MAX_DOTS = 100_000_000  # of a picture of samples


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
    place = open_device(device)
    network, record = open_network(checkpoint, place)
    extract, schedule = open_features(features, place), schedule_of(record)
    if network.config.dimensions == 1:
        raise ValueError(f"{checkpoint} makes signals, and the features that distances are measured in are of pictures; "
                         f"`python -m s2dm_mini compare-signals` measures signals.")
    real = open_reference(record["config"]["data"], network.config.image_size, extract)
    start = time.perf_counter()
    pixels = draw_watched(f"sampling {checkpoint}", for_sampling(network), samples, network.config.shape, schedule, sampler, steps, spacing,
                          eta=eta, seed=seed, device=place)
    seconds = time.perf_counter() - start
    return tables.add("evaluations", {
        "checkpoint": checkpoint, **tables.network_facts(network, record),
        **tables.sampling_facts(schedule, sampler, spacing, steps, samples, seed), "eta": eta,
        "features": extract.name, "features_sha256": extract.hash, **tables.distances(real, extract(pixels)),
        "seconds": round(seconds, 2), **stamp(place)}, table)


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
    place = open_device(device)
    network, record = open_network(checkpoint, place)
    schedule, pictures = schedule_of(record), network.config.dimensions == 2
    if pictures and (dots := n * (enlarge * network.config.image_size) ** 2) > MAX_DOTS:
        raise ValueError(f"{n} images enlarged {enlarge} times have {dots:,} dots; a picture has at most {MAX_DOTS:,}: enlarge less.")
    start = time.perf_counter()
    drawn = draw_watched(f"sampling {checkpoint}", network, n, network.config.shape, schedule, sampler, steps, spacing, eta=eta, seed=seed,
                         device=place)
    seconds = time.perf_counter() - start
    file = io.BytesIO()
    if pictures:
        from PIL import Image

        from ..plots import tile

        Image.fromarray(tile(drawn, columns, enlarge)).save(file, "PNG")
    else:
        from ..plots import signal_grid

        signal_grid(drawn, columns).savefig(file, format="png")
    write_whole(out, file.getvalue())
    nfe = tables.sampling_facts(schedule, sampler, spacing, steps, n, seed)["nfe"]
    return (f"{n} {'images' if pictures else 'signals'}, {SAMPLERS[sampler].title}, {steps} steps, {nfe} network evaluations each, "
            f"{seconds:.1f} s on {device_name(place)}: {out}")
