"""Interpolations of two networks, or by two ways, measured on the same pairs of noises: rows of data/results/interpolation.csv."""
import time
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ..data.cifar10 import cifar10
from ..denoisers import Denoiser
from ..latents import REFINEMENTS
from ..measure.draw import starting_noise, watched
from ..measure.errors import MeanOverPairs, is_clear
from ..measure.metrics import frechet_distance
from ..measure.paths import FeatureMap, factor_measures, midpoint_excess, path_measures, round_trip, strips
from ..schedule import NoiseSchedule
from ..support.checks import require
from ..support.machine import stamp
from . import tables
from .evaluate import Bench

EXCESS = "midpoints' excess distance"


def measures(denoiser: Denoiser, ends: Tensor, schedule: NoiseSchedule, features: FeatureMap, way: str = "slerp", frames: int = 7,
             steps: int = 10, spacing: str = "quadratic", factors: bool = False,
             real: Tensor | None = None) -> tuple[dict[str, Tensor], MeanOverPairs, Tensor]:
    """Every measure of `measure.paths` for P pairs of noises, ends (P, 2, C, H, W).

    factors: also measure how monotonically the factors of `shapes` move. real: also measure the round trip of these images
    (P, C, H, W) uint8, plain and with the explorer's refinements; that of the network's own images is always measured, plain.
    Returns ({measure: (P,) or fewer}, the midpoints' excess distance, the strips (P, frames, C, H, W) uint8).
    """
    drawn = strips(denoiser, ends, schedule, frames, way, steps=steps, spacing=spacing)
    path = features(drawn.flatten(0, 1)).unflatten(0, drawn.shape[:2])  # (P, F, D)
    found = path_measures(path)
    back = round_trip(denoiser, drawn[:, 0].to(ends.device), schedule, features, steps, spacing)
    found |= {f"round trip, {name}": value for name, value in back.items()}
    for refinements in (0, REFINEMENTS) if real is not None else ():
        back = round_trip(denoiser, real, schedule, features, steps, spacing, refinements)
        found |= {f"real pictures, {refinements} refinements, {name}": value for name, value in back.items()}
    if factors:
        found |= factor_measures(drawn)
    return found, midpoint_excess(path, frechet_distance), drawn


def compare_interpolations(checkpoints: Sequence[str], against: str = "nano-cifar10-l0", way: str = "slerp", against_way: str = "slerp",
                           pairs: int = 200, frames: int = 7, steps: int = 10, spacing: str = "quadratic", seed: int = 0,
                           features: str = "own", real: bool = False, device: str = "auto", table: Path | None = None) -> list[dict]:
    """Measure interpolations of networks against those of another, on the same noises.

    Args:
        checkpoints: shipped networks' names, or files that `train` wrote
        against: the network to compare each with
        way: slerp or lerp
        against_way: slerp or lerp, for `against`
        pairs: number of pairs of noises
        frames: images of a strip; an odd number, for one to be in the middle
        steps: number of DDIM steps
        spacing: of the timesteps: uniform, quadratic, trailing, logsnr
        seed: of the noises
        features: as for `evaluate`, one of them
        real: also encode and redraw as many images of CIFAR-10's test split as there are pairs
        device: auto, cpu, cuda
        table: CSV file to append to; by default data/results/interpolation.csv

    Returns:
        A row for each network and measure: both means and their difference, with errors.
    """
    require(checkpoints, "name at least one network to measure")
    pictures = cifar10("test").pixels[:pairs] if real else None

    def measured(name: str, its_way: str) -> tuple[dict[str, Tensor | MeanOverPairs], Bench, float]:
        start, bench = time.perf_counter(), Bench(name, device, features)
        require(not real or bench.data == "cifar10",
                f"real pictures are those of CIFAR-10, and {name} was trained on {bench.data}; leave them out")
        ends = starting_noise(2 * pairs, bench.config.shape, seed).unflatten(0, (pairs, 2)).to(bench.place)
        # The strips, and one image of each to its noise and back; real images make that round trip twice, plain and refined.
        walks = frames + 2 + (4 + REFINEMENTS) * real
        evaluations = pairs * walks * len(bench.schedule.timesteps(steps, spacing))
        with watched(bench.network, evaluations, f"interpolating {name}") as counted:
            found, excess, _ = measures(counted, ends, bench.schedule, bench.features, its_way, frames, steps, spacing,
                                        bench.data == "shapes", pictures.to(bench.place) if real else None)
        return found | {EXCESS: excess}, bench, time.perf_counter() - start

    (theirs, their_bench, their_seconds), rows = measured(against, against_way), []
    for name in checkpoints:
        mine, bench, seconds = measured(name, way)
        facts = {**bench.facts, "way": way, "against": against, "against_sha256": their_bench.facts["network_sha256"],
                 "against_way": against_way, "pairs": pairs, "frames": frames, "sampler": "ddim", "steps": steps, "spacing": spacing,
                 "sampling_seed": seed, "seconds": round(seconds + their_seconds, 1), **stamp(bench.place)}
        rows += [tables.add("interpolation", {**facts, "measure": measure, **_compared(mine[measure], theirs[measure], pairs)}, table)
                 for measure in mine if measure in theirs]
    return rows


def _compared(mine: Tensor | MeanOverPairs, theirs: Tensor | MeanOverPairs, pairs: int) -> dict:
    """Both means and their difference: pair by pair where all pairs have a value (not every pair moves every factor), else of the means."""
    a, b = (values if isinstance(values, MeanOverPairs) else MeanOverPairs.of(values) for values in (mine, theirs))
    difference, error = a.mean - b.mean, (a.error**2 + b.error**2) ** 0.5
    if paired := isinstance(mine, Tensor) and len(mine) == len(theirs) == pairs:
        by_pair = MeanOverPairs.of(mine - theirs)
        difference, error = by_pair.mean, by_pair.error
    numbers = {"mean": a.mean, "error": a.error, "against_mean": b.mean, "against_error": b.error, "difference": difference,
               "difference_error": error}
    return {name: round(value, 6) for name, value in numbers.items()} | {"paired": paired}


def sentences(rows: list[dict]) -> str:
    """The rows of `compare_interpolations` in words, under a heading for each network."""
    lines = []
    for row in rows:
        if row["measure"] == "mean step":  # the first of each network
            lines.append(f"{row['checkpoint']}, {row['way']}, against {row['against']}, {row['against_way']}")
        clear = is_clear(row["difference"], (row["difference_error"], int(row["pairs"]) - 1))
        lines.append(f"{row['measure']:43} {row['mean']:9.4g} ± {row['error']:.2g}   "
                     f"against {row['against_mean']:9.4g} ± {row['against_error']:.2g}   "
                     f"difference {row['difference']:+.4g} ± {row['difference_error']:.2g}" + ("" if clear else ", within its error"))
    return "\n".join(lines)
