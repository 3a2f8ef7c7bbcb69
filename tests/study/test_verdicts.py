"""Verdicts from tables written by hand."""
import pytest
from ledger_rows import rows

from s2dm_mini.study.changes import Change
from s2dm_mini.study.ledger import table_of
from s2dm_mini.study.plan import LEDGER_SIZES
from s2dm_mini.study.verdicts import report, verdicts, word


@pytest.mark.parametrize(("values", "p", "said"), [
    ((-0.05, -0.051, -0.049), 0.01, "in the paper's range"), ((-0.25, -0.26, -0.255), 0.01, "supported"),
    ((-0.01, -0.011, -0.009), 0.01, "supported"), ((0.05, 0.051, 0.049), 0.01, "contradicted"),
    ((-0.05, -0.051, -0.049), 0.06, "below 0 before correction"), ((0.3, 0.31, 0.29), 0.06, "above 0 before correction"),
    ((0.05, -0.06, 0.01), 0.5, "inconclusive"),
    ((0.001, -0.001, 0.0), 0.9, "smaller than claimed"), ((-0.05,), 1.0, "inconclusive"),
])
def test_words(values, p, said):
    assert word(Change("s2dm10", "none", "own", "ddim", "quadratic", 10, 10, values, 1.0), p) == said


BASE, GOOD, BAD, EVEN = [10.0, 10.0, 10.0], [9.3, 9.31, 9.29], [10.7, 10.71, 10.69], [10.0, 10.01, 9.99]


def claims(*tables):
    return {v.claim: v for v in verdicts([row for table in tables for row in table])}


def of_skip(found, k=10):
    return found[f"CIFAR-10: S²-DM^{k} lowers the distance (claimed: by 3.27 to 14.06 %)"]


def test_a_claim_in_one_kind_of_features():
    found = claims(rows("l0", BASE), rows("s2dm10", GOOD))
    assert of_skip(found).verdict == "in the paper's range" == found["It helps with any sampler: DDIM"].verdict
    assert of_skip(found).by_features["own"].startswith("in the paper's range: **-7.0 ± 0.1 %**; of 1 strata 1 below 0, 0 above")
    for name in (*(f"CIFAR-10: S²-DM^{k} lowers the distance (claimed: by 3.27 to 14.06 %)" for k in (2, 50)),
                 "It helps with any sampler: F-PNDM", "It helps on any grid: uniform", "CelebA: the distance falls by 8.97 to 27.08 %"):
        assert found[name].verdict == "not tested here", name
    twenty = {"steps": 20}
    mixed = claims(rows("l0", BASE), rows("l0", BASE, **twenty), rows("s2dm10", GOOD), rows("s2dm10", BAD, **twenty))
    assert of_skip(mixed).verdict == "mixed", "a mean near 0 hides a gain and a loss"
    assert of_skip(claims(rows("l0", BASE), rows("s2dm10", EVEN))).verdict == "smaller than claimed"


def test_what_is_no_evidence():
    assert of_skip(claims(rows("l0", BASE[:1]), rows("s2dm10", GOOD[:1]))).verdict == "not tested here", "one seed is none"
    assert of_skip(claims(rows("l0", BASE), rows("l0", GOOD, scale="s2dm10"))).verdict == "not tested here", "a closed form is a control"
    noisy = {"sampler": "ddpm"}
    assert of_skip(claims(rows("l0", BASE, **noisy), rows("s2dm10", GOOD, **noisy))).verdict == "not tested here"
    shapes = claims([row | {"data": "shapes"} for row in rows("l0", BASE) + rows("s2dm10", GOOD)])
    assert of_skip(shapes).verdict == "not tested here"
    assert shapes["It helps with any sampler: DDIM"].verdict == "in the paper's range", "what is claimed of any data can be tested on any"


def test_many_strata_ask_for_more():
    """One stratum in twenty comes out clear by chance: after Holm's correction it does not count."""
    tables = [table for steps in range(1, 21) for table in (rows("l0", BASE, steps=steps), rows("s2dm10", EVEN, steps=steps))]
    by_chance = [rows("l0", BASE, steps=99), rows("s2dm10", [10.1, 10.11, 10.12], steps=99)]
    assert "above" in of_skip(claims(*by_chance)).by_features["own"] and of_skip(claims(*by_chance)).verdict == "contradicted"
    assert "of 21 strata 0 below 0, 0 above" in of_skip(claims(*tables, *by_chance)).by_features["own"]


@pytest.mark.parametrize(("own", "other", "verdict"), [
    (GOOD, GOOD, "in the paper's range"), (GOOD, BAD, "depends on the yardstick"), (BAD, BAD, "contradicted"),
    (GOOD, EVEN, "in the paper's range or smaller than claimed, by the yardstick")])
def test_features_that_disagree(own, other, verdict):
    found = claims(*(table for name, values in (("own", own), ("other", other))
                     for table in (rows("l0", BASE, features=name), rows("s2dm10", values, features=name))))
    assert of_skip(found).verdict == verdict and list(of_skip(found).by_features) == sorted(["own", "other"])


