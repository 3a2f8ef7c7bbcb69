"""Preparation of a training: processes, data, start network, schedule, compilation, and the order of the images."""
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import checkpoints
from ..data import DATA, load_data
from ..data.images import Images
from ..schedule import NoiseSchedule
from ..support.checks import shown
from ..support.machine import open_device, seed_of
from ..unet import PRESETS, UNet
from .config import DIFFUSERS, TrainConfig


class TrainingError(Exception):
    """A training that cannot continue or be resumed; the message says why and which files are kept."""


def is_first_process() -> bool:
    """Whether this process, of those that `torchrun` started, writes the files and reports the progress."""
    return os.environ.get("RANK", "0") == "0"


def open_processes(config: TrainConfig):
    """The `accelerate.Accelerator` of several processes or None for one, this process's device, and its shards of each batch."""
    processes, accelerator = int(os.environ.get("WORLD_SIZE", 1)), None
    if processes > 1:
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=config.device == "cpu")
    if config.shards % processes:
        raise ValueError(f"shards = {config.shards} must be a multiple of the number of processes, {processes}.")
    device = accelerator.device if accelerator else open_device(config.device)
    if config.record_step and device.type != "cuda":
        raise ValueError(f"record_step = True needs a GPU, and this training runs on {device}: leave it out.")
    return accelerator, device, range(accelerator.process_index if accelerator else 0, config.shards, processes)


def open_images(config: TrainConfig, images: Images | None, start: nn.Module | None) -> Images:
    """The images to train on, `config.data` by default. Raises ValueError for another size than the network's and for less than a batch."""
    diffusers = config.preset == DIFFUSERS
    unet = start.config if diffusers else PRESETS[config.preset]
    size = "×".join(map(str, unet.shape))
    if images is None:
        if DATA[config.data] != (unet.image_channels, unet.dimensions):
            fitting = [name for name, preset in PRESETS.items() if (preset.image_channels, preset.dimensions) == DATA[config.data]]
            raise ValueError(f"{config.start if diffusers else f'the preset {config.preset}'} takes x of {size}, which {config.data} are "
                             f"not; presets for {config.data}: {', '.join(fitting)}.")
        images = load_data(config.data, unet.image_size)
    if diffusers and images.pixels.shape[1:] != unet.shape:  # a UNet2DModel takes any size, a `UNet` refuses
        raise ValueError(f"{config.start} takes pictures of {size}, which {images.name} are not.")
    if not isinstance(images.labels, Tensor) or len(images.labels) != len(images):
        raise ValueError(f"images.labels must be a tensor with one label an image, ({len(images)},), not {shown(images.labels)}.")
    if len(images) < config.batch:
        raise ValueError(f"{images.name} has {len(images)} images, fewer than one batch of {config.batch}.")
    return images


def compiled(model: nn.Module, config: TrainConfig, accelerator, device: torch.device) -> nn.Module:
    """The network as the loop calls it: its gradients shared among the processes, and compiled on a GPU.

    A step there is a CUDA graph for each pass and 84 launches beside them; with record_step it is 15 launches. Counted on an emulated
    device, not timed; tests/benchmarks/roofline.py estimates what is left to gain.
    """
    network = accelerator.prepare(model) if accelerator else model
    if device.type == "cuda":
        # For the whole process: cuDNN times its convolutions once a shape and keeps the fastest, and fp32 is float32 there too, not TF32.
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = True, False
        # CUDA graphs ("reduce-overhead") launch the kernels of a pass all at once; small presets otherwise wait for each launch.
        # The next pass overwrites the gradients' memory, so one step may have only one pass: one shard, one call of the network.
        graphs = accelerator is None and config.shards == 1 and config.reading != "output" and not config.record_step
        network = torch.compile(network, mode="reduce-overhead" if graphs else "default")
    return network


def batch_indices(config: TrainConfig, step: int, images: int, device: torch.device) -> tuple[Tensor, ...]:
    """Indices of the images of a step, (B/shards,) for each shard; (seed, epoch) determines the order of the images in an epoch."""
    epoch, place = divmod(step, images // config.batch)
    return _shuffled(images, config.seed, epoch, device)[place * config.batch:][:config.batch].chunk(config.shards)


@lru_cache(maxsize=1)
def _shuffled(images: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    return torch.randperm(images, generator=torch.Generator().manual_seed(seed_of(seed, 1, epoch))).to(device)


@contextmanager
def dropout_seed(model: nn.Module, device: torch.device, seed: int) -> Iterator[None]:
    """Draw dropout from the step's seed and leave the global generators unchanged."""
    if model.config.dropout == 0:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def open_start(config: TrainConfig) -> tuple[nn.Module | None, dict | None, NoiseSchedule]:
    """The network named by `start` and its training record, both None without `start`, and the schedule to train with."""
    if config.start is None:
        return None, None, NoiseSchedule.linear(config.T)
    start, diffusers, known = config.start, config.preset == DIFFUSERS, config.start in checkpoints.zoo()
    if diffusers and not known and Path(start).suffix != ".safetensors":
        model, schedule = checkpoints.interop().open_pipeline(start, config.T)
        record = {"pipeline": start, "network_sha256": checkpoints.network_hash(model)}
    elif known or os.path.isfile(start):
        model, record = checkpoints.load_model(checkpoints.pretrained_file(start) if known else start)
        if isinstance(model, UNet) == diffusers:
            mend = "the one it was trained as" if diffusers else DIFFUSERS
            raise TrainingError(f"{start} is not a {config.preset} network: set preset to {mend}.")
        schedule = checkpoints.schedule_of(record) if diffusers else NoiseSchedule.linear(config.T)
    else:
        raise checkpoints.CheckpointError(f"{start} cannot be read: it is neither a shipped network nor a file such as "
                                          f"runs/x/model.safetensors; for a pipeline of diffusers set preset = {DIFFUSERS}.")
    if schedule.T != config.T:
        raise TrainingError(f"{start} was trained with T = {schedule.T} timesteps, not {config.T}: set T = {schedule.T}.")
    return model, record, schedule


def new_model(config: TrainConfig, start: nn.Module | None, classes: int) -> nn.Module:
    """The network to train: with weights drawn from the seed, or `start`, which is given class embeddings if it has none."""
    if config.preset == DIFFUSERS:
        return start.requires_grad_(True)
    unet = replace(PRESETS[config.preset], classes=classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(config.seed, 2))
        if start is None:
            return UNet(unet)
        if classes and not start.config.classes:
            start = start.with_classes(classes)
    if replace(start.config, dropout=unet.dropout) != unet:
        there = start.config
        raise TrainingError(f"{config.start} is not a {config.preset} network{f' of {classes} classes' if classes else ''}: it takes "
                            f"{there.shape}, has channels {there.channels} and {there.classes or 'no'} classes; set preset and "
                            f"label_dropout as it was trained.")
    return start.requires_grad_(True)
