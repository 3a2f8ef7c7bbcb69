"""Samples of a wanted class, against the weight of guidance: are they recognised as it, and how good are they? Rows of conditional.csv.

Each class has few samples, so their distance from the class's images is measured by KID, which is unbiased for any number of samples; a
Fréchet distance of thirty images would be mostly bias. Every network, weight and scale starts from the same noise and labels: differences
are paired.
"""
import time
from math import nan
from pathlib import Path

import torch
from torch import Tensor

from ..data import load_data
from ..data.images import Images, to_pixels
from ..data.shapes import read_factors
from ..guidance import Guided, Labelled
from ..measure import metrics
from ..measure.draw import starting_noise
from ..measure.features import ClassifierFeatures
from ..measure.references import reference
from ..samplers import sample
from ..schedule import NoiseSchedule
from ..support.checks import require
from ..support.machine import stamp
from ..theory.scales import scaled
from . import tables
from .evaluate import Bench

KEY = ("network_sha256", "weight", "scale", "sampler", "spacing", "steps", "samples", "sampling_seed", "class", "features_sha256")


def draw_classes(network: Labelled, label: Tensor, x_T: Tensor, schedule: NoiseSchedule, weight: float, scale: str = "none",
                 steps: int = 10, spacing: str = "quadratic", batch: int = 50) -> Tensor:
    """One image of class label[i] from each noise x_T[i], by DDIM with guidance; scale multiplies the guided ε (see `scale_of`).

    label: (N,); x_T: (N, C, H, W). Returns pixels (N, C, H, W) uint8.
    """
    drawn = []
    for x, k in zip(x_T.split(batch), label.split(batch), strict=True):
        denoiser = scaled(Guided(network, k, weight), scale, schedule)
        drawn.append(to_pixels(sample(denoiser, x, schedule, "ddim", steps, spacing)).cpu())
    return torch.cat(drawn)


def recognise(pixels: Tensor, data_name: str, features: ClassifierFeatures) -> Tensor:
    """The class of each image (N, 3, H, W) uint8, (N,) int64: by the classifier, or for `shapes` by the nearest drawing."""
    if data_name == "shapes":
        return read_factors(pixels)["shape"]
    with torch.no_grad():
        head = features.network.head
        return head(features(pixels).to(head.weight.device)).argmax(1).cpu()


def evaluate_classes(checkpoint: str, weight: float = 2.0, scale: str = "none", steps: int = 10, spacing: str = "quadratic",
                     samples: int = 500, seed: int = 0, device: str = "auto", table: Path | None = None) -> list[dict]:
    """Measure how often a network's samples show the wanted class, and their distance from its images.

    Args:
        checkpoint: a network that takes labels: a shipped one's name, or a file that `train` wrote
        weight: of guidance; 1 is none
        scale: factor of the guided noise prediction: none, s2dmK (s_t for skip K − 1, τ 0.99), or bX (1/X)
        steps: number of DDIM steps
        spacing: of the timesteps: uniform, quadratic, trailing, logsnr
        samples: number of images, equally many of each class
        seed: of the starting noise, which is the same for every checkpoint, weight and scale
        device: auto, cpu, cuda
        table: CSV file to append to; by default data/results/conditional.csv

    Returns:
        A row for each class and one for all, also appended to the table. Only the last has precision and recall; its KID is from all
        images.
    """
    bench = Bench(checkpoint, device, "own")
    features, schedule, classes = bench.features, bench.schedule, bench.config.classes
    require(classes, f"{checkpoint} takes no labels; networks that do are trained with --label-dropout 0.1")
    require(samples % classes == 0 and samples >= 2 * classes,
            f"samples must be a multiple of the {classes} classes, two of each at least", samples)
    images, label = load_data(bench.data, bench.config.image_size), torch.arange(samples) % classes
    x_T, start = starting_noise(samples, bench.config.shape, seed).to(bench.place), time.perf_counter()
    pixels = draw_classes(bench.network, label.to(bench.place), x_T, schedule, weight, scale, steps, spacing)
    facts = {**bench.facts, "weight": weight, "scale": scale,
             **tables.sampling_facts(schedule, "ddim", spacing, steps, samples, seed),
             "seconds": round(time.perf_counter() - start, 2), **stamp(bench.place),
             "command": f"python -m s2dm_mini evaluate-classes {checkpoint} --weight {weight:g} --scale {scale} --steps {steps} "
                        f"--spacing {spacing} --samples {samples} --seed {seed}"}
    facts["nfe"] *= 1 if weight in (0, 1) else 2  # guidance evaluates the network with and without the label

    x, right, rows = features(pixels), recognise(pixels, bench.data, features) == label, []
    for k, name in enumerate((*images.classes, "all")):
        if name == "all":
            mine, real = label >= 0, bench.reference().features
            precision, recall = metrics.precision_recall(real, x)
        else:
            mine, its, precision, recall = label == k, images.labels == k, nan, nan
            of_class = Images(f"{images.name}-{name}", images.pixels[its], images.labels[its], images.classes)
            real = reference(of_class, features).features
        rows.append(tables.add("conditional", {
            **facts, "class": name, "accuracy": round(right[mine].double().mean().item(), 4),
            "kid": round(metrics.kernel_distance(real, x[mine])[0], 6), "precision": round(precision, 4), "recall": round(recall, 4)},
            table, KEY))
    return rows


def sentences(rows: list[dict]) -> str:
    """The rows of `evaluate_classes` in words."""
    return "\n".join(f"{row['class']:12} right {row['accuracy']:.1%}, KID {row['kid']:.4f}" for row in rows)
