"""A verdict on each claim of the paper, from the ledger's changes.

The rules. Their strata, the paper's range and the correction were fixed before the networks trained from nothing were measured; the page
Results so far lists each change with its commit.

1. A stratum is one sampler, grid and number of steps in one kind of features. Skip and τ are fixed in advance. Its change (`changes.py`)
   is *in the paper's range* (below 0, its 95 % interval overlaps −14.06 … −3.27 %), *supported* (below 0, outside that range) or
   *contradicted* (above 0), at the 5 % level after Holm's correction within the family: the strata of one claim in one kind of features.
   Else it is *below* or *above 0 before correction* (its 95 % interval leaves out 0), *inconclusive* (it holds 0 and −3.27 %) or *smaller
   than claimed* (it holds 0 and excludes −3.27 %). A stratum that lacks a training seed waits.
2. A claim says that the distance falls in all of its strata. In one kind of features it is *mixed* if some strata are below 0 and others
   above; else it gets the word of the mean over its strata, after Holm's correction over all such claims. These overlap: those about a
   sampler or a grid average the cells of those about a loss. So the correction is strict.
3. A claim that is above 0 in some features and below in others, or mixed in some only, *depends on the yardstick*. Other words that differ
   are named, or with more than two the claim *differs, by the yardstick*.
4. τ = 0.99 is the right balance if 0.9 and 0.999 are both above it in every stratum, and is not if one of them is below it in one.
5. Interpolation is *not shown to be worse* if no measure is larger than L_0's on the same noises, after Holm's correction.
"""
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev

from ..checkpoints import manifest, sha256
from ..measure.errors import combined, holm, p_value
from ..measure.features import CLASSIFIERS
from ..support.files import write_whole
from .changes import Change, Rows, apart, change_table, changes, pooled
from .ledger import table_of
from .plan import FAMILIES, PAPER, SETTINGS
from .tables import RESULTS, read_rows

CLAIMED = (-0.1406, -0.0327)  # the paper's changes of CIFAR-10's FID
GAINS = ("in the paper's range", "supported")
NOT_TESTED = "not tested here"


@dataclass(frozen=True)
class Verdict:
    """A claim of the paper, judged."""

    claim: str
    verdict: str
    evidence: str = ""  # of a claim that is judged once
    by_features: dict[str, str] = field(default_factory=dict)  # of a claim about distances: features → word and numbers


def word(change: Change, p: float) -> str:
    """The word of rule 1 for a change. p: its p-value after Holm's correction."""
    low, high = change.interval
    if p < 0.05:
        return "contradicted" if change.mean > 0 else GAINS[not (low <= CLAIMED[1] and high >= CLAIMED[0])]
    if high < 0 or low > 0:
        return f"{'below' if high < 0 else 'above'} 0 before correction"
    return "inconclusive" if low <= CLAIMED[1] else "smaller than claimed"


def verdicts(rows: Rows, strips: Rows = (), cost: Rows = ()) -> list[Verdict]:
    """A verdict on each claim of the paper, by the rules above. rows: of a ledger; strips: of interpolation.csv; cost: of cost-cpu.csv.

    Trained networks of one seed have no error over trainings and are left out; so are samplers that add noise, which are controls.
    """
    rows = list(rows)
    known = [c for c in changes(rows) if c.error == c.error]
    found = [c for c in known if c.scale == "none"]
    paper = [c for c in found if c.setting in PAPER and c.sampler in FAMILIES]
    closed = [c for c in known if c.setting == "l0" and c.scale in PAPER and c.sampler in FAMILIES]
    others = sorted({row["data"] for row in rows} - {"cifar10-train"})
    on_cifar10 = [] if others else paper
    claims = {
        **{f"CIFAR-10: {SETTINGS[name].title} lowers the distance (claimed: by 3.27 to 14.06 %)":
           [c for c in on_cifar10 if c.setting == name] for name in PAPER},
        **{f"CIFAR-10: so does the factor s_t of {SETTINGS[name].title} alone, without training":
           [c for c in closed if c.scale == name and not others] for name in PAPER},
        **{f"It helps with any sampler: {title}": [c for c in paper if c.sampler == name] for name, title in FAMILIES.items()},
        **{f"It helps on any grid: {name}": [c for c in paper if c.spacing == name] for name in ("uniform", "quadratic")}}
    return [*_distances_fall(claims), _tau(known), _interpolation(strips), _cost(cost),
            Verdict("CelebA: the distance falls by 8.97 to 27.08 %", NOT_TESTED, "no CelebA network has been trained")]