def test_the_verdict_on_tau():
    table = rows("l0", [10, 10, 10]) + rows("s2dm50", [9, 9.01, 8.99]) + rows("s2dm50-tau0.9", [12, 12.01, 12])
    judge = lambda low: next(v for v in verdicts(table + rows("s2dm50-tau0.999", low)) if "τ" in v.claim)  # noqa: E731
    good = judge([9.5, 9.5, 9.5])
    assert good.verdict == "supported"
    assert "in percentage points, DDIM, quadratic, 10 steps, τ 0.9 **+30.0 ± 0.0**" in good.by_features["own"]
    assert judge([9.9, 8.9, 9.4]).verdict == "inconclusive", "worse on average, but not clearly"
    assert judge([8.0, 8.01, 8.0]).verdict == "contradicted"
    backwards = rows("l0", [10, 20]) + rows("s2dm50", [9, 18]) + rows("s2dm50-tau0.9", [12, 24]) + rows("s2dm50-tau0.999", [9.5, 19])[::-1]
    assert next(v for v in verdicts(backwards) if "τ" in v.claim).verdict == "supported", "seeds are paired whatever the order of the rows"


def test_tau_is_judged_without_training_where_no_network_has_another():
    def judge(table):
        return next(v for v in verdicts(rows("l0", [10, 10, 10]) + rows("s2dm50", [9, 9.01, 8.99]) + table) if "τ" in v.claim)

    distances = {"s2dm50": [9, 9.01, 8.99], "s2dm50-tau0.9": [12, 12.01, 12], "s2dm50-tau0.999": [9.5, 9.5, 9.5]}
    closed = [row for scale, values in distances.items() for row in rows("l0", values, scale=scale)]
    assert judge(closed[:3]).verdict == "not tested here"
    found = judge(closed)
    assert found.verdict == "supported" and "closed forms, in percentage points, DDIM, quadratic" in found.by_features["own"]
    assert judge(closed[:-1]).by_features["own"].count("τ 0.9") == 2, "τ 0.999 waits for its third seed"
    assert judge(closed + rows("s2dm50-tau0.9", [8, 8.01, 8])).verdict == "contradicted", "trained networks come first"


def strips(differences, measure="detour", way="slerp", setting="s2dm50", error=0.001):
    return [{"checkpoint": f"runs/{setting}.{seed}/model.safetensors", "against": f"runs/l0.{seed}/model.safetensors", "way": way,
             "against_way": "slerp", "measure": measure, "pairs": "200", "difference": str(value),
             "difference_error": str(error)}
            for seed, value in enumerate(differences)]


@pytest.mark.parametrize(("table", "verdict", "said"), [
    ([], "not tested here", "no strips"),
    (strips([0.1]), "not tested here", "more than one training seed"),
    (strips([0.1, 0.11, 0.09], way="lerp") + strips([1, 1, 1], setting="s2dm10"), "not tested here", "no strips"),
    (strips([-0.1, -0.11, -0.09]) + strips([0.1, -0.1, 0.02], "worst step"), "not shown to be worse",
     "detour **-0.100 ± 0.006**; worst step +0.007"),
    (strips([-0.1, -0.11, -0.09]) + strips([0.1, 0.11, 0.09], "worst step"), "contradicted", "worst step **+0.100 ± 0.006**"),
    (strips([0.1, 0.11, 0.09], "mean step") + strips([9, 9, 9], "real pictures, 0 refinements, fidelity") + strips([0.01, -0.02, 0.0]),
     "not shown to be worse", "detour -0.003"),  # a longer step is not worse
    (strips([0.1, 0.11, 0.09], error=0.08), "not shown to be worse", "detour +0.100 ± 0.080"),  # the same pairs for all seeds
])
def test_the_verdict_on_interpolation(table, verdict, said):
    judged = next(v for v in verdicts([], table) if "Interpolation" in v.claim)
    assert judged.verdict == verdict and said in judged.evidence


@pytest.mark.parametrize(("ratio", "error", "verdict"),
                         [(1.01, 0.005, "supported"), (1.04, 0.01, "contradicted"), (1.06, 0.001, "contradicted")])
def test_the_verdict_on_the_cost(ratio, error, verdict):
    cost = [{"loss": "l0", "preset": "nano", "ratio": "1", "ratio_error": "0"},
            {"loss": "independent", "preset": "nano", "ratio": str(ratio), "ratio_error": str(error)}]
    judged = next(v for v in verdicts([], cost=cost) if "costs" in v.claim)
    assert judged.verdict == verdict and f"`independent` {ratio:.3f} ± {error:.3f}" in judged.evidence
    assert next(v for v in verdicts([]) if "costs" in v.claim).verdict == "not tested here"


def test_the_tables_are_those_of_the_committed_ledgers():
    for size in LEDGER_SIZES:
        table = table_of(size)
        if table.exists():
            written = table.with_name(f"verdicts-{size}.md").read_text(encoding="utf-8")
            assert written == report(size, table), f"run python -m s2dm_mini verdicts --size {size}"


def test_a_stratum_that_lacks_a_seed_waits():
    """A ledger that is being filled: the mean over strata is of networks of the same seeds."""
    twenty = {"steps": 20}
    filling = claims(rows("l0", BASE), rows("l0", BASE, **twenty), rows("s2dm10", GOOD), rows("s2dm10", BAD[:2], **twenty))
    assert of_skip(filling) == of_skip(claims(rows("l0", BASE), rows("s2dm10", GOOD)))
