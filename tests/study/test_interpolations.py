"""Two interpolations side by side: the rows are the measures of interpolation.py, and differences are taken pair by pair."""
import math

import pytest
import torch

from s2dm_mini import NoiseSchedule, load_pretrained, sample, shapes
from s2dm_mini.checkpoints import open_network
from s2dm_mini.data import to_pixels
from s2dm_mini.latents import invert
from s2dm_mini.measure.draw import starting_noise
from s2dm_mini.measure.features import mean_colours
from s2dm_mini.study import evaluate, interpolations
from s2dm_mini.study.interpolations import measures
from s2dm_mini.study.tables import read_rows

NAME, PAIRS = "tiny-shapes-l0", 20


class Coarse:
    name, hash = "coarse pixels", "0"

    def __call__(self, pixels):
        return mean_colours(pixels)


@pytest.fixture
def rows(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate, "open_features", lambda *_: Coarse())
    found = interpolations.compare_interpolations([NAME], NAME, "slerp", "lerp", PAIRS, frames=5, steps=3, seed=1, device="cpu",
                                                          table=tmp_path / "table.csv")
    assert [row["measure"] for row in read_rows(tmp_path / "table.csv")] == [row["measure"] for row in found]
    return {row["measure"]: row for row in found}


def test_differences_are_taken_pair_by_pair(rows):
    ends = starting_noise(2 * PAIRS, (3, 16, 16), 1).unflatten(0, (PAIRS, 2))
    network, schedule = load_pretrained(NAME), NoiseSchedule.linear()
    slerp, lerp = (measures(network, ends, schedule, Coarse(), way, 5, 3)[0]["detour"] for way in ("slerp", "lerp"))
    row, difference = rows["detour"], (slerp - lerp).numpy()
    assert row["paired"] and row["mean"] == pytest.approx(slerp.mean().item(), abs=1e-5)
    assert row["difference"] == pytest.approx(difference.mean(), abs=1e-5)
    assert row["difference_error"] == pytest.approx(difference.std(ddof=1) / math.sqrt(PAIRS), abs=1e-5)
    assert row["difference_error"] < math.hypot(row["error"], row["against_error"]), "pairing did not help"


def test_what_only_depends_on_the_ends_does_not_differ(rows):
    assert rows["round trip, grey levels"]["difference"] == 0 and rows["round trip, grey levels"]["mean"] > 0


def test_measures_that_lack_pairs_are_compared_by_their_means(rows):
    for name in ("monotone x", "midpoints' excess distance"):
        row = rows[name]
        if not row["paired"]:
            assert row["difference"] == pytest.approx(row["mean"] - row["against_mean"], abs=2e-6)
            assert row["difference_error"] == pytest.approx(math.hypot(row["error"], row["against_error"]), abs=2e-6)
    assert not rows["midpoints' excess distance"]["paired"]


def test_strips_come_with_the_measures():
    ends = torch.randn(PAIRS, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found, _, drawn = measures(load_pretrained(NAME), ends, NoiseSchedule.linear(), Coarse(), frames=3, steps=2)
    assert drawn.shape == (PAIRS, 3, 3, 16, 16) and drawn.dtype == torch.uint8
    assert "monotone hue" not in found and all(len(value) == PAIRS for value in found.values())


def test_real_pictures_make_the_round_trip_plain_and_refined(monkeypatch):
    ends = torch.randn(PAIRS, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    network, schedule, pictures = load_pretrained(NAME), NoiseSchedule.linear(), shapes(PAIRS, 16, seed=1).pixels
    found, _, _ = measures(network, ends, schedule, Coarse(), frames=3, steps=3, real=pictures)
    for refinements in (0, 3):
        x_T = invert(network, pictures / 127.5 - 1, schedule, 3, "quadratic", refinements)
        back = to_pixels(sample(network, x_T, schedule, "ddim", 3, "quadratic")).float()
        expected = (back - pictures).pow(2).mean(dim=(1, 2, 3)).sqrt()
        torch.testing.assert_close(found[f"real pictures, {refinements} refinements, grey levels"], expected, atol=0.05, rtol=0)
    monkeypatch.setattr(interpolations, "cifar10", lambda split: shapes(PAIRS, 32, seed=1))
    with pytest.raises(ValueError, match="tiny-shapes-l0 was trained on shapes"):
        interpolations.compare_interpolations([NAME], NAME, real=True)


def test_the_other_one_is_measured_once_for_several(monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr(evaluate, "open_features", lambda *_: Coarse())
    monkeypatch.setattr(evaluate, "open_network", lambda name, place: opened.append(name) or open_network(name, place))
    found = interpolations.compare_interpolations([NAME, NAME], NAME, pairs=PAIRS, frames=3, steps=2, device="cpu",
                                                          table=tmp_path / "table.csv")
    assert len(opened) == 3 and len(found) == 2 * 13
    assert all(row["difference"] == 0 for row in found if row["paired"])
    with pytest.raises(ValueError, match="at least one network"):
        interpolations.compare_interpolations([], NAME)
