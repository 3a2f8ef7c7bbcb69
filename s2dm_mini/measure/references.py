"""References: the features of real pictures, computed once and kept in a file, for samples to be compared with."""
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints import CheckpointError, manifest, pretrained_file, read_tensors, write_tensors
from ..data import load_data
from ..data.images import Images, data_folder, fingerprint
from .features import CLASSIFIERS, Features
from .metrics import Moments, check_features

KEPT = 2_000  # features of a data set kept one by one


@dataclass(frozen=True)
class Reference:
    """The moments of all features of a data set, and a random `KEPT` of its features, (KEPT, D) float32."""

    moments: Moments
    features: Tensor

    @classmethod
    def of(cls, x: Tensor) -> "Reference":
        """Of features x (N, D)."""
        keep = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:KEPT]
        return cls(Moments.of(x), x[keep])


def open_reference(data_name: str, size: int, features: Features) -> Reference:
    """The reference for samples of this data set and size: its training pictures.

    CIFAR-10's in all features but Inception's is shipped. Raises ValueError for CelebA in features of CIFAR-10.
    """
    if data_name == "celeba" and features.name in (*CLASSIFIERS.values(), "efficientnet-lite0"):
        raise ValueError(f"faces are not measured in the features {features.name}, which were chosen for CIFAR-10's 32×32 pixels without "
                         f"faces; use features = pixels, spectrum or inception.")
    shipped = f"cifar10-train.{features.name}" in manifest()
    return reference("cifar10-train" if shipped and data_name == "cifar10" else load_data(data_name, size), features)


def reference(images: Images | str, features) -> Reference:
    """The reference of a data set, from the user's data folder if it was computed before, named by hashes of pictures and features.

    images: a data set, or the name of a shipped reference ("cifar10-train"), which needs no data set.
    Raises CheckpointError for a name that is not shipped.
    """
    if isinstance(images, str):
        return read_reference(pretrained_file(f"{images}.{features.name}"), features)
    cached = data_folder() / "references" / f"{images.name}-{fingerprint(images)}-{features.name}-{features.hash}.safetensors"
    if cached.exists():
        try:
            return read_reference(cached, features)
        except CheckpointError:
            cached.unlink()  # damaged: compute it again
    found = Reference.of(features(images.pixels))
    write_reference(cached, found, images, features)
    return found


def write_reference(path: Path, found: Reference, images: Images, features) -> None:
    """Write a reference, its features in half precision, with the hashes of its pictures and of the network."""
    tensors = {"mean": found.moments.mean, "covariance": found.moments.covariance, "features": found.features.half()}
    write_tensors(path, tensors, {"reference": {"n": found.moments.n, "data": images.name, "data_sha256": fingerprint(images),
                                                "features": features.name, "features_sha256": features.hash}})


def read_reference(path: Path, features) -> Reference:
    """Read a file of `write_reference`. Raises CheckpointError if it is damaged or was computed from other features."""
    tensors, header = read_tensors(path)
    try:
        made = header["reference"]
        if made["features_sha256"] != features.hash:
            raise CheckpointError(f"{path} holds {made['features']} features of weights {made['features_sha256']}, but these have the hash "
                                  f"{features.hash}: make it anew with `python tests/benchmarks/references.py`.")
        found = Reference(Moments(made["n"], tensors["mean"].double(), tensors["covariance"].double()), tensors["features"].float())
        check_features("features", found.features, like=found.moments.mean)
        return found
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is not a reference of this package: {type(error).__name__}, {error}") from error
