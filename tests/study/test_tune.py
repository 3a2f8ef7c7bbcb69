"""Tuning finds scales that are known, and measures what it found on other seeds."""
import math

import pytest
import torch

from s2dm_mini.denoisers import GaussianDenoiser, Shrunk
from s2dm_mini.losses import shrinkage
from s2dm_mini.measure.features import OFFLINE
from s2dm_mini.samplers import sample
from s2dm_mini.schedule import NoiseSchedule
from s2dm_mini.study.tables import read_rows
from s2dm_mini.study.tune import summary, tune
from s2dm_mini.theory.gaussian import cifar10_eigenvalues
from s2dm_mini.theory.optimum import best_constant, best_line, gaussian_objective
from s2dm_mini.theory.scales import fit_line, line

SCHEDULE = NoiseSchedule.linear()


def test_the_line_is_straight_and_divides():
    s = line(0.9, 1.2, 31)
    assert s.shape == (31,) and s[0] == pytest.approx(1 / 0.9) and s[-1] == pytest.approx(1 / 1.2)
    assert s[10] == pytest.approx(1 / (0.9 + 0.3 * 10 / 30))
    with pytest.raises(ValueError, match="above 0, not 1 and -0.5"):
        line(1.0, -0.5)


@pytest.mark.parametrize(("skip", "miss"), [(9, 4e-5), (49, 1.4e-3)])
def test_the_family_holds_s2dm_as_closely_as_it_says(skip, miss):
    t = torch.arange(skip, 1000, dtype=torch.float64)
    wanted = 1 / shrinkage(SCHEDULE, skip, 0.99)[skip:]
    design = torch.stack([torch.ones_like(t), t], dim=1)
    nearest = design @ torch.linalg.lstsq(design, wanted[:, None]).solution
    assert (nearest[:, 0] - wanted).abs().max() <= miss


def test_a_spoilt_denoiser_is_mended():
    """ε is multiplied by a known line; the samples that come nearest to those of the unspoilt one are to be had by dividing by it."""
    exact = GaussianDenoiser(torch.zeros(6), torch.logspace(1, -2, 6), SCHEDULE)
    spoilt = Shrunk(exact, 1 / line(0.985, 1.03))
    x_T = torch.randn(200, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = sample(exact, x_T, SCHEDULE, steps=8)
    fit = fit_line(lambda scale: float((sample(Shrunk(spoilt, scale), x_T, SCHEDULE, steps=8) - wanted).square().mean()), evaluations=60)
    assert len(fit.tried) <= 60
    assert fit.line == pytest.approx((0.985, 1.03), abs=5e-4)
    assert fit.tried[fit.line] < 0.01 * fit.tried[fit.constant] < 0.01 * fit.tried[1.0, 1.0]


@pytest.mark.parametrize(("steps", "spacing"), [(5, "quadratic"), (10, "uniform"), (10, "quadratic"), (20, "quadratic")])
def test_24_candidates_come_near_the_gaussians_best_line(steps, spacing):
    """Against the same family's optimum, found with derivatives; the constant, to which few are given, to 0.02."""
    objective = gaussian_objective(cifar10_eigenvalues()[::8], SCHEDULE, "ddim", steps, spacing)
    fit = fit_line(lambda scale: float(objective(scale)))
    assert len(fit.tried) <= 24 and list(fit.tried)[0] == (1.0, 1.0), "no scaling is among the candidates"
    assert fit.constant[0] == fit.constant[1] == pytest.approx(best_constant(objective).numbers[0], abs=0.02)
    assert fit.tried[fit.line] - best_line(objective).distance < 0.05 * fit.tried[1.0, 1.0]


def test_too_few_candidates_are_refused():
    with pytest.raises(ValueError, match="at least 6"):
        fit_line(lambda scale: 0.0, evaluations=5)


def test_a_negative_scale_is_never_tried():
    fit = fit_line(lambda scale: float(scale[0].reciprocal()), T=3, evaluations=40)  # wants λ_first as small as can be
    assert fit.tried[fit.line] < 0.3 and all(math.isfinite(value) == (min(ends) > 0) for ends, value in fit.tried.items())


def test_a_checkpoint_is_tuned_and_measured_on_other_seeds(tmp_path):
    table, n = tmp_path / "tune.csv", len(OFFLINE)
    rows = tune("nano-cifar10-l0", steps=2, samples=16, seed=7, held_out=2, evaluations=6, against=("b1.017",), device="cpu", table=table)
    assert [row["sampling_seed"] for row in rows] == [7] * 6 + [8] * 4 * n + [9] * 4 * n
    search, held_out = rows[:6], rows[6:]
    best = min(search, key=lambda row: row["fd"])
    fitted = next(row for row in held_out if row["scale"] == "line")
    assert (fitted["lambda_first"], fitted["lambda_last"]) == (best["lambda_first"], best["lambda_last"])
    read = read_rows(table)
    assert len(read) == len(rows) and all(row["commit"] and row["command"].endswith("--against b1.017") for row in read)

    none, _, of_line, given, *others = summary(read)
    assert len({s.features for s in others}) == n - 1 and len(others) == 4 * (n - 1), "the same scales in the features not fitted to"
    read = [row for row in read if row["features"] == search[0]["features"]]
    assert (none.scale, none.fd_change, none.kid_change_error) == ("none", 0.0, 0.0) and given.lambda_first == pytest.approx(1.017)
    by_seed = [(float(a["fd"]), float(b["fd"])) for a in read for b in read if a["role"] == b["role"] == "held out"
               and a["sampling_seed"] == b["sampling_seed"] and (a["scale"], b["scale"]) == ("none", "line")]
    (a1, b1), (a2, b2) = by_seed
    assert of_line.fd == pytest.approx((b1 + b2) / 2, rel=1e-5) and of_line.fd_error == pytest.approx(abs(b1 - b2) / 2, rel=1e-2)
    assert of_line.fd_change == pytest.approx((b1 / a1 + b2 / a2) / 2 - 1, rel=1e-3)
    with pytest.raises(ValueError, match="held_out must be at least 2"):
        tune("nano-cifar10-l0", held_out=1, table=table)
