"""From rows of the ledger to changes with error bars.

A change is paired: the Fréchet distance of a network relative to that of the L_0 network of the same training seed, which saw the same
images, timesteps and noise, and samples from the same x_T. Its mean has an error over trainings and one over x_T (jackknife over blocks);
both together give Student's t with Welch and Satterthwaite's degrees of freedom.
"""
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from ..measure.errors import combined, interval, is_clear, jackknife_error, p_value
from .plan import FAMILIES, SETTINGS

Rows = Iterable[dict[str, str]]


@dataclass(frozen=True)
class Change:
    """The change of a distance against L_0's, relative to it (−0.05 is 5 % less), with standard errors of its mean.

    error_training: over training seeds. For one seed it is nan, or 0 if both sides are the same L_0 network, and the change is that of this
    network. error_noise: over x_T, by the jackknife, 0 if not known. error: both together,
    rather too large than too small, since both contain how networks differ on the same x_T.
    """

    setting: str
    scale: str
    features: str
    sampler: str
    spacing: str
    steps: int
    nfe: int
    values: tuple[float, ...]  # one a training seed
    base: float  # mean of L_0's own values
    left_out: tuple[tuple[float, ...], ...] = ()  # for each set of x_T: mean of the values without one of its blocks at a time

    mean = property(lambda self: fmean(self.values))
    error_noise = property(lambda self: math.hypot(*(error for error, _ in self._of_sets)))
    error = property(lambda self: combined(*self._errors)[0])
    p = property(lambda self: p_value(self.mean, *self._errors), doc="Never below 1 with one seed.")
    interval = property(lambda self: interval(self.mean, *self._errors), doc="95 %.")
    clear = property(lambda self: is_clear(self.mean, *self._errors), doc="Whether the 95 % interval excludes 0; never with one seed.")
    place = property(lambda self: (self.sampler, self.spacing, self.steps))

    @property
    def error_training(self) -> float:
        if len(self.values) > 1:
            return stdev(self.values) / math.sqrt(len(self.values))
        return 0.0 if self.setting == "l0" and self.left_out else math.nan

    @property
    def _of_sets(self) -> list[tuple[float, int]]:
        return [(jackknife_error(blocks) / len(self.left_out), len(blocks) - 1) for blocks in self.left_out]

    @property
    def _errors(self) -> list[tuple[float, int]]:
        return [(self.error_training, len(self.values) - 1), *self._of_sets]

    def __str__(self) -> str:
        said = f"{100 * self.mean:+.1f}" + (f" ± {100 * self.error:.1f}" if self.error == self.error else "") + " %"
        return f"**{said}**" if self.clear else said


def changes(rows: Rows, column: str = "fd") -> list[Change]:
    """Every network, scale, kind of features, sampler, grid and step count against L_0; in the order of SETTINGS, steps rising.

    A network's value is its mean over the sets of x_T that all its partners have.
    """
    cells: dict[tuple, dict[str, dict[str, dict]]] = defaultdict(lambda: defaultdict(dict))  # cell → training seed → set of x_T → row
    for row in rows:
        place = (row[name] for name in ("sampler", "spacing", "steps", "samples", "features_sha256"))
        cells[(row["setting"], row["scale"], *place)][row["training_seed"]][row["sampling_seed"]] = row
    found = []
    for (setting, scale, *place), by_seed in cells.items():
        base = cells.get(("l0", "none", *place), {})
        seeds = sorted(by_seed.keys() & base.keys())
        if not seeds or (setting, scale) == ("l0", "none"):
            continue
        sets = sorted(set.intersection(*(by_seed[seed].keys() & base[seed].keys() for seed in seeds)))
        if not sets:
            continue
        pairs = {(seed, x_T): (by_seed[seed][x_T], base[seed][x_T]) for seed in seeds for x_T in sets}
        values = tuple(fmean(_ratio(pairs[seed, x_T], column) for x_T in sets) for seed in seeds)
        left_out = []
        for x_T in sets:
            blocks = [[row.get(f"{column}_left_out", "").split() for row in pairs[seed, x_T]] for seed in seeds]
            without = [[float(ours) / float(l0) - 1 for ours, l0 in zip(*pair, strict=True)] for pair in blocks]
            left_out.append(tuple(map(fmean, zip(*without, strict=True))))
        any_row, l0_rows = pairs[seeds[0], sets[0]][0], [l0 for _, l0 in pairs.values()]
        found.append(Change(setting, scale, any_row["features"], *place[:2], int(place[2]), int(any_row["nfe"]), values,
                            fmean(float(l0[column]) for l0 in l0_rows), tuple(filter(None, left_out))))
    return sorted(found, key=lambda c: (list(SETTINGS).index(c.setting), c.scale, c.features, *c.place))


