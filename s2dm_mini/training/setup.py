"""Preparation of a training: data, start network, schedule, compilation, and the order of the images."""
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
from ..support.machine import seed_of
from ..unet import PRESETS, UNet, UNetConfig
from .config import DIFFUSERS, TrainConfig
from .processes import Processes
from .run import Run, TrainingError


def set_up(config: TrainConfig, images: Images | None, resume: bool) -> Run:
    """Open everything that the loop needs, and the state of the run in config.out where `resume`."""
    processes = Processes(config)
    start, started_from, schedule = _open_start(config)
    unet = start.config if config.preset == DIFFUSERS else PRESETS[config.preset]
    if images is None:
        images = _open_data(config, unet)
    if config.preset == DIFFUSERS and images.pixels.shape[1:] != unet.shape:  # a UNet2DModel takes any size, a `UNet` refuses
        raise ValueError(f"{config.start} takes pictures of {'×'.join(map(str, unet.shape))}, which {images.name} are not.")
    if len(images) < config.batch:
        raise ValueError(f"{images.name} has {len(images)} images, fewer than one batch of {config.batch}.")
    model = _new_model(config, start, len(images.classes) if config.label_dropout < 1 else 0)
    return Run(config, processes, images, schedule, model, started_from, resume)


def compiled(run: Run) -> nn.Module:
    """The network as the loop calls it: its gradients shared among the processes, and compiled on a GPU."""
    processes, config = run.processes, run.config
    network = processes.accelerator.prepare(run.model) if processes.accelerator else run.model
    if run.device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # for the whole process: cuDNN times its convolutions once a shape, keeps the fastest
        # CUDA graphs ("reduce-overhead") launch the kernels of a pass all at once; small presets otherwise wait for each launch.
        # The next pass overwrites the gradients' memory, so one step may have only one pass: one shard, one call of the network.
        graphs = processes.count == config.shards == 1 and config.reading != "output"
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


def _open_data(config: TrainConfig, unet: UNetConfig) -> Images:
    if DATA[config.data] != (unet.image_channels, unet.dimensions):
        fitting = [name for name, preset in PRESETS.items() if (preset.image_channels, preset.dimensions) == DATA[config.data]]
        network = config.start if config.preset == DIFFUSERS else f"the preset {config.preset}"
        raise ValueError(f"{network} takes x of {'×'.join(map(str, unet.shape))}, which {config.data} are not; "
                         f"presets for {config.data}: {', '.join(fitting)}.")
    return load_data(config.data, unet.image_size)


def _open_start(config: TrainConfig) -> tuple[nn.Module | None, dict | None, NoiseSchedule]:
    """The network named by `start` and its training record, both None without `start`, and the schedule to train with."""
    if config.start is None:
        return None, None, NoiseSchedule.linear(config.T)
    start, diffusers, known = config.start, config.preset == DIFFUSERS, config.start in checkpoints.zoo()
    if diffusers and not known and Path(start).suffix != ".safetensors":
        model, schedule = checkpoints.interop().open_pipeline(start, config.T)
        record = {"pipeline": start, "network_sha256": checkpoints.network_hash(model)}
    elif not known and not Path(start).is_file():
        raise checkpoints.CheckpointError(f"{start} cannot be read: it is neither a shipped network nor a file such as "
                                          f"runs/x/model.safetensors; for a pipeline of diffusers set preset = {DIFFUSERS}.")
    else:
        model, record = checkpoints.load_model(checkpoints.pretrained_file(start) if known else start)
        if isinstance(model, UNet) == diffusers:
            mend = "the one it was trained as" if diffusers else DIFFUSERS
            raise TrainingError(f"{start} is not a {config.preset} network: set preset to {mend}.")
        schedule = checkpoints.schedule_of(record) if diffusers else NoiseSchedule.linear(config.T)
    if schedule.T != config.T:
        raise TrainingError(f"{start} was trained with T = {schedule.T} timesteps, not {config.T}: set T = {schedule.T}.")
    return model, record, schedule


def _new_model(config: TrainConfig, start: nn.Module | None, classes: int) -> nn.Module:
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
        raise TrainingError(f"{config.start} is not a {config.preset} network{f' of {classes} classes' if classes else ''}: "
                            f"it has {start.config}.")
    return start.requires_grad_(True)
