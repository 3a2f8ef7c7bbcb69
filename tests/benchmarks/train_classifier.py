"""Trains the shipped CIFAR-10 classifiers, in whose features distances are measured: python tests/benchmarks/train_classifier.py --help

data/checkpoints/README.md says how both were trained. Noise from the start costs accuracy (14 epochs with noise 0.2: 90.3 % of the test
split); noise at the end does not.
"""
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from s2dm_mini import checkpoints, cifar10
from s2dm_mini.data.images import Images, fingerprint, random_flip, to_unit_range
from s2dm_mini.measure.classifier import NETWORKS, PATCH, Classifier, WhitenedClassifier, load_classifier
from s2dm_mini.measure.features import CLASSIFIERS, ClassifierFeatures
from s2dm_mini.measure.references import Reference, write_reference
from s2dm_mini.support.machine import device_name, git_commit, open_device, seed_of


@dataclass(frozen=True)
class Config:
    """How to train a classifier."""

    network: Literal["whitened", "residual"] = "whitened"
    epochs: int = 10
    batch: int = 256
    learning_rate: float = 0.3  # its peak, after a fifth of the training; then it falls to zero
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    shift: int = 2  # largest random shift of training pictures, in pixels
    noise: float = 0.0  # largest standard deviation of their noise, in units of −1..1; most get far less
    start: str | None = None  # file of an earlier classifier, to continue from
    seed: int = 0
    device: str = "auto"  # auto, cpu, cuda
    out: Path = Path("runs/classifier")  # folder for the network and its reference


@torch.no_grad()
def whiten(network: WhitenedClassifier, x: Tensor) -> None:
    """Fix the first layer, which is not trained, so that the next layers get uncorrelated inputs.

    Its filters are the principal directions of the 2×2 patches of x (N, 3, 32, 32), scaled to variance 1, each with both signs.
    """
    patches = x.unfold(2, PATCH, 1).unfold(3, PATCH, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * PATCH**2)  # (M, 12)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T.double()))
    filters = (vectors / (values + 1e-2).sqrt()).T.float().reshape(-1, 3, PATCH, PATCH)
    network.patches.weight.copy_(torch.cat([filters, -filters]))
    network.patches.bias.zero_()


def random_shift(x: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Move each picture by up to `pixels` in both directions, its edge mirrored into the gap. x: (B, C, H, W)."""
    b, c, h, _ = x.shape
    padded = F.pad(x, (pixels,) * 4, mode="reflect")
    offset = torch.randint(0, 2 * pixels + 1, (2, b, 1, 1, 1), generator=generator, device=x.device)
    image, channel, row, column = (torch.arange(n, device=x.device) for n in x.shape)
    return padded[image.view(b, 1, 1, 1), channel.view(c, 1, 1), offset[0] + row.view(h, 1), offset[1] + column]


def random_noise(x: Tensor, largest: float, generator: torch.Generator) -> Tensor:
    """Add white noise to each picture, with standard deviation largest·u², u uniform in 0..1. x: (B, C, H, W).

    Without it the features take noise of 12 of the 256 grey levels, hardly visible, for as large a change as drawings in place of
    photographs.
    """
    deviation = largest * torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device).square()
    return x + deviation * torch.randn(x.shape, generator=generator, device=x.device)


@torch.no_grad()
def accuracy(network: Classifier, images: Images) -> float:
    """Share of correctly labelled images; the network must be in eval mode."""
    place = network.head.weight.device
    right = [(network(to_unit_range(pixels.to(place))).argmax(1) == labels.to(place)).sum()
             for pixels, labels in zip(images.pixels.split(500), images.labels.split(500), strict=True)]
    return int(sum(right)) / len(images)


def first_network(config: Config, images: Images) -> Classifier:
    """The network before training: the earlier one of config.start, or a new one."""
    if config.start:
        network = load_classifier(config.start).requires_grad_(True)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(config.seed, 2))
            network = NETWORKS[config.network]()
    if config.network == "whitened":
        if not config.start:
            whiten(network, to_unit_range(images.pixels[:5_000]))
        network.patches.requires_grad_(False)
    return network


def train(config: Config, images: Images) -> Iterator[tuple[float, Classifier]]:
    """Train, and yield the mean loss of each epoch and the network, in eval mode."""
    device = open_device(config.device)
    network = first_network(config, images).to(device, memory_format=torch.channels_last)
    pixels, labels = images.pixels.to(device), images.labels.to(device)
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.0, momentum=config.momentum,
                                weight_decay=config.weight_decay, nesterov=True)
    generator = torch.Generator(device).manual_seed(seed_of(config.seed, 0))
    batches = len(images) // config.batch
    for epoch in range(config.epochs):
        network.train()
        loss_sum = torch.zeros((), device=device)
        order = torch.randperm(len(images), generator=generator, device=device)[:batches * config.batch]
        for step, batch in enumerate(order.split(config.batch), start=epoch * batches + 1):
            x = random_flip(to_unit_range(pixels[batch]), generator)
            x = random_noise(random_shift(x, config.shift, generator), config.noise, generator)
            loss = F.cross_entropy(network(x), labels[batch], label_smoothing=config.label_smoothing)
            loss.backward()
            done = step / (config.epochs * batches)
            optimizer.param_groups[0]["lr"] = config.learning_rate * min(done / 0.2, (1 - done) / 0.8)
            optimizer.step()
            optimizer.zero_grad()
            loss_sum += loss.detach()
        mean = float(loss_sum) / batches
        if not math.isfinite(mean):
            raise ValueError(f"the loss became {mean} in epoch {epoch + 1}; a smaller learning_rate than {config.learning_rate} helps.")
        yield mean, network.eval()


def save_classifier(path: Path, network: Classifier, config: Config, record: dict) -> None:
    """Write the network in fp16 with the record of its training."""
    tensors = {name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()}
    settings = {name: value for name, value in asdict(config).items() if name != "out"}
    started_from = checkpoints.read_tensors(config.start)[1]["record"] if config.start else None
    checkpoints.write_tensors(path, tensors, {"classifier": {"network": config.network}, "record": {
        "config": settings, "started_from": started_from, **record, "device": device_name(network.head.weight.device),
        "torch": torch.__version__, "commit": git_commit()}})


def main() -> None:
    config = tyro.cli(Config, description=__doc__.splitlines()[0])
    images, test, start = cifar10("train"), cifar10("test"), time.monotonic()
    name = CLASSIFIERS["own" if config.network == "whitened" else "plain"]
    path = config.out / f"{name}.safetensors"
    for epoch, (loss, network) in enumerate(train(config, images), 1):
        right, minutes = accuracy(network, test), (time.monotonic() - start) / 60
        print(f"epoch {epoch} of {config.epochs}: loss {loss:.3f}, test accuracy {right:.2%}, {minutes:.1f} minutes", flush=True)
    save_classifier(path, network, config, {"data": images.name, "data_sha256": fingerprint(images), "test_accuracy": right, "loss": loss,
                                            "minutes": round(minutes, 2)})
    features = ClassifierFeatures(path)
    write_reference(config.out / f"{images.name}.{name}.safetensors", Reference.of(features(images.pixels)), images, features)
    print(path)


if __name__ == "__main__":
    main()