def _ratio(pair: tuple[dict, dict], column: str) -> float:
    ours, l0 = (float(row[column]) for row in pair)
    return ours / l0 - 1


def _zipped(function, *all_changes: Change) -> Change:
    """The change whose values, per training seed and per left-out block, are `function` of those of the given changes.

    Its error over x_T is that over the sets which all of them have: too large, not too small, where some have more.
    """
    values = tuple(map(function, zip(*(c.values for c in all_changes), strict=True)))
    left_out = tuple(tuple(map(function, zip(*blocks, strict=True))) for blocks in zip(*(c.left_out for c in all_changes), strict=False))
    return replace(all_changes[0], values=values, left_out=left_out)


def apart(a: Change, b: Change) -> Change:
    """The difference of two changes, relative to L_0's distance and paired by training seed and by x_T."""
    return _zipped(lambda pair: pair[0] - pair[1], a, b)


def pooled(strata: Sequence[Change]) -> Change:
    """The mean of changes over their strata, paired by training seed and by x_T. All must rest on as many seeds."""
    return _zipped(fmean, *strata)


def count(cells: Sequence[Change]) -> str:
    """The numbers of cells that are clearly better, clearly worse or within the error, and the range of their changes."""
    better, worse = (sum(c.clear and sign * c.mean > 0 for c in cells) for sign in (-1, 1))
    low, high = min(c.mean for c in cells), max(c.mean for c in cells)
    return (f"{better} of {len(cells)} cells clearly better, {worse} clearly worse, {len(cells) - better - worse} within the error; "
            f"changes from {100 * low:+.1f} % to {100 * high:+.1f} %")


def change_table(cells: Iterable[Change]) -> str:
    """Changes in one kind of features as a Markdown table: a row a network and scale, a column a sampler, a grid and a step count."""
    by_row: dict[str, dict[tuple, str]] = defaultdict(dict)  # network and scale → place → change
    places = set()
    for c in cells:
        by_row[title(c.setting, c.scale)][c.place] = str(c)
        places.add((*c.place, c.nfe))
    grids = len({grid for _, grid, *_ in places})
    names = [f"{FAMILIES.get(sampler, sampler)}, {f'{grid}, ' if grids > 1 else ''}{steps} steps ({nfe})"
             for sampler, grid, steps, nfe in sorted(places)]
    lines = [f"| | {' | '.join(names)} |", "| --- |" + " ---: |" * len(places)]
    for name, row in by_row.items():
        lines.append(f"| {name} | " + " | ".join(row.get(tuple(place), "") for *place, _ in sorted(places)) + " |")
    return "\n".join(lines)


def title(setting: str, scale: str) -> str:
    """The name of a network and its scale in tables."""
    name = SETTINGS[setting].title
    if scale.startswith("s2dm"):
        like = SETTINGS[scale].title if scale in SETTINGS else f"S²-DM^{scale[4:]}"
        return f"{name} shrunk like {like}, no training"
    return f"{name}, ε/{scale[1:]}" if scale.startswith("b") else name
