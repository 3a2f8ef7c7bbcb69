"""Changes from tables written by hand."""
import math
from statistics import mean, stdev

import numpy as np
import pytest
from ledger_rows import row, rows

from s2dm_mini.measure.errors import holm, interval, is_clear, p_value
from s2dm_mini.study.changes import Change, apart, change_table, changes, pooled, title


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
    assert change.left_out == (pytest.approx(expected),)
    assert change.error_noise == pytest.approx(math.sqrt(3 / 4 * sum((e - mean(expected)) ** 2 for e in expected)))
    assert change.values == pytest.approx((-0.2, -0.2)) and change.error_training == pytest.approx(0)
    assert change.error == pytest.approx(change.error_noise) and str(change) == f"-20.0 ± {100 * change.error_noise:.1f} %"
    nothing = apart(change, change)
    assert nothing.mean == 0 and nothing.left_out == ((0.0,) * 4,) and not nothing.clear


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
    assert Change("s2dm10", "none", "own", "ddim", "quadratic", 10, 10, values, 1.0).clear is clear


def test_the_interval_is_students():
    assert interval(1.0, (2.0, 2)) == pytest.approx((1 - 2 * 4.302653, 1 + 2 * 4.302653)) and interval(1.0, (0.0, 2)) == (1.0, 1.0)
    assert interval(1.0, (math.nan, 0)) == (-math.inf, math.inf) and p_value(1.0, (math.nan, 0)) == 1
    assert p_value(4.302653, (1.0, 2)) == pytest.approx(0.05) and p_value(-4.302653, (1.0, 2)) == pytest.approx(0.05)


def test_intervals_of_three_seeds_are_a_little_too_narrow():
    """Welch and Satterthwaite's degrees of freedom are estimated too; the page Results so far says by how much a test of 5 % errs."""
    draw = np.random.default_rng(0)
    over_trainings = draw.normal(0, 3, (3_000, 3))  # three times the error over x_T, as in the ledger of networks from nothing
    over_noises = np.sqrt(draw.chisquare(15, 3_000) / 15)  # the estimate of an error of 1
    means = over_trainings.mean(1) + draw.normal(0, 1, 3_000)
    rejected = [is_clear(m, (s, 2), (n, 15))
                for m, s, n in zip(means, over_trainings.std(1, ddof=1) / math.sqrt(3), over_noises, strict=True)]
    assert 0.055 < sum(rejected) / 3_000 < 0.085


def test_holms_correction():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02]) and holm([]) == [] and holm([0.7, 0.8]) == [1.0, 1.0]


def test_two_sets_of_noises_are_averaged_and_their_errors_too():
    """The distance is the mean of a number a block; each set has four blocks of its own."""
    blocks = {"0": [9.0, 8.0, 10.0, 9.0], "1": [7.0, 8.0, 8.0, 9.0]}
    without = lambda numbers: " ".join(str((sum(numbers) - number) / 3) for number in numbers)  # noqa: E731
    table = [row(setting, seed, mean(numbers)) | {"sampling_seed": x_T, "fd_left_out": without(numbers)}
             for setting, of_sets in (("l0", {x_T: [10.0] * 4 for x_T in blocks}), ("s2dm10", blocks)) for seed in range(2)
             for x_T, numbers in of_sets.items()]
    [change] = changes(table)
    assert change.values == pytest.approx((-0.15, -0.15)) and len(change.left_out) == 2
    of_sets = [stdev(numbers) / 10 / math.sqrt(4) for numbers in blocks.values()]
    assert change.error_noise == pytest.approx(math.hypot(*of_sets) / 2) and change.clear
    [without_one] = changes(table[:-1])  # the second network of S²-DM lacks the second set
    assert len(without_one.left_out) == 1 and without_one.values == pytest.approx((-0.1, -0.1)), "only sets that all have are compared"


def test_a_mean_over_strata_keeps_the_pairs():
    few, many = (Change("s2dm10", "none", "own", "ddim", "uniform", steps, steps, values, 1.0, left_out) for steps, values, left_out in
                 ((5, (-0.2, -0.1), ((-0.1, -0.2), (0.0, 0.2))), (10, (0.2, 0.1), ((0.1, 0.2),))))
    both = pooled([few, many])
    assert both.values == pytest.approx((0, 0)) and both.left_out == ((0.0, 0.0),), "errors that cancel in every pair are no errors"


def test_tables():
    found = changes(rows("l0", [10, 10]) + rows("l0", [9, 9], scale="b1.017") + rows("s2dm50", [12, 8]) +
                    rows("l0", [5, 5], sampler="f-pndm") + rows("l0", [5, 6], sampler="f-pndm", scale="s2dm10"))
    lines = change_table(found).splitlines()
    assert lines[0] == "| | DDIM, 10 steps (10) | F-PNDM, 10 steps (10) |"
    assert lines[2:] == ["| L₀, ε/1.017 | **-10.0 ± 0.0 %** |  |", "| L₀ shrunk like S²-DM^10, no training |  | +10.0 ± 10.0 % |",
                         "| S²-DM^50 | +0.0 ± 20.0 % |  |"]
    two_grids = found + changes(rows("l0", [4, 4], spacing="uniform") + rows("s2dm50", [2, 2], spacing="uniform"))
    assert change_table(two_grids).splitlines()[0] == (
        "| | DDIM, quadratic, 10 steps (10) | DDIM, uniform, 10 steps (10) | F-PNDM, quadratic, 10 steps (10) |")
    assert title("s2dm50-tau0.9", "none") == "S²-DM^50, τ 0.9"
    assert title("l0", "s2dm50-tau0.9") == "L₀ shrunk like S²-DM^50, τ 0.9, no training"
