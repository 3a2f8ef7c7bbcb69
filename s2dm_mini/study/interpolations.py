"""Interpolations of two networks, or by two ways, measured on the same pairs of noises: rows of data/results/interpolation.csv."""
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from .. import checkpoints
from ..checkpoints import open_network
from ..data.cifar10 import cifar10
from ..denoisers import Denoiser
from ..latents import REFINEMENTS
from ..measure.draw import starting_noise, watched
from ..measure.errors import MeanOverPairs
from ..measure.features import open_features
from ..measure.metrics import frechet_distance
from ..measure.paths import FeatureMap, factor_measures, midpoint_excess, path_features, path_measures, round_trip, strips
from ..schedule import NoiseSchedule
from ..support.machine import device_name, git_commit, open_device
from . import tables


def measures(denoiser: Denoiser, ends: Tensor, schedule: NoiseSchedule, features: FeatureMap, way: str = "slerp", frames: int = 7,
             steps: int = 10, spacing: str = "quadratic", factors: bool = False,
             real: Tensor | None = None) -> tuple[dict[str, Tensor], MeanOverPairs, Tensor]:
    """Every measure of interpolation.py for P pairs of noises, ends (P, 2, C, H, W).

    Returns ({measure: one value a pair}, the midpoints' excess distance, the strips (P, frames, C, H, W) uint8). factors: also how
    monotonically the factors of `shapes` move. real: also the round trip of these pictures (P, C, H, W) uint8, plain and refined as the
    explorer does; of the pictures that the network draws itself it is measured plain in any case.
    """
    drawn = strips(denoiser, ends, schedule, frames, way, steps=steps, spacing=spacing)
    path = path_features(drawn, features)
    found = path_measures(path)
    back = round_trip(denoiser, drawn[:, 0].to(ends.device), schedule, features, steps, spacing)
    found |= {f"round trip, {name}": value for name, value in back.items()}
    for refinements in (0, REFINEMENTS) if real is not None else ():
        back = round_trip(denoiser, real, schedule, features, steps, spacing, refinements)
        found |= {f"real pictures, {refinements} refinements, {name}": value for name, value in back.items()}
    if factors:
        found |= factor_measures(drawn)
    return found, midpoint_excess(path, frechet_distance), drawn


def compare_interpolations(names: Sequence[str], against: str, way: str = "slerp", against_way: str = "slerp", pairs: int = 200,
                           frames: int = 7, steps: int = 10, spacing: str = "quadratic", seed: int = 0, features: str = "classifier",
                           real: bool = False, device: str = "auto", table: Path | None = None) -> list[dict]:
    """Measure each network, and `against` once, on the same noises, and append one row a measure: both means, and their difference
    pair by pair, with errors. Returns the rows.

    Monotonicity is compared by its means only, since not every pair moves every factor. real: also encode as many pictures of
    CIFAR-10's test split as there are pairs; raises DataError where it is missing, ValueError for networks of other pictures.
    """
    if not names:
        raise ValueError("name at least one network to measure.")
    place = open_device(device)
    extract, pictures = open_features(features, place), cifar10("test").pixels[:pairs].to(place) if real else None

    def measured(name: str, its_way: str) -> tuple[dict[str, Tensor], MeanOverPairs, str, float]:
        start = time.perf_counter()
        network, record = open_network(name, place)
        data, size, channels = record["config"]["data"], network.config.image_size, network.config.image_channels
        if real and data != "cifar10":
            raise ValueError(f"real pictures are those of CIFAR-10, and {name} was trained on {data}; leave them out.")
        ends = starting_noise(2 * pairs, (channels, size, size), seed).unflatten(0, (pairs, 2)).to(place)
        schedule = checkpoints.schedule_of(record)
        # The strips; and from the pictures at their ends down to the noise and up again; so also with real ones, plain and refined.
        walks = frames + 2 + (4 + REFINEMENTS) * real
        with watched(network, pairs * walks * len(schedule.timesteps(steps, spacing)), f"interpolating {name}") as counted:
            found, excess, _ = measures(counted, ends, schedule, extract, its_way, frames, steps, spacing, data == "shapes", pictures)
        return found, excess, checkpoints.network_hash(network), time.perf_counter() - start

    (theirs, their_excess, their_hash, their_seconds), rows = measured(against, against_way), []
    for name in names:
        mine, my_excess, my_hash, my_seconds = measured(name, way)
        common = {"checkpoint": name, "network_sha256": my_hash, "way": way, "against": against, "against_sha256": their_hash,
                  "against_way": against_way, "pairs": pairs, "frames": frames, "sampler": "ddim", "steps": steps, "spacing": spacing,
                  "sampling_seed": seed, "features": extract.name, "features_sha256": extract.hash}
        machine = {"seconds": round(my_seconds + their_seconds, 1), "device": device_name(place), "torch": torch.__version__,
                   "commit": git_commit(), "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M")}
        for measure in [*(measure for measure in mine if measure in theirs), "midpoints' excess distance"]:
            if measure in mine:
                a, b = MeanOverPairs.of(mine[measure]), MeanOverPairs.of(theirs[measure])
                paired = len(mine[measure]) == len(theirs[measure]) == pairs
                difference = MeanOverPairs.of(mine[measure] - theirs[measure]) if paired else _unpaired(a, b)
            else:
                a, b, paired = my_excess, their_excess, False
                difference = _unpaired(a, b)
            numbers = {"mean": a.mean, "error": a.error, "against_mean": b.mean, "against_error": b.error, "difference": difference.mean,
                       "difference_error": difference.error}
            row = common | {"measure": measure, **{key: round(value, 6) for key, value in numbers.items()}, "paired": paired} | machine
            tables.append_row(table or tables.RESULTS / "interpolation.csv", row)
            rows.append(row)
    return rows


def _unpaired(a: MeanOverPairs, b: MeanOverPairs) -> MeanOverPairs:
    return MeanOverPairs(a.mean - b.mean, (a.error**2 + b.error**2) ** 0.5, min(a.n, b.n))
