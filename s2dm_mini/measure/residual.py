"""A second CIFAR-10 classifier, to judge the judge: a small residual network (He et al., 2016), trained without noise.

It shares neither architecture nor augmentation by noise with `classifier.Classifier`, so a difference that both see is one of the pictures.

    picture (3, 32, 32) ─► convolution ─► three residual blocks, each halving the resolution ─► mean over positions (256) ─► 10 classes
"""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.cifar10 import CIFAR10_CLASSES

WIDTHS = (32, 64, 128, 256)


class Block(nn.Module):
    """x ─► conv, halve, norm, ReLU, conv, norm; added to a 1×1 convolution of every second pixel; ReLU."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(c_out)
        self.conv2, self.norm2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(inner + self.shortcut(x))


class ResidualClassifier(nn.Module):
    """Scores of the ten classes, (B, 10), of pictures (B, 3, 32, 32) in −1..1; `features` are the (B, 256) inputs of its last layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTHS[0], 3, padding=1)
        self.blocks = nn.Sequential(*(Block(c_in, c_out) for c_in, c_out in zip(WIDTHS, WIDTHS[1:], strict=False)))
        self.head = nn.Linear(WIDTHS[-1], len(CIFAR10_CLASSES))
        self.to(memory_format=torch.channels_last)

    def features(self, x: Tensor) -> Tensor:
        return self.blocks(F.relu(self.stem(x.to(memory_format=torch.channels_last)))).mean(dim=(2, 3))  # (B, 256)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))
