"""Draw many samples from a network and measure how far they are from real pictures: one row of the ledger (results.py)."""
import io
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from .. import checkpoints
from ..checkpoints import open_network
from ..measure import metrics
from ..measure.draw import draw_watched
from ..measure.features import open_features
from ..measure.references import open_reference
from ..samplers import SAMPLERS
from ..support.files import write_whole
from ..support.machine import device_name, git_commit, open_device
from ..unet import for_sampling
from . import tables


def evaluate(checkpoint: str, sampler: str = "ddim", steps: int = 50, spacing: str = "quadratic", eta: float = 0.0, samples: int = 5_000,
             seed: int = 0, features: str = "classifier", device: str = "auto", table: Path | None = None) -> dict:
    """Measure a checkpoint, append the row to `table` (data/results/evaluations.csv by default), and return it.

    seconds counts the sampling only. Distances are nan where the samples are too few for them.
    """
    place = open_device(device)
    network, record = open_network(checkpoint, place)
    extract = open_features(features, place)
    config, schedule = record["config"], checkpoints.schedule_of(record)
    if network.config.dimensions == 1:
        raise ValueError(f"{checkpoint} makes signals, and the features that distances are measured in are of pictures; "
                         f"`python -m s2dm_mini compare-signals` measures signals.")
    real = open_reference(config["data"], network.config.image_size, extract)
    shape = network.config.shape

    start = time.perf_counter()
    pixels = draw_watched(f"sampling {checkpoint}", for_sampling(network), samples, shape, schedule, sampler, steps, spacing, eta=eta,
                          seed=seed, device=place)
    seconds = time.perf_counter() - start
    x = extract(pixels)
    kid, kid_deviation = metrics.kernel_distance(real.features, x)
    precision, recall = metrics.precision_recall(real.features, x)
    row = {
        "checkpoint": checkpoint, "data": record["data"],
        "preset": config["preset"], "skip": config["skip"], "tau": config["tau"], "reading": config["reading"],
        "training_seed": config["seed"], "images_seen": checkpoints.images_seen(record),
        "network_sha256": checkpoints.network_hash(network),
        "sampler": sampler, "spacing": spacing, "eta": eta, "steps": steps,
        "nfe": SAMPLERS[sampler].nfe(len(schedule.timesteps(steps, spacing))), "samples": samples, "sampling_seed": seed,
        "features": extract.name, "features_sha256": extract.hash, "fd": round(metrics.frechet_distance(real.moments, x), 5),
        "fd_infinite": round(metrics.frechet_distance_infinite(real.moments, x), 5) if samples >= 4 * x.shape[1] else float("nan"),
        "kid": round(kid, 7), "kid_deviation": round(kid_deviation, 7), "precision": round(precision, 4), "recall": round(recall, 4),
        "seconds": round(seconds, 2), "device": device_name(place), "torch": torch.__version__, "commit": git_commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
    }
    tables.append_row(table or tables.RESULTS / "evaluations.csv", row)
    return row


def samples_picture(checkpoint: str, out: Path, n: int = 64, sampler: str = "ddim", steps: int = 50, spacing: str = "quadratic",
                    eta: float = 0.0, seed: int = 0, columns: int = 8, enlarge: int = 3, device: str = "auto") -> str:
    """Draw n images (or signals, as curves) from a checkpoint, side by side, into one PNG; returns a sentence on what it took."""
    if columns < 1 or enlarge < 1:
        raise ValueError(f"columns and enlarge must be at least 1, not {columns} and {enlarge}.")
    place = open_device(device)
    network, record = open_network(checkpoint, place)
    schedule, shape = checkpoints.schedule_of(record), network.config.shape
    start = time.perf_counter()
    drawn = draw_watched(f"sampling {checkpoint}", network, n, shape, schedule, sampler, steps, spacing, eta=eta, seed=seed, device=place)
    seconds = time.perf_counter() - start
    file = io.BytesIO()
    if network.config.dimensions == 1:
        from ..plots import signal_grid

        signal_grid(drawn, columns).savefig(file, format="png")
    else:
        from PIL import Image

        from ..plots import tile

        Image.fromarray(tile(drawn, columns, enlarge)).save(file, "PNG")
    write_whole(out, file.getvalue())
    evaluations = SAMPLERS[sampler].nfe(len(schedule.timesteps(steps, spacing)))
    return (f"{n} {'images' if network.config.dimensions == 2 else 'signals'}, {SAMPLERS[sampler].title}, {steps} steps, "
            f"{evaluations} network evaluations each, {seconds:.1f} s on {device_name(place)}: {out}")