def _distances_fall(claims: dict[str, list[Change]]) -> list[Verdict]:
    """Rules 1 to 3. Strata that lack a training seed, in a ledger that is being filled, are left out."""
    words, said = ({claim: {} for claim in claims} for _ in range(2))
    seeds = max((len(c.values) for cells in claims.values() for c in cells), default=0)
    claims = {claim: [c for c in cells if len(c.values) == seeds] for claim, cells in claims.items()}
    for kind in dict.fromkeys(c.features for cells in claims.values() for c in cells):
        strata = {claim: of_kind for claim, cells in claims.items() if (of_kind := [c for c in cells if c.features == kind])}
        means = [pooled(cells) for cells in strata.values()]
        for (claim, cells), mean, p in zip(strata.items(), means, holm([mean.p for mean in means]), strict=True):
            each = [word(c, p) for c, p in zip(cells, holm([c.p for c in cells]), strict=True)]
            better, worse = sum(said in GAINS for said in each), each.count("contradicted")
            words[claim][kind] = "mixed" if better and worse else word(mean, p)
            said[claim][kind] = f"{words[claim][kind]}: {mean}; of {len(each)} strata {better} below 0, {worse} above"
    return [Verdict(claim, _together(words[claim].values()), by_features=said[claim]) for claim in claims]


def _together(words: Iterable[str]) -> str:
    """One verdict from the words that the kinds of features have for a claim."""
    found = sorted(set(words))
    if len(found) < 2:
        return found[0] if found else NOT_TESTED
    if "mixed" in found or ("contradicted" in found and set(found) & set(GAINS)):
        return "depends on the yardstick"
    return (" or ".join(found) if len(found) == 2 else "differs") + ", by the yardstick"


def _tau(known: list[Change]) -> Verdict:
    """Supported where τ = 0.9 and 0.999 are both worse than 0.99 in every stratum, contradicted where one is better, after Holm.

    Trained networks are compared where the ledger has them for several τ, else L_0's under the factors s_t, which need no training.
    """
    others, seeds = ("s2dm50-tau0.9", "s2dm50-tau0.999"), max((len(c.values) for c in known), default=0)
    trained = {(c.setting, c.features, *c.place): c for c in known if c.scale == "none"}
    closed = {(c.scale, c.features, *c.place): c for c in known if c.setting == "l0"}
    of_trained = any(name in others for name, *_ in trained)
    by_cell, words, said = trained if of_trained else closed, {}, {}
    for kind in dict.fromkeys(c.features for c in by_cell.values()):
        gaps = {(name, c.place): apart(other, c) for (best, *_), c in by_cell.items() if (best, c.features) == ("s2dm50", kind)
                for name in others if (other := by_cell.get((name, kind, *c.place))) and len(other.values) == len(c.values) == seeds}
        if gaps:
            clear = [gap.mean for gap, p in zip(gaps.values(), holm([gap.p for gap in gaps.values()]), strict=True) if p < 0.05]
            words[kind] = "contradicted" if min(clear, default=0) < 0 else "supported" if len(clear) == len(gaps) else "inconclusive"
            said[kind] = f"{words[kind]}: minus τ 0.99{'' if of_trained else ', closed forms'}, in percentage points, " + "; ".join(
                f"{FAMILIES.get(sampler, sampler)}, {spacing}, {steps} steps, τ {name.partition('tau')[2]} {str(gap).replace(' %', '')}"
                for (name, (sampler, spacing, steps)), gap in gaps.items())
    return Verdict("τ = 0.99 is the right balance (S²-DM^50)", _together(words.values()), by_features=said)


# A longer mean step is not worse, and a round trip without refinement measures how DDIM inverts, not how it interpolates.
_ROUND_TRIPS = [f"{trip}, {measure}" for trip in ("round trip", "real pictures, 0 refinements") for measure in ("grey levels", "fidelity")]
NOT_JUDGED = ("mean step", *_ROUND_TRIPS)


