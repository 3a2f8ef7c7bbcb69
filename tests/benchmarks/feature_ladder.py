"""Prints how far ever worse pictures are from CIFAR-10 in the classifier's features: python tests/benchmarks/feature_ladder.py

The reference is that of the training images, as in `evaluate`; each row has 2,000 pictures made of test images. CIFAR-10 is needed.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

from s2dm_mini import cifar10, shapes
from s2dm_mini.measure.features import ClassifierFeatures
from s2dm_mini.measure.metrics import frechet_distance, kernel_distance, precision_recall
from s2dm_mini.measure.references import reference

N = 2_000


def noisy(pixels: Tensor, strength: float) -> Tensor:
    """White noise of so many of the 256 grey levels."""
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    return (pixels + strength * noise).round().clamp(0, 255).to(torch.uint8)


def blurred(pixels: Tensor) -> Tensor:
    """Each pixel the mean of itself and its eight neighbours."""
    return F.avg_pool2d(F.pad(pixels.float(), (1, 1, 1, 1), mode="reflect"), 3, stride=1).round().to(torch.uint8)


def main() -> None:
    features, test = ClassifierFeatures(), cifar10("test").pixels[:N]
    real = reference("cifar10-train", features)
    rows = {f"{N:,} training images": cifar10("train").pixels[::25], f"{N:,} test images": test, "blurred": blurred(test),
            **{f"noise of {s} grey levels": noisy(test, s) for s in (2, 4, 6, 9, 12, 20, 40)}, "shapes": shapes(N).pixels}
    print("| pictures | Fréchet distance | KID | precision | recall |\n| --- | ---: | ---: | ---: | ---: |")
    for name, pixels in rows.items():
        x = features(pixels)
        (kid, _), (precision, recall) = kernel_distance(real.features, x), precision_recall(real.features, x)
        print(f"| {name} | {frechet_distance(real.moments, x):.3f} | {kid:.5f} | {precision:.2f} | {recall:.2f} |", flush=True)


if __name__ == "__main__":
    main()
