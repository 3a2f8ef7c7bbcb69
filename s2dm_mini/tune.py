"""Fit the scale of ε to a network, a sampler and a number of steps: no training, a few dozen small sets of samples.

    python -m s2dm_mini tune nano-cifar10-l0 --sampler ddim --steps 10

ε is divided by a straight line in t, λ_t = λ_first + (λ_last − λ_first)·t/(T − 1). Why this family of two numbers:

- It is Epsilon Scaling as Ning et al. (ICLR 2024) propose it, λ_t = k·t + b; with λ_first = λ_last it is the constant that they use most.
- It contains S²-DM, to first order: 1/s_t = 1 + c_t²·(1−τ)/τ with c_t² ≈ skip·β_t (notebook 07), and the β_t of the linear schedule is
  a straight line. With τ = 0.99, the nearest line misses 1/s_t by at most 0.00004 for skip 9 and 0.0014 for skip 49, where t ≥ skip.
- (skip, τ) itself would be the worse choice: it is nearly one number, skip·(1−τ)/τ, and holds neither a constant nor a λ_t below 1.

What is minimised is the Fréchet distance of a small set of samples. All candidates start from the same x_T, so that the distance is a
smooth function of the two numbers, and its excess on few samples, which hardly depends on them, drops out of the comparison. The
minimum is looked for without derivatives (Nelder and Mead, 1965), first among constants, then from the best of them among lines, and is
then measured on seeds that the search has not seen.
"""
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from . import checkpoints, metrics, results
from .denoisers import Shrunk
from .evaluate import draw, open_features, open_network, open_reference
from .ledger import scale_of
from .samplers import SAMPLERS
from .schedule import NoiseSchedule
from .train import best_device, device_name

STEP = 0.02  # size of the first simplex: constants that help at 10 to 50 steps lie within 1 … 1.05


def line(first: float, last: float, T: int = 1000) -> Tensor:
    """s_t = 1/λ_t for λ_t straight from `first` at t = 0 to `last` at t = T − 1: (T,) float64, for `Shrunk`."""
    if not (first > 0 and last > 0):
        raise ValueError(f"λ divides the noise prediction: both its ends must be above 0, not {first:g} and {last:g}.")
    return 1 / torch.linspace(first, last, T, dtype=torch.float64)


@dataclass(frozen=True)
class Fit:
    """What a search has found, as the two ends (λ_first, λ_last)."""

    constant: tuple[float, float]  # the best of the constants tried
    line: tuple[float, float]  # the best of all that was tried
    tried: dict[tuple[float, float], float]  # every candidate and its distance, in the order of trial


