"""From the ledger's rows to changes with error bars, and to a verdict on each claim of the paper.

A change is paired: the distance of a network relative to the L_0 network of the same training seed, which saw the same images, timesteps
and noise and samples from the same x_T. Its mean over the seeds has two errors: over trainings, and over the x_T that all networks share.
"""
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from ..checkpoints import manifest, sha256
from ..measure.errors import is_clear, jackknife_error
from ..measure.features import CLASSIFIERS
from ..support.files import write_whole
from .ledger import table_of
from .plan import FAMILIES, PAPER, SETTINGS
from .tables import RESULTS, read_rows

Rows = Iterable[dict[str, str]]


@dataclass(frozen=True)
class Change:
    """The change of a distance against L_0's, relative to it (−0.05 is 5 % less), with standard errors of its mean.

    error_training: over training seeds, nan for one seed. error_noise: over sets of x_T, by the jackknife, 0 if not known. error: both
    together, rather too large than too small, since both contain how networks differ on the same x_T.
    """

    setting: str
    scale: str
    sampler: str
    spacing: str
    steps: int
    nfe: int
    values: tuple[float, ...]  # one a training seed
    base: float  # mean of L_0's own values
    left_out: tuple[float, ...] = ()  # mean of the values without one block of x_T at a time; () if not known

    mean = property(lambda self: mean(self.values))
    error_training = property(lambda self: stdev(self.values) / math.sqrt(len(self.values)) if len(self.values) > 1 else math.nan)
    error_noise = property(lambda self: jackknife_error(self.left_out) if self.left_out else 0.0)
    error = property(lambda self: math.hypot(self.error_training, self.error_noise))
    place = property(lambda self: (self.sampler, self.spacing, self.steps))

    @property
    def clear(self) -> bool:
        """Whether the 95 % interval excludes 0; never with one seed."""
        return is_clear(self.mean, (self.error_training, len(self.values) - 1), (self.error_noise, len(self.left_out) - 1))

    def __str__(self) -> str:
        said = f"{100 * self.mean:+.1f}" + (f" ± {100 * self.error:.1f}" if len(self.values) > 1 else "") + " %"
        return f"**{said}**" if self.clear else said


def changes(rows: Rows, column: str = "fd") -> list[Change]:
    """Every network, scale, sampler, grid and step count against L_0; networks in the order of SETTINGS, steps rising."""
    cells: dict[tuple, dict[str, dict]] = defaultdict(dict)  # (setting, scale, *place) → training seed → row
    for row in rows:
        place = (row[name] for name in ("sampler", "spacing", "steps", "sampling_seed", "samples", "features_sha256"))
        cells[(row["setting"], row["scale"], *place)][row["training_seed"]] = row
    found = []
    for (setting, scale, *place), by_seed in cells.items():
        base = cells.get(("l0", "none", *place), {})
        pairs = [(row, base[seed]) for seed, row in sorted(by_seed.items()) if seed in base]
        if pairs and (setting, scale) != ("l0", "none"):
            values = [float(ours[column]) / float(l0[column]) - 1 for ours, l0 in pairs]
            blocks = [[row.get(f"{column}_left_out", "").split() for row in pair] for pair in pairs]
            without = [[float(ours) / float(l0) - 1 for ours, l0 in zip(*pair, strict=True)] for pair in blocks]
            found.append(Change(setting, scale, *place[:2], int(place[2]), int(pairs[0][0]["nfe"]), tuple(values),
                                mean(float(l0[column]) for _, l0 in pairs), tuple(map(mean, zip(*without, strict=True)))))
    return sorted(found, key=lambda c: (list(SETTINGS).index(c.setting), c.scale, *c.place))


def apart(a: Change, b: Change) -> Change:
    """The difference of two changes, relative to L_0's distance and paired by training seed and by x_T."""
    values, left_out = (tuple(x - y for x, y in zip(*both, strict=True)) for both in ((a.values, b.values), (a.left_out, b.left_out)))
    return replace(a, values=values, left_out=left_out)


def count(cells: list[Change]) -> str:
    """The numbers of cells that are clearly better, clearly worse or within the error, and the range of their changes."""
    better, worse = (sum(c.clear and sign * c.mean > 0 for c in cells) for sign in (-1, 1))
    low, high = min(c.mean for c in cells), max(c.mean for c in cells)
    return (f"{better} of {len(cells)} cells clearly better, {worse} clearly worse, {len(cells) - better - worse} within the error; "
            f"changes from {100 * low:+.1f} % to {100 * high:+.1f} %")


class Verdict(NamedTuple):
    """A claim of the paper, judged with its evidence."""

    claim: str
    verdict: str  # reproduced, not reproduced, not tested here
    evidence: str


