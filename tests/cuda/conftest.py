"""What the tests on the emulated device share. In any other run they are skipped."""
from pathlib import Path

import pytest
import torch

from s2dm_mini import UNet, UNetConfig, shapes
from s2dm_mini.unet import PRESETS

EMULATED = hasattr(torch.ops.fakecuda, "launches")
SMALL = UNetConfig(image_size=8, channels=(8, 16), blocks_per_level=1, attention_levels=(1,), norm_groups=4, dropout=0.1)


def pytest_collection_modifyitems(items):
    for item in items:
        if not EMULATED and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="it runs on the emulated CUDA device: make test-cuda"))


@pytest.fixture
def images(monkeypatch):
    """64 images of 8×8, which the preset tiny is made to fit."""
    monkeypatch.setitem(PRESETS, "tiny", SMALL)
    return shapes(64, size=8)


@pytest.fixture
def network():
    """A function (classes) → a small network on the device that predicts something."""
    def made(classes=0):
        torch.manual_seed(0)
        model = UNet(UNetConfig(**SMALL.to_dict() | {"classes": classes, "dropout": 0.0}))
        torch.nn.init.normal_(model.conv_out.weight, std=0.1)
        return model.cuda().eval().requires_grad_(False)

    return made
