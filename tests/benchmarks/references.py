"""Makes the shipped references of CIFAR-10's training images: python tests/benchmarks/references.py [--only own pixels …]

A reference holds the mean, the covariance and 2,000 of the features of all 50,000 images. For EfficientNet-Lite0 the script first finds the
directions along which its features are read; its 50,000 × 1,280 raw features take a quarter of an hour on one core, and are kept in --out.
"""
import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from s2dm_mini import checkpoints, cifar10
from s2dm_mini.data.images import Images, fingerprint
from s2dm_mini.measure.features import OFFLINE, open_features
from s2dm_mini.measure.imagenet import EfficientNetLite0, directions_of
from s2dm_mini.measure.references import KEPT, Reference, write_reference
from s2dm_mini.study.zoo import ship
from s2dm_mini.support.progress import bar

DIRECTIONS = "efficientnet-lite0-directions"


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
    parser.add_argument("--only", nargs="+", default=OFFLINE, choices=OFFLINE)
    parser.add_argument("--out", type=Path, default=Path("runs/references"), help="folder for raw features")
    args = parser.parse_args()
    images = cifar10("train")
    for name in args.only:
        raw = find_directions(images, args.out / f"{name}.safetensors") if name == "efficientnet-lite0" else None
        features = open_features(name)
        x = features(images.pixels) if raw is None else (raw - features.mean) @ features.directions
        path = checkpoints.ZOO / f"{images.name}.{features.name}.safetensors"
        write_reference(path, Reference.of(x), images, features)
        ship(path.stem, path, {"reference": checkpoints.read_tensors(path)[1]["reference"]})
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {KEPT:,} features kept", flush=True)


if __name__ == "__main__":
    main()