def _judged(claim: str, reproduced: bool | None, evidence: str) -> Verdict:
    return Verdict(claim, {True: "reproduced", False: "not reproduced", None: "not tested here"}[reproduced], evidence)


def verdicts(rows: Rows, strips: Rows = (), cost: Rows = ()) -> list[Verdict]:
    """A verdict on each claim of the paper, by rules fixed before the numbers were known.

    rows: of a ledger; strips: of interpolation.csv; cost: of cost-cpu.csv. A gain is reproduced only if every cell is clearly better.
    Claims are judged on the quadratic grid, DDIM's for CIFAR-10; the uniform grid and DDPM are controls.
    """
    rows = list(rows)
    found = changes(rows)
    paper = [c for c in found if c.setting in PAPER and c.scale == "none" and c.sampler in FAMILIES and c.spacing == "quadratic"]
    others = sorted({row["data"] for row in rows} - {"cifar10-train"})
    claim = "CIFAR-10: the distance falls by 3.27 to 14.06 %, over samplers and steps"
    return [
        _judged(claim, None, f"these networks were trained on {others[0]}") if others else _gain(claim, paper),
        *(_gain(f"It helps with any sampler: {title}", [c for c in paper if c.sampler == sampler]) for sampler, title in FAMILIES.items()),
        *(_gain(f"It helps with this skip: {SETTINGS[setting].title}", [c for c in paper if c.setting == setting]) for setting in PAPER),
        _tau(found), _interpolation(strips), _cost(cost),
        _judged("CelebA: the distance falls by 8.97 to 27.08 %", None, "no CelebA network has been trained")]


def _gain(claim: str, cells: list[Change]) -> Verdict:
    cells = [c for c in cells if len(c.values) > 1]
    if not cells:
        return _judged(claim, None, "no cell with more than one training seed")
    return _judged(claim, all(c.clear and c.mean < 0 for c in cells), count(cells))


def _tau(found: list[Change]) -> Verdict:
    """Reproduced if, in every cell, τ = 0.9 and τ = 0.999 are both clearly worse than the claimed optimum τ = 0.99."""
    claim = "τ = 0.99 is the right balance (S²-DM^50)"
    low, middle, high = ({c.place: c for c in found if c.setting == name and c.scale == "none"}
                         for name in ("s2dm50-tau0.9", "s2dm50", "s2dm50-tau0.999"))
    cells = [(low[place], best, high[place]) for place, best in middle.items()
             if all(place in others and len(others[place].values) == len(best.values) for others in (low, high))]
    if not cells:
        return _judged(claim, None, "no cell with all of τ = 0.9, 0.99 and 0.999")
    worse = [(apart(below, best), apart(above, best)) for below, best, above in cells]
    said = [f"{FAMILIES.get(best.sampler, best.sampler)}, {best.steps} steps: τ 0.9 {below}, τ 0.99 {best}, τ 0.999 {above}; "
            f"apart from τ 0.99, paired: τ 0.9 {gap_below}, τ 0.999 {gap_above}"
            for (below, best, above), (gap_below, gap_above) in zip(cells, worse, strict=True)]
    return _judged(claim, all(c.clear and c.mean > 0 for gaps in worse for c in gaps), "; ".join(said))


def _interpolation(rows: Rows) -> Verdict:
    """Reproduced if no measure is clearly larger, that is worse, than L_0's on the same noises, over the training seeds."""
    claim = "Interpolation between latents keeps working (S²-DM^50)"
    by_measure: dict[str, dict[str, dict]] = defaultdict(dict)  # measure → network → row
    for row in rows:
        names = [Path(row[side]).parent.name.rpartition(".")[0] for side in ("checkpoint", "against")]  # …/s2dm50.0/model.safetensors
        if names == ["s2dm50", "l0"] and row["way"] == row["against_way"] == "slerp":
            by_measure[row["measure"]][row["checkpoint"]] = row
    if not by_measure or min(map(len, by_measure.values())) < 2:
        return _judged(claim, None, "no strips of more than one training seed")
    pairs = {row["pairs"] for networks in by_measure.values() for row in networks.values()}
    said, worse = [], False
    for measure, networks in by_measure.items():
        # Differences, not ratios: the midpoints' excess of L_0 is near 0.
        values, errors = ([float(row[name]) for row in networks.values()] for name in ("difference", "difference_error"))
        change, over_trainings = mean(values), stdev(values) / math.sqrt(len(values))
        over_pairs = mean(errors)  # all networks share the pairs: more networks do not make this error smaller
        clear = is_clear(change, (over_trainings, len(values) - 1), (over_pairs, int(min(pairs, key=int)) - 1))
        worse |= clear and change > 0
        said.append(f"{measure} {'**' * clear}{change:+.3f} ± {math.hypot(over_trainings, over_pairs):.3f}{'**' * clear}")
    return _judged(claim, not worse, f"differences from L₀ over {' or '.join(pairs)} pairs: " + "; ".join(said))


