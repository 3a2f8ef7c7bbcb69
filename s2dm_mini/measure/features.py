"""Features (N, D) of pictures (N, 3, H, W) uint8, in which distances between sets of pictures are measured.

    features = ClassifierFeatures()          # the package's own classifier, works offline: 256 features
    features = InceptionFeatures()           # FID in the literature uses these: 2,048 features
    features = InceptionFeatures("inception-2015-12-05.pt")  # the same from a TorchScript file

Each has a `name`, stated beside every distance, and a `hash` of its weights, so that statistics of a data set are never compared with
the features of another network.
"""
import hashlib
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints import CheckpointError, pretrained_file, sha256
from ..data.images import to_unit_range
from ..support.checks import check_pixels
from ..support.network import answers
from .classifier import load_classifier

CLASSIFIER = "cifar10-classifier"


def open_features(name: str, device: torch.device | str = "cpu") -> "ClassifierFeatures | InceptionFeatures":
    """`classifier` (the package's own), `inception` (downloads), or the TorchScript file of an Inception network."""
    own = {"classifier": ClassifierFeatures, "inception": InceptionFeatures}
    if name in own:
        return own[name](device=device)
    if Path(name).suffix in (".pt", ".pth"):
        return InceptionFeatures(name, device)
    raise ValueError(f"features must be classifier, inception or a TorchScript file (.pt), not {name!r}.")


class ClassifierFeatures:
    """The 256 features from which the package's own CIFAR-10 classifier computes its class scores."""

    name, width = CLASSIFIER, 256

    def __init__(self, path: Path | None = None, device: torch.device | str = "cpu"):
        path = path or pretrained_file(CLASSIFIER)
        self.network, self.hash = load_classifier(path, device)[0], sha256(path)[:16]

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 → (N, 256) float32 on the CPU. Pictures of another size are first scaled to 32×32."""
        def features(pixels: Tensor) -> Tensor:
            x = to_unit_range(pixels)
            return self.network.features(x if x.shape[-2:] == (32, 32) else F.interpolate(x, (32, 32), mode="bilinear", antialias=True))

        return _in_batches(features, pixels, self.network.head.weight.device, batch=250)


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
