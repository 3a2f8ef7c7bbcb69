"""Features (N, D) of pictures (N, 3, H, W) uint8, in which distances between sets of pictures are measured.

    features = open_features("own")                        # this package's CIFAR-10 classifier: 256 features
    features = open_features("plain")                      # a second one, of another architecture, trained without noise
    features = open_features("efficientnet-lite0")         # ImageNet's, along the 256 leading directions of CIFAR-10
    features = open_features("pixels")                     # no network: mean colours of 4×4 pixels
    features = open_features("spectrum")                   # no network: power by spatial frequency
    features = open_features("inception")                  # FID in the literature uses these 2,048; downloads
    features = open_features("inception-2015-12-05.pt")    # the same from a TorchScript file

All but Inception's work offline. Each has a `name`, stated beside every distance, and a `hash` of its weights, so that statistics of a data
set are never compared with the features of another network.
"""
import hashlib
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints import CheckpointError, manifest, pretrained_file, read_tensors, sha256
from ..data.images import to_unit_range
from ..support.checks import check_pixels
from ..support.network import answers
from .classifier import load_classifier
from .imagenet import EfficientNetLite0
from .spectrum import ring_powers

CLASSIFIERS = {"own": "cifar10-classifier", "plain": "cifar10-plain"}
OFFLINE = ("own", "plain", "efficientnet-lite0", "pixels", "spectrum")


def open_features(name: str, device: torch.device | str = "cpu") -> "Features":
    """Features by their name above. Raises ValueError for another name, CheckpointError for a file that does not hold them."""
    if Path(name).suffix in (".pt", ".pth"):
        return InceptionFeatures(name, device)
    if name in CLASSIFIERS:
        return ClassifierFeatures(pretrained_file(CLASSIFIERS[name]), device)
    if name in FORMULAS:
        return FormulaFeatures(name)
    if name in ("efficientnet-lite0", "inception"):
        return (ImageNetFeatures if name == "efficientnet-lite0" else InceptionFeatures)(device=device)
    raise ValueError(f"features must be {', '.join(OFFLINE)}, inception or a TorchScript file (.pt), not {name!r}.")


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


class ImageNetFeatures:
    """The features of EfficientNet-Lite0 along the directions of a shipped file, from their mean over CIFAR-10's training images."""

    name = "efficientnet-lite0"

    def __init__(self, directions: Path | None = None, device: torch.device | str = "cpu"):
        directions = directions or pretrained_file("efficientnet-lite0-directions")
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
    """The 2,048 features of the Inception network that defines FID.

    path: a TorchScript file that maps uint8 pictures (N, 3, H, W) to (N, 2048) and scales them to 299×299 itself, as the StyleGAN
    authors' file does. It is a program: use only a file that you trust. Without a path torchmetrics builds the network, with antialiasing
    off as in the original, from weights that torch-fidelity downloads once; this needs `pip install "s2dm-mini[fid]"` and a network
    connection. Raises CheckpointError.
    """

    name, width = "inception", 2048

    def __init__(self, path: Path | str | None = None, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        if path is not None:
            self.hash, self.network = sha256(Path(path))[:16], _torchscript(Path(path), self.device)
        else:
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


def _torchscript(path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The features that a TorchScript file computes."""
    try:
        network = torch.jit.load(path, map_location=device).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be read as a TorchScript file ({str(error).splitlines()[0][:200]}); it must map uint8 "
                              f"pictures (N, 3, H, W) to 2,048 features.") from error
    # The StyleGAN authors' file returns class scores by default, features with this argument.
    asks = "return_features" in {argument.name for argument in network.forward.schema.arguments}
    features = partial(network, return_features=True) if asks else network
    try:
        with torch.no_grad():
            shape = tuple(features(torch.zeros(2, 3, 32, 32, dtype=torch.uint8, device=device)).shape)
    except (RuntimeError, AttributeError) as error:
        raise CheckpointError(f"{path} does not take uint8 pictures (N, 3, 32, 32) ({str(error).splitlines()[-1][:200]}).") from error
    if shape != (2, InceptionFeatures.width):
        raise CheckpointError(f"{path} returns {shape} for 2 pictures; Inception's features are (2, {InceptionFeatures.width}).")
    return features


def _torchmetrics_inception() -> nn.Module:
    from torchmetrics.image import fid

    kept = Path(torch.hub.get_dir(), "checkpoints").glob("weights-inception-*")  # where torch-fidelity keeps them
    try:
        if find_spec("torch_fidelity") and not any(kept) and not answers("https://github.com"):
            raise OSError("their server does not answer")
        return fid.NoTrainInceptionV3("inception-v3-compat", [str(InceptionFeatures.width)], antialias=False)
    except ModuleNotFoundError as error:
        raise CheckpointError("Inception's features need torch-fidelity: `pip install \"s2dm-mini[fid]\"` (it brings torchvision), or a "
                              "TorchScript file of the network. The package's own classifier needs neither.") from error
    except OSError as error:  # such as URLError
        raise CheckpointError(f"Inception's weights could not be downloaded ({error}). Without a network connection, give a TorchScript "
                              f"file, or use the package's own classifier.") from error