def _cost(rows: Rows) -> Verdict:
    """Reproduced if the upper end of the 95 % interval of a step's time is within 5 % of L_0's."""
    claim, found = "Training with the released loss costs next to nothing more", {row["loss"]: row for row in rows}
    if "independent" not in found:
        return _judged(claim, None, "no step has been timed")
    ratio, error = (float(found["independent"][name]) for name in ("ratio", "ratio_error"))
    said = ", ".join(f"`{name}` {float(row['ratio']):.3f} ± {float(row['ratio_error']):.3f}" for name, row in found.items() if name != "l0")
    return _judged(claim, ratio + 1.96 * error < 1.05,
                      f"time of a step over that of L₀, `{found['independent']['preset']}` on a CPU: {said}")


def other_results() -> dict[str, list[dict[str, str]]]:
    """The tables that `verdicts` needs beside a ledger: strips in the present classifier's features, and the cost of a step."""
    strips, cost = (read_rows(path) if path.exists() else [] for path in (RESULTS / "interpolation.csv", RESULTS / "cost-cpu.csv"))
    now = manifest()[CLASSIFIERS["own"]]["sha256"][:16]
    return {"strips": [row for row in strips if row["features_sha256"] == now], "cost": cost}


def write_report(size: str = "cpu", table: Path | None = None) -> str:
    """Judge each claim of the paper by the ledger, and write verdicts-SIZE.md beside its table.

    Args:
        size: of the ledger, quick, cpu or full
        table: the ledger; by default data/results/ledger-SIZE.csv
    """
    table = table or table_of(size)
    text = report(size, table)
    write_whole(table.with_name(f"verdicts-{size}.md"), text.encode())
    return text


def report(size: str, table: Path) -> str:
    """The results of a ledger as Markdown: verdicts, changes, and the SHA-256 of the table."""
    rows = read_rows(table)
    found, devices = changes(rows), dict.fromkeys(row["device"] for row in rows)
    parts = [
        f"# What data/results/{table.name} comes to",
        f"Written by `python -m s2dm_mini verdicts --size {size}`; SHA-256 of the table: {sha256(table)}.",
        f"{len(rows)} measurements, {rows[0]['samples']} samples each, of networks that have seen {int(rows[0]['images_seen']):,} images; "
        f"Fréchet distance in the features of {rows[0]['features']}, which is not FID; {' and '.join(devices)}. Changes are relative to "
        "the L₀ network of the same training seed: mean ± standard error, over training seeds and over the noises that samples start from, "
        "bold where the 95 % interval leaves out 0. In brackets: network evaluations.",
        "## Verdicts", verdict_table(verdicts(rows, **other_results())), "## Changes of the distance",
    ]
    for sampler, spacing in dict.fromkeys((c.sampler, c.spacing) for c in found):
        parts += [f"On the {spacing} grid:", change_table(c for c in found if (c.sampler, c.spacing) == (sampler, spacing))]
    return "\n\n".join(parts) + "\n"


def verdict_table(judged: Iterable[Verdict]) -> str:
    """Verdicts as a Markdown table."""
    return "\n".join(["| claim | verdict | evidence |", "| --- | --- | --- |", *(f"| {' | '.join(verdict)} |" for verdict in judged)])


def change_table(cells: Iterable[Change]) -> str:
    """Changes as a Markdown table: a row a network and scale, a column a sampler and step count; bold where clear."""
    by_row: dict[str, dict[tuple, str]] = defaultdict(dict)  # network and scale → place → change
    places = set()
    for c in cells:
        by_row[title(c.setting, c.scale)][c.place] = str(c)
        places.add((*c.place, c.nfe))
    names = [f"{FAMILIES.get(sampler, sampler)}, {steps} steps ({nfe})" for sampler, _, steps, nfe in sorted(places)]
    lines = [f"| | {' | '.join(names)} |", "| --- |" + " ---: |" * len(places)]
    for name, row in by_row.items():
        lines.append(f"| {name} | " + " | ".join(row.get(tuple(place), "") for *place, _ in sorted(places)) + " |")
    return "\n".join(lines)


def title(setting: str, scale: str) -> str:
    """The name of a network and its scale in tables."""
    name = SETTINGS[setting].title
    if scale.startswith("s2dm"):
        return f"{name} shrunk like S²-DM^{scale[4:]}, no training"
    return f"{name}, ε/{scale[1:]}" if scale.startswith("b") else name
