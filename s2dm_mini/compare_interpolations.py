"""Interpolations of two networks, or by two ways, measured on the same pairs of noises: rows of data/results/interpolation.csv."""
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from . import checkpoints, results
from .evaluate import open_features, open_network, starting_noise
from .interpolation import (
    FeatureMap,
    MeanOverPairs,
    factor_measures,
    midpoint_excess,
    path_features,
    path_measures,
    round_trip,
    strips,
)
from .losses import Denoiser
from .metrics import frechet_distance
from .progress import watched
from .schedule import NoiseSchedule
from .train import best_device, device_name


def measures(denoiser: Denoiser, ends: Tensor, schedule: NoiseSchedule, features: FeatureMap, way: str = "slerp", frames: int = 7,
             steps: int = 10, spacing: str = "quadratic", factors: bool = False) -> tuple[dict[str, Tensor], MeanOverPairs, Tensor]:
    """Every measure of interpolation.py for P pairs of noises, ends (P, 2, C, H, W).

    Returns ({measure: one value a pair}, the midpoints' excess distance, the strips (P, frames, C, H, W) uint8). factors: also how
    monotonically the factors of `shapes` move.
    """
    drawn = strips(denoiser, ends, schedule, frames, way, steps=steps, spacing=spacing)
    path = path_features(drawn, features)
    found = path_measures(path)
    back = round_trip(denoiser, drawn[:, 0].to(ends.device), schedule, features, steps, spacing)
    found |= {f"round trip, {name}": value for name, value in back.items()}
    if factors:
        found |= factor_measures(drawn)
    return found, midpoint_excess(path, frechet_distance), drawn


def compare_interpolations(checkpoint: str, against: str, way: str = "slerp", against_way: str = "slerp", pairs: int = 200, frames: int = 7,
                           steps: int = 10, spacing: str = "quadratic", seed: int = 0, features: str = "classifier",
                           device: str = "auto", table: Path | None = None) -> list[dict]:
    """Measure both on the same noises and append one row a measure: both means, and their difference pair by pair, with errors.

    Monotonicity is compared by its means only, since not every pair moves every factor. Returns the rows.
    """
    place = torch.device(best_device() if device == "auto" else device)
    extract, start, sides = open_features(features, place), time.perf_counter(), []
    for name, its_way in ((checkpoint, way), (against, against_way)):
        network, record = open_network(name, place)
        size, channels = network.config.image_size, network.config.image_channels
        ends = starting_noise(2 * pairs, (channels, size, size), seed).unflatten(0, (pairs, 2)).to(place)
        schedule = checkpoints.schedule_of(record)
        # The strips; and from the pictures at their ends down to the noise and up again.
        evaluations = pairs * (frames + 2) * len(schedule.timesteps(steps, spacing))
        with watched(network, evaluations, f"interpolating {name}") as counted:
            found, excess, _ = measures(counted, ends, schedule, extract, its_way, frames, steps, spacing,
                                        factors=record["config"]["data"] == "shapes")
        sides.append((found, excess, checkpoints.network_hash(network)))
    seconds = time.perf_counter() - start
    (mine, my_excess, my_hash), (theirs, their_excess, their_hash) = sides
    common = {"checkpoint": checkpoint, "network_sha256": my_hash, "way": way, "against": against, "against_sha256": their_hash,
              "against_way": against_way, "pairs": pairs, "frames": frames, "sampler": "ddim", "steps": steps, "spacing": spacing,
              "sampling_seed": seed, "features": extract.name, "features_sha256": extract.hash}
    machine = {"seconds": round(seconds, 1), "device": device_name(place), "torch": torch.__version__,
               "commit": checkpoints.git_commit(), "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M")}
    rows = []
    for measure in [*(name for name in mine if name in theirs), "midpoints' excess distance"]:
        if measure in mine:
            a, b = MeanOverPairs.of(mine[measure]), MeanOverPairs.of(theirs[measure])
            paired = len(mine[measure]) == len(theirs[measure]) == pairs
            difference = MeanOverPairs.of(mine[measure] - theirs[measure]) if paired else _unpaired(a, b)
        else:
            a, b, paired = my_excess, their_excess, False
            difference = _unpaired(a, b)
        numbers = {"mean": a.mean, "error": a.error, "against_mean": b.mean, "against_error": b.error, "difference": difference.mean,
                   "difference_error": difference.error}
        rows.append(common | {"measure": measure, **{name: round(value, 6) for name, value in numbers.items()}, "paired": paired} | machine)
        results.append_row(table or results.RESULTS / "interpolation.csv", rows[-1])
    return rows


def _unpaired(a: MeanOverPairs, b: MeanOverPairs) -> MeanOverPairs:
    return MeanOverPairs(a.mean - b.mean, (a.error**2 + b.error**2) ** 0.5, min(a.n, b.n))
