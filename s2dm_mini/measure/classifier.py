"""The CIFAR-10 classifier whose features this package measures distances in: its network, its training, its file.

Inception, the usual network for this, needs a download and is many times as large. This one has 1.2 million parameters, trains in under
an hour on one CPU core (`minutes` in its record) and is shipped. Distances in its features compare models with one another; they are
not the FID of the literature.

    picture (3, 32, 32) ─► whitened 2×2 patches ─► three stages, each halving the resolution ─► mean over positions (256) ─► 10 classes
"""
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import checkpoints
from ..data.cifar10 import CIFAR10_CLASSES
from ..data.images import Images, fingerprint, random_flip, to_unit_range
from ..support.checks import LARGEST, check_integer, check_name, check_number, check_types, shown
from ..support.files import reason
from ..support.machine import device_name, git_commit, open_device, seed_of
from .residual import ResidualClassifier

WIDTHS = (64, 128, 256)
PATCH = 2


@dataclass(frozen=True)
class ClassifierConfig:
    """How to train a classifier. The shipped one: the defaults, then 5 more epochs with learning_rate = 0.08 and noise = 0.15.

    Noise from the start costs accuracy (14 epochs with noise = 0.2: 90.3 % of the test split); noise at the end does not.
    """

    network: str = "whitened"  # Classifier below; residual: residual.ResidualClassifier
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

    def __post_init__(self):
        check_types(self)
        check_name("network", self.network, NETWORKS)
        for name, low in (("epochs", 1), ("batch", 1), ("shift", 0), ("seed", 0)):
            check_integer(name, getattr(self, name), low)
        for name, high in (("momentum", 1), ("label_smoothing", 1), ("weight_decay", LARGEST), ("noise", LARGEST)):
            check_number(name, getattr(self, name), 0, high)
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, not {self.learning_rate}.")
        if not self.device.startswith(("auto", "cpu", "cuda")):
            raise ValueError(f"device must be auto, cpu or cuda, not {shown(self.device)}.")


class ClassifierRecord(NamedTuple):
    """The state of a training after an epoch."""

    epoch: int
    loss: float  # mean over the epoch
    accuracy: float  # on the test split, without mirroring
    minutes: float
    network: "Classifier"


