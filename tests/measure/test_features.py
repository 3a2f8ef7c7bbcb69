"""Features of pictures: Inception with a stand-in behind it, and the package's own classifier."""
import urllib.error

import pytest
import torch
from torch import Tensor, nn

from s2dm_mini import shapes
from s2dm_mini.checkpoints import CheckpointError
from s2dm_mini.data import to_unit_range
from s2dm_mini.measure.features import InceptionFeatures, open_features


class Plain(nn.Module):
    """uint8 pictures in, 2,048 numbers out: the mean colour, again and again."""

    def forward(self, pixels: Tensor) -> Tensor:
        assert pixels.dtype == torch.uint8
        return pixels.float().mean(dim=(2, 3)).repeat(1, 683)[:, :2048]


def stand_in(monkeypatch, build):
    from torchmetrics.image import fid

    monkeypatch.setattr(fid, "NoTrainInceptionV3", build)


def test_torchmetrics_inception_is_built_without_antialiasing(monkeypatch):
    asked = []

    def build(name, features_list, feature_extractor_weights_path=None, antialias=True):
        asked.append((name, features_list, antialias))
        return Plain()

    stand_in(monkeypatch, build)
    pixels = shapes(3, size=16).pixels
    assert torch.allclose(InceptionFeatures()(pixels)[:, :3], pixels.float().mean(dim=(2, 3)))
    assert asked == [("inception-v3-compat", ["2048"], False)]


@pytest.mark.parametrize(("error", "said"), [
    (urllib.error.URLError("no route"), "could not be downloaded .*no route.*copy weights-inception"),
    (ModuleNotFoundError("torch-fidelity"), r'pip install "s2dm-mini\[fid\]"'),
])
def test_without_network_or_package_a_sentence_says_what_to_do(monkeypatch, error, said):
    def build(*_, **__):
        raise error

    stand_in(monkeypatch, build)
    with pytest.raises(CheckpointError, match=said):
        InceptionFeatures()


# --------------------------------------------------------------------------------------------------- the classifier

def test_classifier_features_are_what_the_class_is_read_off(classifier_features):
    pixels = shapes(300).pixels  # more than one batch
    x, network = classifier_features(pixels), classifier_features.network
    assert x.shape == (300, classifier_features.width) and x.dtype == torch.float32 and len(classifier_features.hash) == 16
    with torch.inference_mode():
        scores = network(to_unit_range(pixels[:20]))
    assert torch.allclose(x[:20] @ network.head.weight.T + network.head.bias, scores, atol=1e-4)


def test_pictures_of_another_size_are_scaled(classifier_features):
    small = shapes(8, size=16).pixels
    doubled = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    near, far = classifier_features(small), classifier_features(shapes(8, size=32, seed=9).pixels)
    assert (near - classifier_features(doubled)).norm() < 0.5 * (near - far).norm()


@pytest.mark.parametrize("pixels", [torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8).byte(), torch.zeros(3, 8, 8).byte(),
                                    torch.zeros(0, 3, 8, 8).byte()])
def test_anything_but_pictures_is_refused(classifier_features, pixels):
    with pytest.raises(ValueError, match=r"pixels must be a uint8 tensor \(N, 3, H, W\), not empty, not torch"):
        classifier_features(pixels)


def test_imagenets_features_do_not_depend_on_the_batch_and_see_slight_noise():
    features, pixels = open_features("efficientnet-lite0"), shapes(60, size=32).pixels  # more than one batch
    x = features(pixels)
    assert x.shape == (60, 256) and features(pixels[55:]) == pytest.approx(x[55:], abs=1e-4)
    noise = 4 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    noisy = features((pixels + noise).round().clamp(0, 255).to(torch.uint8))
    assert (noisy - x).norm(dim=1).mean() > 0.1 * (x - x.mean(0)).norm(dim=1).mean()


def test_formulas():
    pixels = torch.full((2, 3, 32, 32), 255, dtype=torch.uint8)
    pixels[1, :, :16] = 0  # the upper half black
    colours, powers = open_features("pixels")(pixels), open_features("spectrum")(pixels)
    assert colours.shape == (2, 192) and powers.shape == (2, 16)
    assert torch.equal(colours[0], torch.ones(192)) and torch.equal(colours[1].view(3, 8, 8)[:, :4], -torch.ones(3, 4, 8))
    assert powers[0] == pytest.approx(torch.full((16,), 1 / 12).log10()), "a flat picture has no power, but is not at minus infinity"
    assert powers[1].argmax() == 0, "most of an edge's power is at one cycle"
