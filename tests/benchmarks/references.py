"""Makes the shipped references and eigenvalues of CIFAR-10's training images: python tests/benchmarks/references.py [--only own pixels …]

A reference holds the mean, the covariance and 2,000 of the features of all 50,000 images. For EfficientNet-Lite0 the script first finds the
directions along which its features are read; its 50,000 × 1,280 raw features take a quarter of an hour on one core, and are kept in --out.
"""
import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from shipping import ship
from torch import Tensor

from s2dm_mini import GaussianDenoiser, NoiseSchedule, checkpoints, cifar10
from s2dm_mini.data.images import Images, fingerprint
from s2dm_mini.measure.features import OFFLINE, EfficientNetLite0, open_features
from s2dm_mini.measure.references import KEPT, Reference, write_reference
from s2dm_mini.support.progress import bar

DIRECTIONS = "efficientnet-lite0-directions"


def directions_of(x: Tensor, width: int = 256) -> dict[str, Tensor]:
    """The mean (D,) of features x (N, D), and the `width` directions (D, width) in which they vary most, most first; fp16."""
    x = x.double()
    _, vectors = torch.linalg.eigh(torch.cov(x.T))  # ascending
    vectors = vectors[:, -width:].flip(1)
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()  # one sign on every machine
    return {"mean": x.mean(0).half(), "directions": vectors.half()}


def ship_eigenvalues(images: Images) -> None:
    """Ship the eigenvalues of the covariance of the images, falling, for predictions."""
    values = GaussianDenoiser.fit(images.pixels, NoiseSchedule.linear()).eigenvalues.flip(0)  # (C·H·W,)
    path, about = checkpoints.ZOO / f"{images.name}.eigenvalues.safetensors", {"data": images.name, "n": len(images)}
    checkpoints.write_tensors(path, {"eigenvalues": values.float()}, {"eigenvalues": about})
    ship(path.stem, path, {"eigenvalues": about})
    print(f"{path}: {len(values):,} eigenvalues from {values[0]:.1f} down, their sum {values.sum():.1f}")


def find_directions(images: Images, kept: Path) -> torch.Tensor:
    """Ship the directions in which EfficientNet-Lite0's features of the images vary most. Returns the features (N, 1280)."""
    network = EfficientNetLite0()
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with torch.no_grad(), bar("features", len(images)) as progress:
            parts = []
            for pixels in images.pixels.split(100):
                parts.append(network(pixels))
                progress.update(len(pixels))
        save_file({"features": torch.cat(parts)}, kept)
    x = load_file(kept)["features"]
    tensors = directions_of(x)
    centred = x.double() - tensors["mean"].double()
    share = float((centred @ tensors["directions"].double()).var(0).sum() / centred.var(0).sum())
    path = checkpoints.ZOO / f"{DIRECTIONS}.safetensors"
    about = {"data": images.name, "data_sha256": fingerprint(images), "weights_sha256": network.hash, "share_of_variance": round(share, 4)}
    checkpoints.write_tensors(path, tensors, {"directions": about})
    ship(DIRECTIONS, path, {"directions": about})
    print(f"{path}: {tensors['directions'].shape[1]} directions hold {share:.1%} of the variance")
    return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=(*OFFLINE, "eigenvalues"), choices=(*OFFLINE, "eigenvalues"))
    parser.add_argument("--out", type=Path, default=Path("runs/references"), help="folder for raw features")
    args = parser.parse_args()
    images = cifar10("train")
    for name in args.only:
        if name == "eigenvalues":
            ship_eigenvalues(images)
            continue
        raw = find_directions(images, args.out / f"{name}.safetensors") if name == "efficientnet-lite0" else None
        features = open_features(name)
        x = features(images.pixels) if raw is None else (raw - features.mean) @ features.directions
        path = checkpoints.ZOO / f"{images.name}.{features.name}.safetensors"
        write_reference(path, Reference.of(x), images, features)
        ship(path.stem, path, {"reference": checkpoints.read_tensors(path)[1]["reference"]})
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {KEPT:,} features kept", flush=True)


if __name__ == "__main__":
    main()
