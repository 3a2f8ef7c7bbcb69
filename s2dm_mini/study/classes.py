"""Whether samples are of the class that was asked for, and how good they are, against the weight of guidance: rows of
data/results/conditional.csv.

    python -m s2dm_mini evaluate-classes nano-cifar10-classes-l0 --weight 2 --seed 0

Of each class there are few samples, so that their distance from the pictures of the class is measured by KID, which is right on
average however few they are; a Fréchet distance of thirty pictures would be mostly bias. How far single values scatter shows
from seed to seed: every network, weight and scale starts from the same noise with the same labels, so that differences are paired.
"""
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from .. import checkpoints
from ..checkpoints import open_network
from ..data import load_data
from ..data.images import Images, to_pixels
from ..data.shapes import read_factors
from ..guidance import Guided, Labelled
from ..measure import metrics
from ..measure.draw import starting_noise
from ..measure.features import ClassifierFeatures
from ..measure.references import open_reference, reference
from ..samplers import sample
from ..schedule import NoiseSchedule
from ..support.machine import best_device, device_name, git_commit
from ..theory.scales import scaled
from . import tables

KEY = ("network_sha256", "weight", "scale", "sampler", "spacing", "steps", "samples", "sampling_seed", "class", "features_sha256")


def draw_classes(network: Labelled, label: Tensor, x_T: Tensor, schedule: NoiseSchedule, weight: float, scale: str = "none",
                 steps: int = 10, spacing: str = "quadratic", batch: int = 50) -> Tensor:
    """One image of class label[i] from each noise x_T[i], by DDIM with guidance: (N,), (N, C, H, W) → pixels (N, C, H, W) uint8.

    scale: none, s2dmK or bX, what the guided ε is multiplied by; see ledger.scale_of.
    """
    drawn = []
    for x, k in zip(x_T.split(batch), label.split(batch), strict=True):
        denoiser = scaled(Guided(network, k, weight), scale, schedule)
        drawn.append(to_pixels(sample(denoiser, x, schedule, "ddim", steps, spacing)).cpu())
    return torch.cat(drawn)


def recognise(pixels: Tensor, data_name: str, features: ClassifierFeatures) -> Tensor:
    """The class that pictures (N, 3, H, W) uint8 show, (N,) int64: the classifier's word, or of `shapes` the nearest drawing."""
    if data_name == "shapes":
        return read_factors(pixels)["shape"]
    with torch.inference_mode():
        head = features.network.head
        return head(features(pixels).to(head.weight.device)).argmax(1).cpu()


def evaluate_classes(checkpoint: str, weight: float = 2.0, scale: str = "none", steps: int = 10, spacing: str = "quadratic",
                     samples: int = 500, seed: int = 0, device: str = "auto", table: Path | None = None) -> list[dict]:
    """Draw equally many samples of each class, append a row a class and one for all to `table`, and return those rows.

    accuracy: share recognised as the class asked for. kid: from the training pictures of the class; in the last row, from all of them.
    precision and recall are for the last row only. Raises ValueError for a network without classes and for samples that do not go
    evenly into them.
    """
    place = torch.device(best_device() if device == "auto" else device)
    network, record = open_network(checkpoint, place)
    config, schedule, classes = record["config"], checkpoints.schedule_of(record), network.config.classes
    if not classes:
        raise ValueError(f"{checkpoint} takes no labels; networks that do are trained with --label-dropout 0.1.")
    if samples % classes or samples < 2 * classes:
        raise ValueError(f"samples must be a multiple of the {classes} classes, two of each at least, not {samples}.")
    size, features = network.config.image_size, ClassifierFeatures(device=place)
    images = load_data(config["data"], size)
    label = torch.arange(samples) % classes
    x_T = starting_noise(samples, (network.config.image_channels, size, size), seed).to(place)

    start = time.perf_counter()
    pixels = draw_classes(network, label.to(place), x_T, schedule, weight, scale, steps, spacing)
    seconds = time.perf_counter() - start
    x, right = features(pixels), recognise(pixels, config["data"], features) == label
    evaluations = len(schedule.timesteps(steps, spacing)) * (1 if weight in (0, 1) else 2)
    common = {"checkpoint": checkpoint, "skip": config["skip"], "tau": config["tau"], "training_seed": config["seed"],
              "images_seen": checkpoints.images_seen(record), "network_sha256": checkpoints.network_hash(network), "weight": weight,
              "scale": scale, "sampler": "ddim", "spacing": spacing, "steps": steps, "nfe": evaluations, "samples": samples,
              "sampling_seed": seed, "features": features.name, "features_sha256": features.hash}
    command = (f"python -m s2dm_mini evaluate-classes {checkpoint} --weight {weight:g} --scale {scale} --steps {steps} "
               f"--spacing {spacing} --samples {samples} --seed {seed}")
    machine = {"seconds": round(seconds, 2), "device": device_name(place), "torch": torch.__version__,
               "commit": git_commit(), "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), "command": command}
    rows = []
    for k, name in [*enumerate(images.classes), (None, "all")]:
        mine = label == k if k is not None else slice(None)
        if k is None:
            real = open_reference(config["data"], size, features)
        else:
            its = images.labels == k
            those = Images(f"{images.name}-{name}", images.pixels[its], images.labels[its], images.classes)
            real = reference(those, features)
        kid, _ = metrics.kernel_distance(real.features, x[mine])
        precision, recall = metrics.precision_recall(real.features, x) if k is None else (float("nan"), float("nan"))
        rows.append(common | {"class": name, "accuracy": round(right[mine].double().mean().item(), 4), "kid": round(kid, 6),
                              "precision": round(precision, 4), "recall": round(recall, 4)} | machine)
        tables.append_row(table or tables.RESULTS / "conditional.csv", rows[-1], KEY)
    return rows
