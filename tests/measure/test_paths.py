"""Measures of interpolations: on paths whose answer is known, and on scenes whose factors are."""
import math

import pytest
import torch

from s2dm_mini import GaussianDenoiser, NoiseSchedule, sample, shapes
from s2dm_mini.data import to_pixels
from s2dm_mini.data.shapes import SHAPE_FACTORS, draw_shapes, read_factors
from s2dm_mini.latents import slerp
from s2dm_mini.measure import paths
from s2dm_mini.measure.errors import MeanOverPairs
from s2dm_mini.measure.paths import (
    factor_measures,
    midpoint_excess,
    monotonicity,
    path_measures,
    round_trip,
    strips,
)

SCHEDULE = NoiseSchedule.linear()


def test_estimate_is_the_mean_and_its_standard_error():
    values = torch.tensor([1.0, 2.0, 4.0, 9.0])
    found = MeanOverPairs.of(values)
    spread = math.sqrt(sum((v - 4) ** 2 for v in (1, 2, 4, 9)) / 3)
    assert (found.mean, found.n) == (4.0, 4) and found.error == pytest.approx(spread / 2)
    assert MeanOverPairs(1.0, 0.6, 9).clear is False and MeanOverPairs(-1.0, 0.4, 9).clear is True
    assert str(MeanOverPairs(0.1234, 0.01, 5)) == "0.123 ± 0.010"


def test_path_measures_of_paths_known_by_hand():
    straight = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
    corner = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]])
    found = path_measures(torch.stack([straight, corner]))
    assert found["mean step"].tolist() == pytest.approx([5, 2]) and found["worst step"].tolist() == pytest.approx([5, 3])
    assert found["detour"].tolist() == pytest.approx([1, 4 / math.sqrt(10)])
    assert found["unevenness"].tolist() == pytest.approx([0, 0.5])  # steps 3 and 1: mean 2, standard deviation 1


def test_path_measures_of_a_path_that_stands_still_are_finite():
    assert all(value.isfinite().all() for value in path_measures(torch.ones(2, 4, 3)).values())
    with pytest.raises(ValueError, match="at least 3 frames"):
        path_measures(torch.ones(2, 2, 3))


def squared_means(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.mean(0) - b.mean(0)).square().sum().item()


def test_midpoint_excess_is_nothing_for_midpoints_like_the_ends_and_the_shift_for_shifted_ones():
    path = torch.randn(400, 5, 4, generator=torch.Generator().manual_seed(0))
    same = midpoint_excess(path, squared_means)
    assert abs(same.mean) < 4 * same.error and 0 < same.error < 0.05
    path[:, 2] += 1.0
    shifted = midpoint_excess(path, squared_means)
    assert shifted.mean == pytest.approx(4.0, abs=4 * shifted.error) and shifted.clear
    with pytest.raises(ValueError, match="odd"):
        midpoint_excess(path[:, :4], squared_means)
    with pytest.raises(ValueError, match="too few"):
        midpoint_excess(path[:19], squared_means)


def test_jackknife_error_is_right_for_a_measure_that_is_a_mean():
    """For a difference of means the jackknife over single pairs is the standard error, exactly."""
    path = torch.randn(30, 3, 1, generator=torch.Generator().manual_seed(1)).double()
    found = midpoint_excess(path, lambda a, b: (a.mean() - b.mean()).item(), groups=15)
    pairs = (path[:, 1] - path[:, 0]).flatten().reshape(2, 15).mean(0)  # two pairs a group
    assert found.error == pytest.approx((pairs.std() / math.sqrt(15)).item(), rel=1e-9)


@pytest.mark.parametrize("size", [16, 32])
def test_factors_are_read_as_they_were_drawn(size):
    images = shapes(300, size, seed=3)
    found = read_factors(images.pixels)
    assert (found["shape"] == images.factors["shape"].long()).all()
    area = torch.tensor([math.pi, 4 * 0.89**2, 3 * math.sqrt(3) * 0.64**2, 8 * 0.34 * 1.15 - 4 * 0.34**2])[found["shape"]]  # over radius²
    images.factors["radius"] *= (area / math.pi).sqrt()
    for name, limit in {"x": 0.01, "y": 0.02, "background": 0.01, "radius": 0.04}.items():
        assert ((found[name] - images.factors[name]).abs() < limit).all(), name
    turn = (found["hue"] - images.factors["hue"] + 0.5) % 1 - 0.5
    assert (turn.abs() < 0.005).all()


def test_monotonicity_by_hand():
    values = torch.tensor([[0.0, 1.0, 2.0, 3.0], [0.0, 2.0, 1.0, 3.0], [0.0, 0.1, 0.0, 0.1]])
    assert monotonicity(values, extent=4).tolist() == pytest.approx([1.0, 3 / 5])  # the third moves too little to be judged
    assert monotonicity(torch.tensor([[0.9, 0.0, 0.2], [0.1, 0.9, 0.6]]), extent=1, circular=True).tolist() == pytest.approx([1.0, 1.0])
    assert monotonicity(torch.ones(2, 3), extent=5e-324).tolist() == []  # nothing moves, however small the extent


def test_needless_changes_by_hand(monkeypatch):
    kinds = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 0], [0, 2, 1, 1], [3, 3, 3, 3]])
    monkeypatch.setattr(paths, "read_factors", lambda pixels: dict.fromkeys(SHAPE_FACTORS, torch.zeros(16)) | {"shape": kinds.flatten()})
    assert factor_measures(torch.zeros(4, 4, 3, 1, 1, dtype=torch.uint8))["needless shapes"].tolist() == [0, 2, 1, 0]


def test_a_scene_that_moves_evenly_is_monotone_in_everything():
    w = torch.linspace(0, 1, 7)
    factors = {"shape": torch.zeros(7), "hue": 0.9 + 0.4 * w, "radius": 0.3 + 0.3 * w, "x": 0.7 * w - 0.35, "y": 0.35 - 0.7 * w,
               "background": 0.25 + 0.5 * w}
    found = factor_measures(draw_shapes(factors)[None])
    for name in SHAPE_FACTORS:
        assert found[f"monotone {name}"].item() > 0.98, name
    assert found["needless shapes"].item() == 0


def test_strips_are_the_samples_of_the_way_whatever_the_parts():
    gaussian = GaussianDenoiser(torch.zeros(3, 4, 4), torch.full((48,), 0.2), SCHEDULE)
    ends = torch.randn(9, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = strips(gaussian, ends, SCHEDULE, 3, "slerp", 4, "uniform")
    for pair, row in zip(ends, found, strict=True):
        middle = slerp(*pair, torch.tensor([0.5]))
        for x_T, pixels in zip((pair[0], middle[0], pair[1]), row, strict=True):
            x = sample(gaussian, x_T[None], SCHEDULE, "ddim", 4, "uniform")
            assert (to_pixels(x)[0].int() - pixels.int()).abs().max() <= 1


def test_round_trip_of_an_exact_inverse_is_perfect_and_of_a_coarse_one_is_not():
    gaussian = GaussianDenoiser(torch.zeros(3, 4, 4), torch.full((48,), 0.2), SCHEDULE)
    pixels = torch.randint(40, 216, (6, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    flat = lambda p: p.flatten(1).float()  # noqa: E731
    exact = round_trip(gaussian, pixels, SCHEDULE, flat, 10, refinements=60)
    coarse = round_trip(gaussian, pixels, SCHEDULE, flat, 10)
    assert exact["grey levels"].max() < 0.5 and exact["fidelity"].max() < 0.01
    assert (coarse["grey levels"] > 1).all() and (coarse["fidelity"] > exact["fidelity"]).all()
