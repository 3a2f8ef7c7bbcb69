"""Prints how far ever worse pictures are from CIFAR-10 in each of the features: python tests/benchmarks/feature_ladder.py

Each row has 2,000 pictures made of test images; the last rows show how much of a distance comes from the number of pictures alone. The
largest table takes ten minutes on one core. CIFAR-10 is needed.
"""
import argparse
import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from s2dm_mini import cifar10, shapes
from s2dm_mini.measure.features import OFFLINE, open_features, ring_powers
from s2dm_mini.measure.metrics import frechet_distance, kernel_distance, precision_recall
from s2dm_mini.measure.references import open_reference
from s2dm_mini.support.machine import device_name

N = 2_000
LEVELS = (2, 4, 6, 9, 12, 20, 40)


def noisy(pixels: Tensor, strength: float) -> Tensor:
    """White noise of so many of the 256 grey levels."""
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    return (pixels + strength * noise).round().clamp(0, 255).to(torch.uint8)


def blurred(pixels: Tensor) -> Tensor:
    """Each pixel the mean of itself and its eight neighbours."""
    return F.avg_pool2d(F.pad(pixels.float(), (1, 1, 1, 1), mode="reflect"), 3, stride=1).round().to(torch.uint8)


def jpeg(pixels: Tensor, quality: int) -> Tensor:
    """As a JPEG file of that quality shows them."""
    def through(picture: Tensor) -> Tensor:
        file = io.BytesIO()
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)

    return torch.stack([through(picture) for picture in pixels])


def power_spectrum(pixels: Tensor) -> Tensor:
    """Mean power at 1 to 16 cycles a side, (16,) float64."""
    return torch.cat([ring_powers(part) for part in pixels.split(1_000)]).mean(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", nargs="+", default=OFFLINE)
    args = parser.parse_args()
    train, test = cifar10("train").pixels, cifar10("test").pixels
    rows = {f"{N:,} training images": train[::25], f"{N:,} test images": test[:N], "blurred": blurred(test[:N]),
            **{f"JPEG, quality {q}": jpeg(test[:N], q) for q in (75, 25)},
            **{f"noise of {s} grey levels": noisy(test[:N], s) for s in LEVELS},
            "shapes": shapes(N).pixels, **{f"{n:,} test images": test[:n] for n in (500, 1_000, 5_000, 10_000)}}
    spectrum = power_spectrum(train)
    in_decibels = {row: 10 * (power_spectrum(pixels) / spectrum).log10().square().mean().sqrt() for row, pixels in rows.items()}
    tables = {"Fréchet distance": {}, "KID": {}, "precision, recall": {}}  # table → features → row → cell
    for features in map(open_features, args.features):
        real = open_reference("cifar10", 32, features)
        for row, pixels in rows.items():
            x = features(pixels)
            cells = {"Fréchet distance": f"{frechet_distance(real.moments, x):.3g}", "KID": f"{kernel_distance(real.features, x)[0]:.2g}",
                     "precision, recall": "{:.2f}, {:.2f}".format(*precision_recall(real.features, x))}
            for name, cell in cells.items():
                tables[name].setdefault(features.name, {})[row] = cell
    tables["Fréchet distance"]["mean spectrum, dB"] = {row: f"{value:.2f}" for row, value in in_decibels.items()}
    print(f"{device_name(torch.device('cpu'))}, {torch.get_num_threads()} thread(s)")
    for name, columns in tables.items():
        print(f"\n| {name} | {' | '.join(columns)} |\n| --- |{' ---: |' * len(columns)}")
        for row in rows:
            print(f"| {row} | {' | '.join(column[row] for column in columns.values())} |")


if __name__ == "__main__":
    main()
