"""From a checkpoint to a row of the ledger, as a user would run it."""
import math

import pytest
import torch
from PIL import Image

from s2dm_mini import NoiseSchedule, sample
from s2dm_mini.checkpoints import CheckpointError, load_pretrained, open_network
from s2dm_mini.data import to_pixels
from s2dm_mini.measure import metrics
from s2dm_mini.measure.draw import BLOCK, draw, starting_noise
from s2dm_mini.measure.features import OFFLINE, open_features
from s2dm_mini.measure.references import open_reference
from s2dm_mini.study.evaluate import evaluate, samples_picture
from s2dm_mini.study.tables import read_rows

SCHEDULE = NoiseSchedule.linear()


def test_the_noise_of_an_image_depends_on_seed_and_number_only():
    many, few = starting_noise(2 * BLOCK + 7, (3, 4, 4), seed=3), starting_noise(BLOCK + 1, (3, 4, 4), seed=3)
    assert torch.equal(many[:len(few)], few) and many.shape == (2 * BLOCK + 7, 3, 4, 4)
    assert not torch.equal(many[:BLOCK], many[BLOCK:2 * BLOCK]) and not torch.equal(few, starting_noise(BLOCK + 1, (3, 4, 4), seed=4))
    assert abs(many.mean()) < 0.1 and abs(many.std() - 1) < 0.1


@pytest.mark.parametrize(("sampler", "eta"), [("ddim", 0.0), ("ddim", 1.0), ("ddpm", 0.0), ("f-pndm", 0.0)])
def test_drawing_in_batches_changes_nothing_but_rounding(sampler, eta):
    network = load_pretrained("tiny-shapes-l0")
    whole, parts = (torch.cat(list(draw(network, 10, (3, 16, 16), SCHEDULE, sampler, 5, eta=eta, seed=1, batch=b))) for b in (10, 3))
    assert whole.dtype == torch.uint8 and whole.shape == (10, 3, 16, 16)
    assert (whole.int() - parts.int()).abs().max() <= 1 and (whole == parts).float().mean() > 0.999


def test_drawn_images_are_samples_from_their_noise():
    network = load_pretrained("tiny-shapes-l0")
    by_hand = to_pixels(sample(network, starting_noise(4, (3, 16, 16), 7), SCHEDULE, steps=4, spacing="trailing"))
    assert torch.equal(torch.cat(list(draw(network, 4, (3, 16, 16), SCHEDULE, steps=4, spacing="trailing", seed=7))), by_hand)
    with pytest.raises(ValueError, match="n must be at least 1, not 0"):
        next(draw(network, 0, (3, 16, 16), SCHEDULE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(autouse=True)
def own_data_folder(folder, monkeypatch):
    monkeypatch.setenv("S2DM_DATA", str(folder))


@pytest.mark.slow
def test_a_checkpoint_becomes_a_row(folder, classifier_features):
    table = folder / "table.csv"
    row, *_ = rows = evaluate("tiny-shapes-l0", "f-pndm", steps=6, samples=60, seed=2, device="cpu", table=table)
    again, = evaluate("tiny-shapes-l0", "f-pndm", steps=6, samples=60, seed=2, features=("own",), device="cpu", table=table)
    assert len({r["features"] for r in rows}) == len({r["features_sha256"] for r in rows}) == len(rows) == 3
    timing = {"seconds", "date"}
    assert {k: v for k, v in row.items() if k not in timing and v == v} == {k: v for k, v in again.items() if k not in timing and v == v}
    first, *_, second = read_rows(table)
    assert first["checkpoint"] == "tiny-shapes-l0" and (first["steps"], first["nfe"], first["samples"]) == ("6", "15", "60")
    assert first["fd"] == second["fd"] and math.isnan(float(first["fd_infinite"])), "60 samples are too few to extrapolate from"

    network, record = open_network("tiny-shapes-l0")
    x = classifier_features(torch.cat(list(draw(network, 60, (3, 16, 16), SCHEDULE, "f-pndm", 6, seed=2))))
    real = open_reference("shapes", 16, classifier_features)
    assert row["fd"] == pytest.approx(metrics.frechet_distance(real.moments, x), rel=1e-4)
    assert row["kid"] == pytest.approx(metrics.kernel_distance(real.features, x)[0], rel=1e-3)
    assert record["config"]["tau"] == row["tau"] == 1.0


@pytest.mark.parametrize("name", OFFLINE)
def test_no_measure_of_cifar10_needs_the_data_set(name):
    real = open_reference("cifar10", 32, open_features(name))
    assert real.moments.n == 50_000 and len(real.features) == 2_000


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="features must be one of own, plain, .*, inception, not"):
        open_features("resnet")
    with pytest.raises(CheckpointError, match="no checkpoint is called 'compact-cifar10'.* Known: .*nano-cifar10-l0"):
        open_network("compact-cifar10")
    with pytest.raises(CheckpointError, match="gone.safetensors cannot be read"):
        open_network(str(tmp_path / "gone.safetensors"))


def test_a_picture_of_too_many_dots_is_refused_before_anything_is_drawn(tmp_path):
    with pytest.raises(ValueError, match="64 images enlarged 3000 times have 147,456,000,000 dots; a picture has at most 100,000,000"):
        samples_picture("tiny-shapes-l0", tmp_path / "a.png", enlarge=3000, device="cpu")
    assert not list(tmp_path.iterdir())


def test_columns_beyond_the_images_make_no_wider_picture(tmp_path):
    samples_picture("tiny-shapes-l0", tmp_path / "a.png", n=2, steps=2, columns=1_000_000, enlarge=1, device="cpu")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (32, 16)


def test_numbers_out_of_range_are_refused_before_anything_is_drawn(tmp_path):
    with pytest.raises(ValueError, match="samples must be at least 4, for precision and recall, not 3"):
        evaluate("tiny-shapes-l0", samples=3, table=tmp_path / "t.csv")
    with pytest.raises(ValueError, match="seed must be an integer in 0"):
        samples_picture("tiny-shapes-l0", tmp_path / "a.png", n=2, steps=2, seed=-1, device="cpu")
    assert not list(tmp_path.iterdir())