def _interpolation(rows: Rows) -> Verdict:
    """Contradicted if a measure is larger, that is worse, than L_0's on the same noises, over the training seeds and after Holm."""
    claim = "Interpolation between latents keeps working (S²-DM^50)"
    by_measure: dict[str, dict[str, dict]] = defaultdict(dict)  # measure → network → row
    for row in rows:
        names = [Path(row[side]).parent.name.rpartition(".")[0] for side in ("checkpoint", "against")]  # …/s2dm50.0/model.safetensors
        if names == ["s2dm50", "l0"] and row["way"] == row["against_way"] == "slerp" and row["measure"] not in NOT_JUDGED:
            by_measure[row["measure"]][row["checkpoint"]] = row
    if not by_measure or min(map(len, by_measure.values())) < 2:
        return Verdict(claim, NOT_TESTED, "no strips of more than one training seed")
    pairs = {row["pairs"] for networks in by_measure.values() for row in networks.values()}
    tests = {}
    for measure, networks in by_measure.items():
        # Differences, not ratios: the midpoints' excess of L_0 is near 0.
        values, errors = ([float(row[name]) for row in networks.values()] for name in ("difference", "difference_error"))
        over_pairs = fmean(errors)  # all networks share the pairs: more networks do not make this error smaller
        parts = ((stdev(values) / math.sqrt(len(values)), len(values) - 1), (over_pairs, int(min(pairs, key=int)) - 1))
        tests[measure] = fmean(values), combined(*parts)[0], p_value(fmean(values), *parts)
    corrected = dict(zip(tests, holm([p for *_, p in tests.values()]), strict=True))
    said = [f"{measure} {'**' * (p < 0.05)}{change:+.3f} ± {error:.3f}{'**' * (p < 0.05)}"
            for (measure, (change, error, _)), p in zip(tests.items(), corrected.values(), strict=True)]
    worse = any(p < 0.05 and tests[measure][0] > 0 for measure, p in corrected.items())
    return Verdict(claim, "contradicted" if worse else "not shown to be worse",
                   f"in own features, differences from L₀ over {' or '.join(pairs)} pairs: " + "; ".join(said))


def _cost(rows: Rows) -> Verdict:
    """Supported if the upper end of the 95 % interval of a step's time is within 5 % of L_0's."""
    claim, found = "Training with the released loss costs next to nothing more", {row["loss"]: row for row in rows}
    if "independent" not in found:
        return Verdict(claim, NOT_TESTED, "no step has been timed")
    ratio, error = (float(found["independent"][name]) for name in ("ratio", "ratio_error"))
    said = ", ".join(f"`{name}` {float(row['ratio']):.3f} ± {float(row['ratio_error']):.3f}" for name, row in found.items() if name != "l0")
    return Verdict(claim, "supported" if ratio + 1.96 * error < 1.05 else "contradicted",
                   f"time of a step over that of L₀, `{found['independent']['preset']}` on a CPU: {said}")


def other_results() -> dict[str, list[dict[str, str]]]:
    """The tables that `verdicts` needs beside a ledger: strips in the present classifier's features, and the cost of a step."""
    strips, cost = (read_rows(path) if path.exists() else [] for path in (RESULTS / "interpolation.csv", RESULTS / "cost-cpu.csv"))
    now = manifest()[CLASSIFIERS["own"]]["sha256"][:16]
    return {"strips": [row for row in strips if row["features_sha256"] == now], "cost": cost}


def write_verdicts(size: str = "cpu", table: Path | None = None) -> str:
    """Judge each claim of the paper by the ledger, and write verdicts-SIZE.md beside its table.

    Args:
        size: of the ledger, quick, cpu, scratch or full
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
        f"{len(rows)} measurements, {rows[0]['samples']} samples each, of networks that have seen {int(rows[0]['images_seen']):,} images, "
        f"by {' and '.join(devices)}. Distances are Fréchet distances, which are not FID in any of these features. Changes are relative to "
        "the L₀ network of the same training seed: mean ± standard error, over training seeds and over the noises that samples start from, "
        "bold where the 95 % interval leaves out 0. In brackets: network evaluations. The rules stand in `s2dm_mini/study/verdicts.py`.",
        "## Verdicts", verdict_table(verdicts(rows, **other_results())), "## Changes of the distance",
    ]
    for features, sampler, spacing in dict.fromkeys((c.features, c.sampler, c.spacing) for c in found):
        parts += [f"In the features {features}, on the {spacing} grid:",
                  change_table(c for c in found if (c.features, c.sampler, c.spacing) == (features, sampler, spacing))]
    return "\n\n".join(parts) + "\n"


def verdict_table(judged: Iterable[Verdict]) -> str:
    """Verdicts as Markdown: a table of claims about distances with the kinds of features as columns, and one of the other claims."""
    judged = list(judged)
    kinds = list(dict.fromkeys(kind for verdict in judged for kind in verdict.by_features))
    lines = [f"| claim | verdict | {' | '.join(kinds)} |", "| --- |" + " --- |" * (1 + len(kinds))] if kinds else []
    lines += [f"| {v.claim} | {v.verdict} | {' | '.join(v.by_features.get(kind, '') for kind in kinds)} |" for v in judged if v.by_features]
    rest = [f"| {v.claim} | {v.verdict} | {v.evidence} |" for v in judged if not v.by_features]
    return "\n".join([*lines, *[""] * bool(lines), "| claim | verdict | evidence |", "| --- | --- | --- |", *rest])
