"""Changes and verdicts from tables written by hand."""
import math
from pathlib import Path
from statistics import mean, stdev

import pytest

from s2dm_mini.measure.errors import T_QUANTILES, is_clear
from s2dm_mini.study.ledger import rows_of, table_of
from s2dm_mini.study.plan import LEDGER_SIZES
from s2dm_mini.study.verdicts import Change, apart, change_table, changes, other_results, report, title, verdict_table, verdicts

ROOT = Path(__file__).resolve().parents[2]


def row(setting, seed, fd, scale="none", sampler="ddim", steps=10):
    return {"data": "cifar10-train", "setting": setting, "scale": scale, "training_seed": str(seed), "sampler": sampler,
            "spacing": "quadratic", "steps": str(steps), "nfe": str(steps),
            "sampling_seed": "0", "samples": "1024", "features_sha256": "x", "fd": str(fd)}


def rows(setting, values, **options):
    return [row(setting, seed, value, **options) for seed, value in enumerate(values)]


def test_a_change_is_paired_by_seed():
    [change] = changes(rows("l0", [10, 20, 40]) + rows("s2dm10", [9, 19, 36]))
    assert change.values == pytest.approx((-0.1, -0.05, -0.1)) and change.base == pytest.approx(70 / 3)
    assert change.mean == pytest.approx(-0.25 / 3) and change.error == pytest.approx(stdev([-0.1, -0.05, -0.1]) / math.sqrt(3))


def test_the_error_over_the_noises_is_that_of_a_jackknife():
    """A distance that is the mean of one number a sample: leaving out block after block must give the error of a mean of blocks."""
    l0 = [[4.0, 6.0, 5.0, 5.0], [8.0, 8.0, 12.0, 12.0]]  # a training seed, then its blocks
    ours = [[2.0, 6.0, 3.0, 5.0], [4.0, 8.0, 8.0, 12.0]]
    without = lambda blocks: [(sum(blocks) - block) / 3 for block in blocks]  # noqa: E731
    table = [row(setting, seed, mean(blocks)) | {"fd_left_out": " ".join(map(repr, without(blocks)))}
             for setting, seeds in (("l0", l0), ("s2dm10", ours)) for seed, blocks in enumerate(seeds)]
    [change] = changes(table)
    expected = [(without(ours[0])[j] / without(l0[0])[j] + without(ours[1])[j] / without(l0[1])[j]) / 2 - 1 for j in range(4)]
    assert change.left_out == pytest.approx(expected)
    assert change.error_noise == pytest.approx(math.sqrt(3 / 4 * sum((e - mean(expected)) ** 2 for e in expected)))
    assert change.values == pytest.approx((-0.2, -0.2)) and change.error_training == pytest.approx(0)
    assert change.error == pytest.approx(change.error_noise) and str(change) == f"-20.0 ± {100 * change.error_noise:.1f} %"
    nothing = apart(change, change)
    assert nothing.mean == 0 and nothing.left_out == (0.0,) * 4 and not nothing.clear


@pytest.mark.parametrize(("mean", "errors", "clear"), [
    (4.2, [(1.0, 2)], False), (4.4, [(1.0, 2)], True), (-4.4, [(1.0, 2)], True), (2.2, [(1.0, 2), (1e-3, 15)], False),
    (2.2, [(1e-3, 2), (1.0, 15)], True), (2.2, [(1e-3, 2), (1.1, 15)], False),
    (3.6, [(1.0, 4), (1.0, 4)], True), (3.1, [(1.0, 4), (1.0, 4)], False),  # √2 and 8 degrees of freedom: 3.26
    (5.0, [(1.0, 2), (math.nan, 0)], False), (5.0, [(0.0, 2)], True), (0.0, [(0.0, 2)], False), (9e9, [(math.nan, 0)], False),
])
def test_errors_are_added_up_and_held_against_students_t(mean, errors, clear):
    assert is_clear(mean, *errors) is clear


def test_seeds_places_and_features_without_a_baseline_are_left_out():
    table = rows("l0", [10, 20]) + rows("s2dm10", [9, 19, 36]) + rows("s2dm10", [9], steps=20)
    [change] = changes(table)
    assert len(change.values) == 2 and change.steps == 10
    table[-1]["features_sha256"] = "y"
    assert len(changes(table)) == 1


