"""The two CIFAR-10 classifiers in whose features this package measures distances. tests/benchmarks/train_classifier.py trains them.

Inception, the usual network for this, needs a download and is many times as large. These have about a million parameters each and are
shipped. Distances in their features compare models with one another; they are not the FID of the literature. The two share neither
architecture nor augmentation by noise, so a difference that both see is one of the pictures.

    picture (3, 32, 32) ─► first layer ─► stages, each halving the resolution ─► mean over positions (256) ─► 10 classes
"""
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import checkpoints
from ..data.cifar10 import CIFAR10_CLASSES
from ..support.files import reason

PATCH = 2
WIDTH = 256  # number of features


class Stage(nn.Module):
    """conv, halve, norm, GELU, conv, norm, GELU."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out)
        self.conv2, self.norm2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Block(nn.Module):
    """x ─► conv, halve, norm, ReLU, conv, norm; added to a 1×1 convolution of every second pixel; ReLU (He et al., 2016)."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(c_out)
        self.conv2, self.norm2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(inner + self.shortcut(x))


class Classifier(nn.Module):
    """Scores of the ten classes, (B, 10), of pictures (B, 3, 32, 32) in −1..1; `features` are the (B, 256) inputs of its last layer."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(WIDTH, len(CIFAR10_CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class WhitenedClassifier(Classifier):
    """Compares 2×2 patches with fixed patterns of both signs, which make the answers to real pictures uncorrelated; then three stages."""

    def __init__(self):
        super().__init__()
        patterns = 2 * 3 * PATCH**2
        self.patches = nn.Conv2d(3, patterns, PATCH)
        self.stages = nn.Sequential(Stage(patterns, 64), Stage(64, 128), Stage(128, WIDTH))

    def features(self, x: Tensor) -> Tensor:
        return self.stages(self.patches(x.to(memory_format=torch.channels_last))).mean(dim=(2, 3))  # (B, 256)


class ResidualClassifier(Classifier):
    """A convolution, then three residual blocks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.blocks = nn.Sequential(Block(32, 64), Block(64, 128), Block(128, WIDTH))

    def features(self, x: Tensor) -> Tensor:
        return self.blocks(F.relu(self.stem(x.to(memory_format=torch.channels_last)))).mean(dim=(2, 3))  # (B, 256)


NETWORKS = {"whitened": WhitenedClassifier, "residual": ResidualClassifier}


def load_classifier(path: Path | str, device: torch.device | str = "cpu") -> Classifier:
    """Read a classifier's file: the network in float32, in eval mode, without gradients. Raises CheckpointError."""
    tensors, header = checkpoints.read_tensors(path)
    network = NETWORKS[header.get("classifier", {}).get("network", "whitened")]()
    try:
        network.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in tensors.items()})
    except RuntimeError as error:
        raise checkpoints.CheckpointError(f"{path} does not hold this package's classifier: {reason(error)}") from error
    return network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