class Stage(nn.Module):
    """conv, halve, norm, GELU, conv, norm, GELU."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out)
        self.conv2, self.norm2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Classifier(nn.Module):
    """Scores of the ten classes, (B, 10), of pictures (B, 3, 32, 32) in −1..1; `features` are the (B, 256) inputs of its last layer."""

    def __init__(self):
        super().__init__()
        directions = 3 * PATCH**2
        self.patches = nn.Conv2d(3, 2 * directions, PATCH)
        self.stages = nn.Sequential(*(Stage(c_in, c_out) for c_in, c_out in zip((2 * directions, *WIDTHS), WIDTHS, strict=False)))
        self.head = nn.Linear(WIDTHS[-1], len(CIFAR10_CLASSES))
        self.to(memory_format=torch.channels_last)

    def features(self, x: Tensor) -> Tensor:
        return self.stages(self.patches(x.to(memory_format=torch.channels_last))).mean(dim=(2, 3))  # (B, 256)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    @torch.no_grad()
    def whiten(self, x: Tensor) -> None:
        """Fix the first layer, which is not trained, so that the next layers get uncorrelated inputs.

        Its filters are the principal directions of the 2×2 patches of x (N, 3, 32, 32), scaled to variance 1, each with both signs.
        """
        patches = x.unfold(2, PATCH, 1).unfold(3, PATCH, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * PATCH**2)  # (M, 12)
        values, vectors = torch.linalg.eigh(torch.cov(patches.T.double()))
        filters = (vectors / (values + 1e-2).sqrt()).T.float().reshape(-1, 3, PATCH, PATCH)
        self.patches.weight.copy_(torch.cat([filters, -filters]))
        self.patches.bias.zero_()
        self.patches.requires_grad_(False)


NETWORKS = {"whitened": Classifier, "residual": ResidualClassifier}


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


def train_classifier(config: ClassifierConfig, images: Images, test: Images,
                     state: Path | None = None) -> Iterator[ClassifierRecord]:
    """Train on `images` and yield a record after every epoch, the network in eval mode, its accuracy measured on `test`.

    state: file of the state after the last epoch; if it exists, training resumes from it, to the bit on a CPU. Raises CheckpointError
    for the state of another training.
    """
    if len(images) < config.batch:
        raise ValueError(f"{images.name} has {len(images)} images, fewer than one batch of {config.batch}.")
    device = open_device(config.device)
    network = _first_network(config, images).to(device)
    pixels, labels = images.pixels.to(device), images.labels.to(device)
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.0, momentum=config.momentum,
                                weight_decay=config.weight_decay, nesterov=True)
    generator = torch.Generator(device).manual_seed(seed_of(config.seed, 0))
    training = {"config": asdict(config), "data_sha256": fingerprint(images)}
    batches, begun, minutes, mean = len(images) // config.batch, 0, 0.0, math.nan
    if state is not None and state.exists():
        begun, minutes, mean = _load_state(state, training, network, optimizer, generator)
    start = time.monotonic() - 60 * minutes
    if begun == config.epochs:  # killed between the last epoch and the writing of the network
        yield ClassifierRecord(begun, mean, accuracy(network.eval(), test), minutes, network)
    for epoch in range(begun, config.epochs):
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
        mean, minutes = float(loss_sum) / batches, (time.monotonic() - start) / 60
        if not math.isfinite(mean):
            raise ValueError(f"the loss became {mean} in epoch {epoch + 1}; a smaller learning_rate than {config.learning_rate} helps.")
        network.eval()
        if state is not None:
            momenta = {f"momentum.{i}": moments["momentum_buffer"] for i, moments in optimizer.state_dict()["state"].items()}
            weights = {f"network.{name}": value for name, value in network.state_dict().items()}
            checkpoints.write_tensors(state, {**weights, **momenta, "generator": generator.get_state()},
                                      {"training": training, "epoch": epoch + 1, "minutes": minutes, "loss": mean})
        yield ClassifierRecord(epoch + 1, mean, accuracy(network, test), minutes, network)


def _first_network(config: ClassifierConfig, images: Images) -> Classifier:
    """The network before training: the earlier one of config.start, or a new one."""
    if config.start:
        network = load_classifier(config.start)[0].requires_grad_(True)
        if config.network == "whitened":
            network.patches.requires_grad_(False)
        return network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(config.seed, 2))
        network = NETWORKS[config.network]()
    if config.network == "whitened":
        network.whiten(to_unit_range(images.pixels[:5_000]))
    return network


def _load_state(path: Path, training: dict, network: Classifier, optimizer: torch.optim.Optimizer,
                generator: torch.Generator) -> tuple[int, float, float]:
    """Restore network, optimizer and generator after the last finished epoch. Returns its number, the minutes so far, and its loss."""
    tensors, header = checkpoints.read_tensors(path)
    if header.get("training") != training:
        raise checkpoints.CheckpointError(f"{path} is the state of a training with other settings or images: repeat those, delete it, or "
                                          f"name another folder.")
    try:
        optimizer_state = optimizer.state_dict()
        optimizer_state["state"] = {i: {"momentum_buffer": tensors[f"momentum.{i}"]} for i in optimizer_state["param_groups"][0]["params"]}
        optimizer.load_state_dict(optimizer_state)
        network.load_state_dict({name: tensors[f"network.{name}"] for name in network.state_dict()})
        generator.set_state(tensors["generator"])
        return header["epoch"], header["minutes"], header["loss"]
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise checkpoints.CheckpointError(f"{path} is not the state of a classifier's training: {reason(error)}") from error


def save_classifier(path: Path | str, record: ClassifierRecord, config: ClassifierConfig, images: Images) -> None:
    """Write the network in fp16 with the record of its training."""
    tensors = {name: value.half() if value.is_floating_point() else value for name, value in record.network.state_dict().items()}
    place = record.network.head.weight.device
    checkpoints.write_tensors(path, tensors, {"classifier": {"network": config.network}, "record": {
        "config": asdict(config), "started_from": load_classifier(config.start)[1] if config.start else None,
        "data": images.name, "data_sha256": fingerprint(images), "test_accuracy": record.accuracy,
        "loss": record.loss, "minutes": round(record.minutes, 2), "device": device_name(place), "torch": torch.__version__,
        "commit": git_commit()}})


def load_classifier(path: Path | str, device: torch.device | str = "cpu") -> tuple[Classifier, dict]:
    """Read a file of `save_classifier`: the network in float32, in eval mode, without gradients; and its training record."""
    tensors, header = checkpoints.read_tensors(path)
    network = NETWORKS[header.get("classifier", {}).get("network", "whitened")]()
    try:
        network.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in tensors.items()})
    except RuntimeError as error:
        raise checkpoints.CheckpointError(f"{path} does not hold this package's classifier: {reason(error)}") from error
    return network.to(device).eval().requires_grad_(False), header.get("record", {})
