"""Fit the scale of ε to a network, a sampler and a number of steps, without training: rows of data/results/tune.csv.

ε is divided by a straight line λ_t (see `theory.scales`), chosen to minimise the Fréchet distance of a small set of samples. All candidates
start from the same x_T: the distance is then a smooth function of the line's two ends, and its excess on few samples, which hardly depends
on them, drops out of the comparison. The best constant and the best line are measured again on other seeds and in other features: a gain
that only the yardstick of the search sees is none.
"""
from collections import namedtuple
from pathlib import Path

import torch
from torch import Tensor

from ..denoisers import Shrunk
from ..support.checks import require
from ..support.progress import bar
from ..theory.scales import fit_line, line, scale_of
from . import tables
from .evaluate import Bench, Judge


def tune(checkpoint: str, sampler: str = "ddim", steps: int = 10, spacing: str = "quadratic", samples: int = 512, seed: int = 100,
         held_out: int = 5, evaluations: int = 24, against: tuple[str, ...] = ("s2dm50",), features: str = "own",
         device: str = "auto", table: Path | None = None) -> list[dict]:
    """Fit a scale of ε to a network, a sampler and a number of steps, without training.

    The result is measured on other seeds, and in the other features that work offline. With fewer than some thousand samples, all
    distances are too large, by about the same amount: compare changes only.

    Args:
        checkpoint: a shipped network's name, or a file that `train` wrote
        sampler: a name in s2dm_mini.SAMPLERS
        steps: number of sampler steps
        spacing: of the timesteps: uniform, quadratic, trailing, logsnr
        samples: number of images of each candidate and of each measurement
        seed: of the starting noise of all candidates
        held_out: number of seeds after it, on which the result is measured
        evaluations: number of candidates
        against: scales to measure too, named as in the ledger, e.g. s2dm50 b1.017
        features: those that the search minimises the distance in, as for `evaluate`
        device: auto, cpu, cuda
        table: CSV file to append to; by default data/results/tune.csv

    Returns:
        A row for each candidate and each measurement on held-out seeds, also appended to the table. `summary` puts them together.
    """
    require(held_out >= 2, "held_out must be at least 2, for there to be an error bar", held_out)
    bench = Bench(checkpoint, device)
    judges = bench.judges(dict.fromkeys((features, *bench.usual_features)))
    T, given = bench.schedule.T, {name: scale_of(name, bench.schedule) for name in against}
    rows, progress = [], bar(f"tuning {checkpoint}", evaluations + held_out * (3 + len(given)))
    command = (f"python -m s2dm_mini tune {checkpoint} --sampler {sampler} --steps {steps} --spacing {spacing} --samples {samples} "
               f"--seed {seed} --held-out {held_out} --evaluations {evaluations} --against {' '.join(against)}").rstrip()

    def measure(role: str, name: str, scale: Tensor | float, sampling_seed: int, by: list[Judge]) -> float:
        pixels, drawn = bench.draw(samples, sampler, steps, spacing, seed=sampling_seed, denoiser=Shrunk(bench.network, scale), quiet=True)
        first, last = (1 / torch.as_tensor(scale, dtype=torch.float64).expand(T)[[0, -1]]).tolist()
        found = [tables.add("tune", {
            **bench.facts, **drawn, "role": role, "scale": name, "lambda_first": round(first, 5), "lambda_last": round(last, 5),
            **judge.row(pixels), "command": command}, table) for judge in by]
        rows.extend(found)
        progress.set_postfix_str(f"λ {first:.4f} … {last:.4f}: {found[0]['fd']:.4g}", refresh=False)
        progress.update()
        return found[0]["fd"]

    fit = fit_line(lambda scale: measure("search", "line", scale, seed, judges[:1]), T, evaluations)
    scales = {"none": 1.0, "constant": line(*fit.constant, T), "line": line(*fit.line, T), **given}
    for held_out_seed in range(seed + 1, seed + 1 + held_out):
        for name, scale in scales.items():
            measure("held out", name, scale, held_out_seed, judges)
    progress.close()
    return rows


# The means of a scale's held-out measurements over the seeds, with standard errors. Changes are against no scaling, paired by seed; −0.1 is
# 10 % better.
Summary = namedtuple("Summary", "features scale lambda_first lambda_last fd fd_error fd_change fd_change_error kid kid_error kid_change "
                     "kid_change_error")


def summary(rows: list[dict]) -> list[Summary]:
    """Summarise the held-out rows of one run of `tune`, as returned or as read from the table, by features and scale."""
    kinds = dict.fromkeys(row["features"] for row in rows if row["role"] == "held out")
    return [found for kind in kinds for found in _summary([row for row in rows if (row["features"], row["role"]) == (kind, "held out")])]


def _summary(rows: list[dict]) -> list[Summary]:
    held_out: dict[str, dict[int, dict]] = {}  # scale → seed → row
    for row in rows:
        held_out.setdefault(row["scale"], {})[int(row["sampling_seed"])] = row
    seeds = sorted(set.intersection(*map(set, held_out.values())))  # a run stopped between scales leaves its last seed incomplete
    found = []
    for name, of_scale in held_out.items():
        numbers = [float(of_scale[seeds[0]][column]) for column in ("lambda_first", "lambda_last")]
        for measure in ("fd", "kid"):
            values, base = (torch.tensor([float(part[seed][measure]) for seed in seeds]) for part in (of_scale, held_out["none"]))
            for quantity in (values, values / base - 1):
                numbers += [float(quantity.mean()), float(quantity.std() / len(quantity) ** 0.5)]
        found.append(Summary(rows[0]["features"], name, *numbers))
    return found


def sentences(rows: list[dict]) -> str:
    """The rows of `tune` in words: each scale's summary, and the code that samples with the line found."""
    first, found = rows[0], summary(rows)
    seeds = len({row["sampling_seed"] for row in rows if row["role"] == "held out"})
    lines = [f"{first['sampler']}, {first['steps']} steps on the {first['spacing']} grid; fitted to the Fréchet distance in the features "
             f"{first['features']}; {seeds} held-out seeds of {first['samples']:,} samples each; changes are paired, ± standard error"]
    lines += [f"{s.features:20} {s.scale:10} λ {s.lambda_first:.4f} … {s.lambda_last:.4f}   FD {s.fd:8.4g} ± {s.fd_error:.2g} "
              f"({100 * s.fd_change:+.1f} ± {100 * s.fd_change_error:.1f} %)   "
              f"KID {s.kid:.3e} ({100 * s.kid_change:+.1f} ± {100 * s.kid_change_error:.1f} %)" for s in found]
    best = next(s for s in found if s.scale == "line")
    return "\n".join([*lines, f"To sample with it: Shrunk(network, line({best.lambda_first}, {best.lambda_last}))  "
                              "# from s2dm_mini.theory.scales import line"])
