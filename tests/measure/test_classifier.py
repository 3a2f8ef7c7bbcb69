"""The classifiers behind the package's distances: their files, and the script that trains them."""
import re
import sys

import pytest
import torch
import train_classifier as script

from s2dm_mini import checkpoints, shapes
from s2dm_mini.checkpoints import CheckpointError
from s2dm_mini.data import Images, to_unit_range
from s2dm_mini.measure.classifier import NETWORKS, PATCH, WhitenedClassifier, load_classifier


def ten_classes(n, seed=0):
    """Shapes with their hue, in ten parts, as label: quickly learned."""
    images = shapes(n, seed=seed)
    return Images("hues", images.pixels, (images.factors["hue"] * 10).long().clamp(max=9), tuple("0123456789"))


def test_the_first_layer_whitens_patches():
    x = to_unit_range(shapes(300).pixels)
    x = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))  # no direction without variance
    network = WhitenedClassifier()
    script.whiten(network, x)
    d = 3 * PATCH**2
    answer = network.patches(x)  # (N, 2·12, 31, 31)
    covariance = torch.cov(answer[:, :d].transpose(0, 1).flatten(1))
    assert (covariance - covariance.diag().diag()).abs().max() < 0.02 and ((covariance.diag() > 0.8) & (covariance.diag() < 1.05)).all()
    assert torch.allclose(answer[:, d:], -answer[:, :d], atol=1e-4), "each direction once with either sign"


def test_pictures_shift_by_whole_pixels_with_mirrored_edges():
    x = to_unit_range(shapes(64).pixels)
    moved = script.random_shift(x, 2, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="reflect")
    found = set()
    for before, after in zip(padded, moved, strict=True):
        places = [(i, j) for i in range(5) for j in range(5) if torch.equal(before[:, i:i + 32, j:j + 32], after)]
        assert places, "not a shifted copy"
        found.add(places[0])
    assert len(found) > 15, "all 25 shifts are equally likely"


def test_training_learns_repeats_and_writes_network_and_reference(tmp_path, monkeypatch, capsys):
    split = {"train": ten_classes(1_000), "test": ten_classes(400, seed=1)}
    monkeypatch.setattr(script, "cifar10", split.get)
    words = "script --epochs 3 --batch 50 --learning-rate 0.1 --noise 0.05 --device cpu --out"
    monkeypatch.setattr(sys, "argv", [*words.split(), str(tmp_path)])
    script.main()
    assert {path.name for path in tmp_path.iterdir()} == {"cifar10-classifier.safetensors", "hues.cifar10-classifier.safetensors"}
    file = tmp_path / "cifar10-classifier.safetensors"
    network, record = load_classifier(file), checkpoints.read_tensors(file)[1]["record"]
    assert record["test_accuracy"] > 0.5, "chance is 0.1"
    assert script.accuracy(network, split["test"]) == pytest.approx(record["test_accuracy"], abs=0.01), "half precision costs little"
    losses = [loss for loss, _ in script.train(script.Config(**record["config"]), split["train"])]
    assert losses[-1] == record["loss"] and losses[-1] < losses[0]
    x = to_unit_range(split["test"].pixels[:9])
    assert torch.allclose(network.head(network.features(x)), network(x)) and not network.training
    assert torch.equal(network(x)[:4], network(x[:4])), "a picture's answer does not depend on its batch"

    [(loss, more)] = script.train(script.Config(epochs=1, batch=50, start=str(file), device="cpu"), split["train"])
    assert loss < losses[0] and torch.equal(more.patches.weight, network.patches.weight), "the first layer is not trained"


def test_another_file_is_refused(tmp_path):
    checkpoints.write_tensors(tmp_path / "other.safetensors", {"weight": torch.zeros(2)}, {})
    with pytest.raises(CheckpointError, match="other.safetensors does not hold this package's classifier"):
        load_classifier(tmp_path / "other.safetensors")


@pytest.mark.parametrize("network", NETWORKS.values())
def test_both_give_256_features_and_ten_scores(network):
    x = torch.zeros(2, 3, 32, 32)
    assert network()(x).shape == (2, 10) and network().features(x).shape == (2, 256)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "at_least"), [("cifar10-classifier", 0.91), ("cifar10-plain", 0.89)])
def test_a_shipped_classifier_is_as_good_as_its_record_says(name, at_least, real_cifar10):
    entry = checkpoints.manifest()[name]
    assert (checkpoints.ZOO / entry["file"]).stat().st_size < 6e6
    test = real_cifar10["test"]
    part = Images(test.name, test.pixels[:4_000], test.labels[:4_000], test.classes)
    measured = script.accuracy(load_classifier(checkpoints.pretrained_file(name)), part)
    assert measured == pytest.approx(entry["record"]["test_accuracy"], abs=0.015) and entry["record"]["test_accuracy"] > at_least
    stated = re.search(rf"{name}`[^\n]*?([\d.]+) %", (checkpoints.ZOO / "README.md").read_text(encoding="utf-8"))
    assert float(stated.group(1)) == round(100 * entry["record"]["test_accuracy"], 1), "the README states another accuracy"