def fit_line(distance: Callable[[Tensor], float], T: int = 1000, evaluations: int = 16) -> Fit:
    """The line for which `distance(scale)`, scale (T,) as `line` gives it, is least; asked at most `evaluations` times.

    A third of them goes to constants, from λ = 1 on; the rest to lines, from the best constant on. What is found is therefore never
    worse than no scaling, and may be a local minimum. Raises ValueError for fewer than 6.
    """
    if evaluations < 6:
        raise ValueError(f"evaluations must be at least 6, two for constants and four for lines, not {evaluations}.")
    tried: dict[tuple[float, float], float] = {}

    def at(ends: list[float]) -> float:
        key = (ends[0], ends[-1])
        if key not in tried:
            tried[key] = distance(line(*key, T)) if min(key) > 0 else math.inf
        return tried[key]

    nelder_mead(at, [1.0], STEP, evaluations // 3)
    constant = min(tried, key=tried.get)
    nelder_mead(at, list(constant), STEP, evaluations - len(tried) + 1)  # one of its points is the constant, which is known
    return Fit(constant, min(tried, key=tried.get), tried)


def nelder_mead(f: Callable[[list[float]], float], start: list[float], step: float, evaluations: int) -> list[float]:
    """The point with the least f among at most `evaluations` tried (Nelder and Mead, 1965): a simplex walks downhill and shrinks.

    start: D numbers; the first simplex is `start` and D points `step` away from it, one along each axis.
    """
    left = evaluations

    def ask(x: Tensor) -> tuple[float, Tensor]:
        nonlocal left
        left -= 1
        return f(x.tolist()), x

    x0 = torch.tensor(start, dtype=torch.float64)
    simplex = [ask(x) for x in (x0, *(x0 + step * torch.eye(len(x0), dtype=torch.float64)))[:left]]
    while left > 0:
        simplex.sort(key=lambda vertex: vertex[0])
        worst, others = simplex[-1], simplex[:-1]
        centre = torch.stack([x for _, x in others]).mean(0)
        new = ask(centre + (centre - worst[1]))  # the mirror image of the worst point
        if new[0] < simplex[0][0]:
            if left > 0:  # better than all: further on
                new = min(new, ask(centre + 2 * (centre - worst[1])), key=lambda vertex: vertex[0])
        elif new[0] >= others[-1][0] and left > 0:  # still the worst: half of the way, on the better side
            nearer = min(worst, new, key=lambda vertex: vertex[0])
            new = ask(centre + 0.5 * (nearer[1] - centre))
            if new[0] >= nearer[0]:  # no good either: all towards the best
                best = simplex[0]
                simplex = [best, *(ask(best[1] + 0.5 * (x - best[1])) for _, x in simplex[1:][:left])]
                continue
        simplex[-1] = new
    return min(simplex, key=lambda vertex: vertex[0])[1].tolist()


def tune(checkpoint: str, sampler: str = "ddim", steps: int = 10, spacing: str = "quadratic", samples: int = 512, seed: int = 100,
         held_out: int = 5, evaluations: int = 16, against: tuple[str, ...] = ("s2dm50",), features: str = "classifier",
         device: str = "auto", table: Path | None = None) -> list[dict]:
    """Fit λ_t to a checkpoint and measure it on other seeds. Appends each measurement to `table` (data/results/tune.csv); returns them.

    The search draws `samples` images from `seed` for each of its `evaluations` candidates. Then no scaling, the best constant, the best
    line and the scales in `against` (names as in the ledger: s2dm50, b1.017) draw as many from each of the `held_out` seeds after it;
    `summary` puts these together. With fewer samples than some thousand all distances are too large, by about the same: believe the
    changes. Raises ValueError for fewer than two held-out seeds.
    """
    from tqdm import tqdm

    if held_out < 2:
        raise ValueError(f"held_out must be at least 2, for there to be an error bar, not {held_out}.")
    commit, place = checkpoints.git_commit(), torch.device(best_device() if device == "auto" else device)
    network, record = open_network(checkpoint, place)
    schedule, extract = NoiseSchedule.linear(record["config"]["T"]), open_features(features, place)
    given = {name: scale_of(name, schedule) for name in against}
    size, channels = network.config.image_size, network.config.image_channels
    real = open_reference(record["config"]["data"], size, extract)
    command = (f"python -m s2dm_mini tune {checkpoint} --sampler {sampler} --steps {steps} --spacing {spacing} --samples {samples} "
               f"--seed {seed} --held-out {held_out} --evaluations {evaluations} --against {' '.join(against)}").rstrip()
    rows, bar = [], tqdm(total=evaluations + held_out * (3 + len(given)), unit=" sets of samples", desc=f"tuning {checkpoint}")

    def measure(role: str, name: str, scale: Tensor | float, sampling_seed: int) -> float:
        start = time.perf_counter()
        pixels = torch.cat(list(draw(Shrunk(network, scale), samples, (channels, size, size), schedule, sampler, steps, spacing,
                                     seed=sampling_seed, device=place)))
        seconds, x = time.perf_counter() - start, extract(pixels)
        first, last = (1 / torch.as_tensor(scale, dtype=torch.float64).expand(schedule.T)[[0, -1]]).tolist()
        row = {
            "checkpoint": checkpoint, "network_sha256": checkpoints.network_hash(network), "sampler": sampler, "spacing": spacing,
            "steps": steps, "nfe": SAMPLERS[sampler].nfe(len(schedule.timesteps(steps, spacing))), "role": role, "scale": name,
            "lambda_first": round(first, 5), "lambda_last": round(last, 5), "samples": samples, "sampling_seed": sampling_seed,
            "fd": round(metrics.frechet_distance(real.moments, x), 5), "kid": round(metrics.kernel_distance(real.features, x)[0], 7),
            "features": extract.name, "features_sha256": extract.hash, "seconds": round(seconds, 2), "device": device_name(place),
            "torch": torch.__version__, "commit": commit, "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), "command": command,
        }
        results.append_row(table or results.RESULTS / "tune.csv", row)
        rows.append(row)
        bar.set_postfix_str(f"λ {first:.4f} … {last:.4f}: {row['fd']:.3f}", refresh=False)
        bar.update()
        return row["fd"]

    fit = fit_line(lambda scale: measure("search", "line", scale, seed), schedule.T, evaluations)
    scales = {"none": 1.0, "constant": line(*fit.constant, schedule.T), "line": line(*fit.line, schedule.T), **given}
    for held_out_seed in range(seed + 1, seed + 1 + held_out):
        for name, scale in scales.items():
            measure("held out", name, scale, held_out_seed)
    bar.close()
    return rows


@dataclass(frozen=True)
class Summary:
    """What a scale comes to on the held-out seeds: means, and standard errors of these means over the seeds."""

    scale: str
    lambda_first: float
    lambda_last: float
    fd: float
    fd_error: float
    fd_change: float  # against no scaling, paired by seed; −0.1 is 10 % better
    fd_change_error: float
    kid: float
    kid_error: float
    kid_change: float
    kid_change_error: float


def summary(rows: list[dict]) -> list[Summary]:
    """The held-out rows of one run of `tune`, as returned or as read from the table, put together scale by scale."""
    held_out: dict[str, list[dict]] = {}
    for row in rows:
        if row["role"] == "held out":
            held_out.setdefault(row["scale"], []).append(row)
    found = []
    for name, of_scale in held_out.items():
        numbers = [float(of_scale[0][column]) for column in ("lambda_first", "lambda_last")]
        for measure in ("fd", "kid"):
            values, base = (torch.tensor([float(row[measure]) for row in part]) for part in (of_scale, held_out["none"]))
            for quantity in (values, values / base - 1):
                numbers += [float(quantity.mean()), float(quantity.std() / len(quantity) ** 0.5)]
        found.append(Summary(name, *numbers))
    return found
