"""From the ledger's rows to changes with error bars, and from those to a verdict for each claim of the paper.

A change is paired: the distance of a network over that of the L_0 network of the same training seed, which saw the same images,
timesteps and noise and started its samples from the same x_T. Its mean over the seeds has two errors: other trainings would have given
another one, and so would other x_T, which all networks share. It is called clear if the 95 % interval of Student's t leaves 0 out.
"""
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

from ..checkpoints import manifest, sha256
from ..measure.errors import is_clear, jackknife_error
from ..measure.features import CLASSIFIER
from .plan import FAMILIES, PAPER, TITLES
from .tables import RESULTS, read_rows


@dataclass(frozen=True)
class Change:
    """How a column changes against L_0, relative to it: −0.05 is 5 % less."""

    setting: str
    scale: str
    sampler: str
    spacing: str
    steps: int
    nfe: int
    values: tuple[float, ...]  # one a training seed
    base: float  # mean of L_0's own values
    left_out: tuple[float, ...] = ()  # the mean of the values with one block of x_T left out at a time; () where that is not known

    @property
    def mean(self) -> float:
        return mean(self.values)

    @property
    def error_training(self) -> float:
        """Standard error of the mean from one training seed to the next; nan for one seed."""
        return stdev(self.values) / math.sqrt(len(self.values)) if len(self.values) > 1 else math.nan

    @property
    def error_noise(self) -> float:
        """Standard error of the mean from one set of x_T to the next, by the jackknife; 0 where that is not known."""
        return jackknife_error(self.left_out) if self.left_out else 0.0

    @property
    def error(self) -> float:
        """Both together. What a network makes of its x_T is in either, so it is rather too large than too small."""
        return math.hypot(self.error_training, self.error_noise)

    @property
    def clear(self) -> bool:
        """Whether the 95 % interval leaves 0 out; never with one seed."""
        return is_clear(self.mean, (self.error_training, len(self.values) - 1), (self.error_noise, len(self.left_out) - 1))

    def __str__(self) -> str:
        said = f"{100 * self.mean:+.1f}" + (f" ± {100 * self.error:.1f}" if len(self.values) > 1 else "") + " %"
        return f"**{said}**" if self.clear else said


def changes(rows: Iterable[dict[str, str]], column: str = "fd") -> list[Change]:
    """Every network, scale, sampler, grid and step count of the ledger against L_0; networks in the order of TITLES, steps rising."""
    place = ("sampler", "spacing", "steps", "sampling_seed", "samples", "features_sha256")
    base: dict[tuple, dict] = {}
    found: dict[tuple, dict[str, dict]] = {}
    for row in rows:
        where = tuple(row[name] for name in place)
        if row["setting"] == "l0" and row["scale"] == "none":
            base[(*where, row["training_seed"])] = row
        else:
            found.setdefault((row["setting"], row["scale"], *where), {})[row["training_seed"]] = row
    result = []
    for (setting, scale, *where), by_seed in found.items():
        pairs = [(row, base[(*where, seed)]) for seed, row in sorted(by_seed.items()) if (*where, seed) in base]
        if pairs:
            row = pairs[0][0]
            by_block = [[ours / l0 - 1 for ours, l0 in zip(*(map(float, one.get(f"{column}_left_out", "").split()) for one in pair),
                                                           strict=True)] for pair in pairs]
            result.append(Change(setting, scale, row["sampler"], row["spacing"], int(row["steps"]), int(row["nfe"]),
                                 tuple(float(ours[column]) / float(l0[column]) - 1 for ours, l0 in pairs),
                                 mean(float(l0[column]) for _, l0 in pairs), tuple(map(mean, zip(*by_block, strict=True)))))
    return sorted(result, key=lambda c: (list(TITLES).index(c.setting), c.scale, c.sampler, c.spacing, c.steps))


def count(cells: list[Change]) -> str:
    """How many cells are clearly better, clearly worse, or within the error, and how far they go."""
    better, worse = (sum(c.clear and sign * c.mean > 0 for c in cells) for sign in (-1, 1))
    low, high = min(c.mean for c in cells), max(c.mean for c in cells)
    return (f"{better} of {len(cells)} cells clearly better, {worse} clearly worse, {len(cells) - better - worse} within the error; "
            f"changes from {100 * low:+.1f} % to {100 * high:+.1f} %")


@dataclass(frozen=True)
class Verdict:
    claim: str
    verdict: str  # reproduced, not reproduced, not tested here
    evidence: str


