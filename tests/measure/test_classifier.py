"""The classifier behind the package's distances: its first layer, its augmentation, its training and its file."""
import re

import pytest
import torch

from s2dm_mini import checkpoints, shapes
from s2dm_mini.checkpoints import CheckpointError
from s2dm_mini.data import Images, to_unit_range
from s2dm_mini.measure import classifier
from s2dm_mini.measure.classifier import (
    PATCH,
    Classifier,
    ClassifierConfig,
    load_classifier,
    random_noise,
    random_shift,
    save_classifier,
    train_classifier,
)


def ten_classes(n, seed=0):
    """Shapes with their hue, in ten parts, as label: quickly learned."""
    images = shapes(n, seed=seed)
    return Images("hues", images.pixels, (images.factors["hue"] * 10).long().clamp(max=9), tuple("0123456789"))


def test_the_first_layer_whitens_patches():
    x = to_unit_range(shapes(300).pixels)
    x = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))  # no direction without variance
    network = Classifier()
    network.whiten(x)
    d = 3 * PATCH**2
    answer = network.patches(x)  # (N, 2·12, 31, 31)
    covariance = torch.cov(answer[:, :d].transpose(0, 1).flatten(1))
    assert (covariance - covariance.diag().diag()).abs().max() < 0.02 and ((covariance.diag() > 0.8) & (covariance.diag() < 1.05)).all()
    assert torch.allclose(answer[:, d:], -answer[:, :d], atol=1e-4), "each direction once with either sign"
    assert not network.patches.weight.requires_grad


def test_pictures_shift_by_whole_pixels_with_mirrored_edges():
    x = to_unit_range(shapes(64).pixels)
    moved = random_shift(x, 2, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="reflect")
    found = set()
    for before, after in zip(padded, moved, strict=True):
        places = [(i, j) for i in range(5) for j in range(5) if torch.equal(before[:, i:i + 32, j:j + 32], after)]
        assert places, "not a shifted copy"
        found.add(places[0])
    assert len(found) > 15, "all 25 shifts are equally likely"


def test_noise_is_mostly_slight_and_differs_from_picture_to_picture():
    x = torch.zeros(4_000, 3, 8, 8)
    deviation = random_noise(x, 0.2, torch.Generator().manual_seed(0)).std(dim=(1, 2, 3))
    assert deviation.max() < 0.2 * 1.2 and deviation.mean().item() == pytest.approx(0.2 / 3, rel=0.05)
    assert deviation.median().item() == pytest.approx(0.2 / 4, rel=0.1), "u² with u uniform"
    assert torch.equal(random_noise(x, 0.0, torch.Generator().manual_seed(0)), x)


def test_training_learns_and_repeats(tmp_path):
    config = ClassifierConfig(epochs=3, batch=50, learning_rate=0.1, device="cpu")
    images, test = ten_classes(1_000), ten_classes(400, seed=1)
    records = list(train_classifier(config, images, test))
    assert [r.epoch for r in records] == [1, 2, 3] and records[-1].loss < records[0].loss
    assert records[-1].accuracy > 0.5, "chance is 0.1"
    again = list(train_classifier(config, images, test))
    assert [r.loss for r in again] == [r.loss for r in records]

    save_classifier(tmp_path / "net.safetensors", records[-1], config, images)
    network, record = load_classifier(tmp_path / "net.safetensors")
    assert record["test_accuracy"] == records[-1].accuracy and record["config"]["epochs"] == 3 and record["data"] == "hues"
    assert classifier.accuracy(network, test) == pytest.approx(records[-1].accuracy, abs=0.01), "half precision costs next to nothing"
    x = to_unit_range(test.pixels[:9])
    assert torch.allclose(network.head(network.features(x)), network(x)) and not network.training
    assert torch.equal(network(x)[:4], network(x[:4])), "a picture's answer does not depend on its batch"


def test_bad_settings_and_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="epochs must be an integer of at least 1, not 0"):
        ClassifierConfig(epochs=0)
    with pytest.raises(ValueError, match="learning_rate must be above 0, not -1"):
        ClassifierConfig(learning_rate=-1)
    few = ten_classes(10)
    with pytest.raises(ValueError, match="hues has 10 images, fewer than one batch of 256"):
        next(train_classifier(ClassifierConfig(device="cpu"), few, few))
    with pytest.raises(ValueError, match="the loss became nan in epoch 1"):
        list(train_classifier(ClassifierConfig(epochs=1, batch=10, learning_rate=1e20, device="cpu"), ten_classes(100), few))
    checkpoints.write_tensors(tmp_path / "other.safetensors", {"weight": torch.zeros(2)}, {})
    with pytest.raises(CheckpointError, match="other.safetensors does not hold this package's classifier"):
        load_classifier(tmp_path / "other.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "at_least"), [("cifar10-classifier", 0.91), ("cifar10-plain", 0.89)])
def test_a_shipped_classifier_is_as_good_as_its_record_says(name, at_least, real_cifar10):
    entry = checkpoints.manifest()[name]
    assert (checkpoints.ZOO / entry["file"]).stat().st_size < 6e6
    test = real_cifar10["test"]
    part = Images(test.name, test.pixels[:4_000], test.labels[:4_000], test.classes)
    measured = classifier.accuracy(load_classifier(checkpoints.pretrained_file(name))[0], part)
    assert measured == pytest.approx(entry["record"]["test_accuracy"], abs=0.015) and entry["record"]["test_accuracy"] > at_least
    stated = re.search(rf"{name}`[^\n]*?([\d.]+) %", (checkpoints.ZOO / "README.md").read_text(encoding="utf-8"))
    assert float(stated.group(1)) == round(100 * entry["record"]["test_accuracy"], 1), "the README states another accuracy"