@pytest.mark.parametrize(("values", "clear"), [((-0.1, -0.11, -0.09), True), ((0.1, 0.11, 0.09), True), ((-0.1, 0.1, -0.05), False),
                                               ((-0.1,), False), ((-0.1, -0.11), True), ((-0.1, -0.2), False)])
def test_clear_means_that_the_interval_leaves_out_zero(values, clear):
    assert Change("s2dm10", "none", "ddim", "quadratic", 10, 10, values, 1.0).clear is clear


def test_the_quantiles_of_student():
    """Against the tails of its density, summed up by the midpoint rule."""
    for freedom, quantile in enumerate(T_QUANTILES, 1):
        norm = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
        n = 20_000
        inside = sum(norm * (1 + ((i + 0.5) * quantile / n) ** 2 / freedom) ** (-(freedom + 1) / 2) for i in range(n)) * quantile / n
        assert 0.5 - inside == pytest.approx(0.025, abs=3e-5)


def test_verdicts_by_rule():
    good, bad = [9.0, 9.1, 9.05], [9.0, 11.0, 10.0]
    base = rows("l0", [10.0, 10.0, 10.0])
    by_claim = {v.claim: v for v in verdicts(base + rows("s2dm10", good))}
    overall = next(v for claim, v in by_claim.items() if claim.startswith("CIFAR-10"))
    assert overall.verdict == "reproduced" and overall.evidence.startswith("1 of 1 cells clearly better, 0 clearly worse")
    assert by_claim["It helps with this skip: S²-DM^2"].verdict == "not tested here"
    assert by_claim["It helps with any sampler: F-PNDM"].verdict == "not tested here"
    assert by_claim["CelebA: the distance falls by 8.97 to 27.08 %"].verdict == "not tested here"
    overall = verdicts(base + rows("s2dm10", good) + rows("s2dm50", bad))[0]
    assert overall.verdict == "not reproduced" and "1 of 2 cells clearly better, 0 clearly worse, 1 within the error" in overall.evidence
    assert verdicts(base[:1] + rows("s2dm10", good[:1]))[0].verdict == "not tested here", "one seed is none"
    alone = verdicts(base + rows("s2dm10", good) + rows("l0", [10.0], steps=20) + rows("s2dm10", [9.0], steps=20))[0]
    assert alone.evidence.startswith("1 of 1 cells"), "nor is it counted"
    closed = verdicts(base + rows("l0", good, scale="s2dm10"))[0]
    assert closed.verdict == "not tested here", "a closed form is a control, not the method"
    shapes = verdicts([cell | {"data": "shapes"} for cell in base + rows("s2dm10", good)])
    assert (shapes[0].verdict, shapes[0].evidence) == ("not tested here", "these networks were trained on shapes")
    assert shapes[1].verdict == "reproduced", "what is claimed of any data can be tested on any"
    uniform = [cell | {"spacing": "uniform"} for cell in base + rows("s2dm10", good)]
    assert verdicts(uniform)[0].verdict == "not tested here", "another grid is a control too"


def test_the_verdict_on_tau():
    table = rows("l0", [10, 10]) + rows("s2dm50", [9, 9]) + rows("s2dm50-tau0.9", [12, 12]) + rows("s2dm50-tau0.999", [9.5, 9.5])
    judged = next(v for v in verdicts(table) if "τ" in v.claim)
    assert judged.verdict == "reproduced" and "DDIM, 10 steps: τ 0.9 **+20.0 ± 0.0 %**, τ 0.99 **-10.0 ± 0.0 %**" in judged.evidence
    table[-1]["fd"], table[-2]["fd"] = "9.9", "8.9"  # worse on average, but not clearly
    assert next(v for v in verdicts(table) if "τ" in v.claim).verdict == "not reproduced"
    backwards = rows("l0", [10, 20]) + rows("s2dm50", [9, 18.2]) + rows("s2dm50-tau0.9", [12, 24.2])
    backwards += rows("s2dm50-tau0.999", [9.5, 19.2])[::-1]
    assert next(v for v in verdicts(backwards) if "τ" in v.claim).verdict == "reproduced", "seeds are paired whatever the order of the rows"
    table[-1]["fd"] = table[-2]["fd"] = "8"
    assert next(v for v in verdicts(table) if "τ" in v.claim).verdict == "not reproduced"