def verdicts(rows: Iterable[dict[str, str]], strips: Iterable[dict[str, str]] = (),
             cost: Iterable[dict[str, str]] = ()) -> list[Verdict]:
    """One for each claim of the paper that can be put to the test here; rules that were fixed before the numbers were there.

    rows: of a ledger; strips: of interpolation.csv; cost: of cost-cpu.csv. A claim of a gain is reproduced if every cell is clearly
    better, and not reproduced otherwise; the evidence counts the cells. Claims are judged on the quadratic
    grid, DDIM's for CIFAR-10; the uniform one, and DDPM, are controls.
    """
    rows = list(rows)
    found = changes(rows)
    paper = [c for c in found if c.setting in PAPER and c.scale == "none" and c.sampler in FAMILIES and c.spacing == "quadratic"]
    others = sorted({row["data"] for row in rows} - {"cifar10-train"})
    claim = "CIFAR-10: the distance falls by 3.27 to 14.06 %, over samplers and steps"
    judged = [Verdict(claim, "not tested here", f"these networks were trained on {others[0]}") if others else _gain(claim, paper)]
    for sampler, title in FAMILIES.items():
        judged.append(_gain(f"It helps with any sampler: {title}", [c for c in paper if c.sampler == sampler]))
    for setting in PAPER:
        judged.append(_gain(f"It helps with this skip: S²-DM^{setting[4:]}", [c for c in paper if c.setting == setting]))
    judged += [_tau(found), _interpolation(strips), _cost(cost)]
    judged.append(Verdict("CelebA: the distance falls by 8.97 to 27.08 %", "not tested here", "no CelebA network has been trained"))
    return judged


def _gain(claim: str, cells: list[Change]) -> Verdict:
    cells = [c for c in cells if len(c.values) > 1]
    if not cells:
        return Verdict(claim, "not tested here", "no cell with more than one training seed")
    return Verdict(claim, "reproduced" if all(c.clear and c.mean < 0 for c in cells) else "not reproduced", count(cells))


def _tau(found: list[Change]) -> Verdict:
    """τ = 0.99 is claimed to be the right balance: both neighbours must be clearly worse than it, cell by cell."""
    claim = "τ = 0.99 is the right balance (S²-DM^50)"
    by_tau = {tau: {(c.sampler, c.spacing, c.steps): c for c in found if c.setting == name and c.scale == "none"}
              for tau, name in ((0.9, "s2dm50-tau0.9"), (0.99, "s2dm50"), (0.999, "s2dm50-tau0.999"))}
    cells = [place for place, cell in by_tau[0.99].items()
             if all(place in of_tau and len(of_tau[place].values) == len(cell.values) for of_tau in by_tau.values())]
    if not cells:
        return Verdict(claim, "not tested here", "no cell with all of τ = 0.9, 0.99 and 0.999")
    said, all_worse = [], True
    for place in cells:
        here = {tau: of_tau[place] for tau, of_tau in by_tau.items()}
        worse = [apart(here[tau], here[0.99]) for tau in (0.9, 0.999)]
        all_worse &= all(c.clear and c.mean > 0 for c in worse)
        said.append(f"{FAMILIES.get(place[0], place[0])}, {place[2]} steps: " + ", ".join(f"τ {tau} {cell}" for tau, cell in here.items())
                    + f"; apart from τ 0.99, paired: τ 0.9 {worse[0]}, τ 0.999 {worse[1]}")
    return Verdict(claim, "reproduced" if all_worse else "not reproduced", "; ".join(said))


def apart(a: Change, b: Change) -> Change:
    """By how much of L_0's distance two changes differ, paired by training seed and by x_T."""
    values, left_out = (tuple(x - y for x, y in zip(*both, strict=True)) for both in ((a.values, b.values), (a.left_out, b.left_out)))
    return replace(a, values=values, left_out=left_out)


