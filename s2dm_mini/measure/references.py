"""The features of real pictures, computed once and kept."""
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .. import checkpoints
from ..checkpoints import CheckpointError, read_tensors, write_tensors
from ..data import load_data
from ..data.images import Images, data_folder, fingerprint
from .features import ClassifierFeatures, InceptionFeatures
from .metrics import Moments, _check_features


@dataclass(frozen=True)
class Reference:
    """A data set as the measures need it: the moments of all its features, and a random `KEPT` of them, (KEPT, D) float32."""

    moments: Moments
    features: Tensor


def open_reference(data_name: str, size: int, features: ClassifierFeatures | InceptionFeatures) -> Reference:
    """What samples are compared with: the training pictures; for CIFAR-10 in the package's own features no data set is needed.

    Raises ValueError for CelebA in the package's own features.
    """
    if data_name == "celeba" and isinstance(features, ClassifierFeatures):
        raise ValueError("faces are not measured in the features of a CIFAR-10 classifier, which sees 32×32 pixels and knows no faces; "
                         "use features = inception, or a TorchScript file of Inception.")
    if data_name == "cifar10" and isinstance(features, ClassifierFeatures):
        return reference("cifar10-train", features)
    return reference(load_data(data_name, size), features)


KEPT = 2_000  # features of a data set kept one by one, for the measures that need more than its moments


def reference(images: Images | str, features) -> Reference:
    """The features of a data set, computed once and kept in the user's data folder, under a hash of the pictures and of the features.

    images: a data set, or the name of one whose reference is shipped ("cifar10-train" for the package's classifier): then no data
    set is needed. Raises CheckpointError if a name is not shipped.
    """
    if isinstance(images, str):
        return read_reference(checkpoints.pretrained_file(f"{images}.{features.name}"), features)
    cached = data_folder() / "references" / f"{images.name}-{fingerprint(images)}-{features.name}-{features.hash}.safetensors"
    if cached.exists():
        try:
            return read_reference(cached, features)
        except CheckpointError:
            cached.unlink()  # damaged: it is only a copy of what can be computed again
    found = compute_reference(images, features)
    write_reference(cached, found, images, features)
    return found


def compute_reference(images: Images, features) -> Reference:
    """The reference of a data set, from its pictures."""
    x = features(images.pixels)
    keep = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:KEPT]
    return Reference(Moments.of(x), x[keep])


def write_reference(path: Path, found: Reference, images: Images, features) -> None:
    """Write a reference, with the hashes of what it was computed from."""
    tensors = {"mean": found.moments.mean, "covariance": found.moments.covariance, "features": found.features.half()}
    write_tensors(path, tensors, {"reference": {"n": found.moments.n, "data": images.name, "data_sha256": fingerprint(images),
                                                "features": features.name, "features_sha256": features.hash}})


def read_reference(path: Path, features) -> Reference:
    """Read it back. Raises CheckpointError if it was computed from other features."""
    tensors, header = read_tensors(path)
    try:
        made = header["reference"]
        if made["features_sha256"] != features.hash:
            raise CheckpointError(f"{path} holds {made['features']} features of weights {made['features_sha256']}, but these have the hash "
                                  f"{features.hash}: make it anew with `python -m s2dm_mini train-classifier`.")
        kept = tensors["features"].float()
        _check_features("features", kept)
        if kept.shape[1:] != tensors["mean"].shape:
            raise ValueError(f"features are (N, D) for a mean (D,), not {tuple(kept.shape)} for {tuple(tensors['mean'].shape)}.")
        return Reference(Moments(made["n"], tensors["mean"].double(), tensors["covariance"].double()), kept)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is not a reference of this package: {type(error).__name__}, {error}") from error