def strips(differences, measure="detour", way="slerp", setting="s2dm50", error=0.001):
    return [{"checkpoint": f"runs/{setting}.{seed}/model.safetensors", "against": f"runs/l0.{seed}/model.safetensors", "way": way,
             "against_way": "slerp", "measure": measure, "pairs": "200", "difference": str(value),
             "difference_error": str(error)}
            for seed, value in enumerate(differences)]


@pytest.mark.parametrize(("table", "verdict", "said"), [
    ([], "not tested here", "no strips"),
    (strips([0.1]), "not tested here", "more than one training seed"),
    (strips([0.1, 0.11, 0.09], way="lerp") + strips([1, 1, 1], setting="s2dm10"), "not tested here", "no strips"),
    (strips([-0.1, -0.11, -0.09]) + strips([0.1, -0.1, 0.02], "worst step"), "reproduced", "detour **-0.100 ± 0.006**; worst step +0.007"),
    (strips([-0.1, -0.11, -0.09]) + strips([0.1, 0.11, 0.09], "worst step"), "not reproduced", "worst step **+0.100 ± 0.006**"),
    (strips([0.1, 0.11, 0.09], error=0.08), "reproduced", "detour +0.100 ± 0.080"),  # the same pairs for all seeds
])
def test_the_verdict_on_interpolation(table, verdict, said):
    judged = next(v for v in verdicts([], table) if "Interpolation" in v.claim)
    assert judged.verdict == verdict and said in judged.evidence


@pytest.mark.parametrize(("ratio", "error", "verdict"),
                         [(1.01, 0.005, "reproduced"), (1.04, 0.01, "not reproduced"), (1.06, 0.001, "not reproduced")])
def test_the_verdict_on_the_cost(ratio, error, verdict):
    cost = [{"loss": "l0", "preset": "nano", "ratio": "1", "ratio_error": "0"},
            {"loss": "independent", "preset": "nano", "ratio": str(ratio), "ratio_error": str(error)}]
    judged = next(v for v in verdicts([], cost=cost) if "costs" in v.claim)
    assert judged.verdict == verdict and f"`independent` {ratio:.3f} ± {error:.3f}" in judged.evidence
    assert next(v for v in verdicts([]) if "costs" in v.claim).verdict == "not tested here"


def test_tables():
    found = changes(rows("l0", [10, 10]) + rows("l0", [9, 9], scale="b1.017") + rows("s2dm50", [12, 8]) +
                    rows("l0", [5, 5], sampler="f-pndm") + rows("l0", [5, 6], sampler="f-pndm", scale="s2dm10"))
    lines = change_table(found).splitlines()
    assert lines[0] == "| | DDIM, 10 steps (10) | F-PNDM, 10 steps (10) |"
    assert lines[2:] == ["| L₀, ε/1.017 | **-10.0 ± 0.0 %** |  |", "| L₀ shrunk like S²-DM^10, no training |  | +10.0 ± 10.0 % |",
                         "| S²-DM^50 | +0.0 ± 20.0 % |  |"]
    assert verdict_table(verdicts([])).count("\n") == 12
    assert title("s2dm50-tau0.9", "none") == "S²-DM^50, τ 0.9"


def test_the_pages_hold_the_verdicts_of_the_committed_ledgers():
    """The book's page the verdicts, data/results/verdicts-SIZE.md all tables, each of the ledger as it is now."""
    for size in LEDGER_SIZES:
        table = table_of(size)
        if table.exists():
            written = table.with_name(f"verdicts-{size}.md").read_text(encoding="utf-8")
            assert written == report(size, table), f"run python -m s2dm_mini verdicts --size {size}"
    page = (ROOT / "notebooks" / "book" / "results.md").read_text(encoding="utf-8")
    assert verdict_table(verdicts(rows_of("cpu"), **other_results())) in page