def _interpolation(rows: Iterable[dict[str, str]]) -> Verdict:
    """Interpolation is kept if no measure is clearly worse, that is larger, than L_0's on the same noises, over the training seeds."""
    claim, by_measure = "Interpolation between latents keeps working (S²-DM^50)", {}
    for row in rows:
        names = [Path(row[side]).parent.name.rpartition(".")[0] for side in ("checkpoint", "against")]  # …/s2dm50.0/model.safetensors
        if names == ["s2dm50", "l0"] and row["way"] == row["against_way"] == "slerp":
            by_measure.setdefault(row["measure"], {})[row["checkpoint"]] = row
    if not by_measure or min(map(len, by_measure.values())) < 2:
        return Verdict(claim, "not tested here", "no strips of more than one training seed")
    pairs, cells = {row["pairs"] for by_seed in by_measure.values() for row in by_seed.values()}, {}
    for measure, by_seed in by_measure.items():
        # The differences themselves, since the midpoints' excess of L_0 is near 0.
        values, errors = ([float(row[name]) for row in by_seed.values()] for name in ("difference", "difference_error"))
        # All networks share the pairs, so the error over these does not shrink with the number of networks.
        parts = (stdev(values) / math.sqrt(len(values)), len(values) - 1), (mean(errors), int(min(pairs, key=int)) - 1)
        cells[measure] = mean(values), math.hypot(parts[0][0], parts[1][0]), is_clear(mean(values), *parts)
    worse = any(clear and change > 0 for change, _, clear in cells.values())
    said = f"differences from L₀ over {' or '.join(pairs)} pairs: " + "; ".join(
        f"{measure} {'**' * clear}{change:+.3f} ± {error:.3f}{'**' * clear}" for measure, (change, error, clear) in cells.items())
    return Verdict(claim, "not reproduced" if worse else "reproduced", said)


def _cost(rows: Iterable[dict[str, str]]) -> Verdict:
    """Next to nothing: the upper end of the 95 % interval of a step's time stays within 5 % of L_0's."""
    claim, found = "Training with the released loss costs next to nothing more", {row["loss"]: row for row in rows}
    if "independent" not in found:
        return Verdict(claim, "not tested here", "no step has been timed")
    ratio, error = (float(found["independent"][name]) for name in ("ratio", "ratio_error"))
    said = ", ".join(f"`{name}` {float(row['ratio']):.3f} ± {float(row['ratio_error']):.3f}" for name, row in found.items() if name != "l0")
    return Verdict(claim, "reproduced" if ratio + 1.96 * error < 1.05 else "not reproduced",
                   f"time of a step over that of L₀, `{found['independent']['preset']}` on a CPU: {said}")


def other_results() -> dict[str, list[dict[str, str]]]:
    """What `verdicts` needs beside a ledger: strips in the features of the classifier as it is now, and the cost of a step."""
    tables = {name: read_rows(path) if path.exists() else []
              for name, path in (("strips", RESULTS / "interpolation.csv"), ("cost", RESULTS / "cost-cpu.csv"))}
    now = manifest()[CLASSIFIER]["sha256"][:16]
    return tables | {"strips": [row for row in tables["strips"] if row["features_sha256"] == now]}


def verdict_table(judged: Iterable[Verdict]) -> str:
    """As Markdown."""
    lines = (f"| {v.claim} | {v.verdict} | {v.evidence} |" for v in judged)
    return "\n".join(["| claim | verdict | evidence |", "| --- | --- | --- |", *lines])


def report(size: str, table: Path) -> str:
    """What a ledger comes to, as Markdown: changes, verdicts, and the SHA-256 of the table that they were read off."""
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
    for place in dict.fromkeys((c.sampler, c.spacing) for c in found):
        parts += [f"On the {place[1]} grid:", change_table(c for c in found if (c.sampler, c.spacing) == place)]
    return "\n\n".join(parts) + "\n"


def change_table(cells: Iterable[Change]) -> str:
    """Rows: network and scale; columns: sampler and steps. As Markdown; bold where clear."""
    cells = list(cells)
    places = sorted({(c.sampler, c.spacing, c.steps, c.nfe) for c in cells})
    lines = ["| | " + " | ".join(f"{FAMILIES.get(sampler, sampler)}, {steps} steps ({nfe})" for sampler, _, steps, nfe in places) + " |",
             "| --- |" + " ---: |" * len(places)]
    by_place = {(c.setting, c.scale, c.sampler, c.spacing, c.steps): c for c in cells}
    for setting, scale in dict.fromkeys((c.setting, c.scale) for c in cells):
        row = [by_place.get((setting, scale, sampler, spacing, steps)) for sampler, spacing, steps, _ in places]
        lines.append(f"| {title(setting, scale)} | " + " | ".join("" if c is None else str(c) for c in row) + " |")
    return "\n".join(lines)


def title(setting: str, scale: str) -> str:
    """What to call a network and its scale in a table."""
    if scale.startswith("s2dm"):
        return f"{TITLES[setting]} shrunk like S²-DM^{scale[4:]}, no training"
    return f"{TITLES[setting]}, ε/{scale[1:]}" if scale.startswith("b") else TITLES[setting]
