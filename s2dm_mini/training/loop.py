"""Training: one loop for L_0 and S²-DM, written as a generator of records, so that the caller decides what to show.

    config = TrainConfig(data="shapes", preset="tiny", steps=500)
    for record in train(config):
        print(record.step, record.loss)
    network = record.ema

Everything random in step k is a function of (seed, k) alone: two runs that differ only in tau see the same images, the
same t and the same ε₁, and a resumed run needs no generator's state. Images stay on the device as uint8; nothing in the
loop waits for the device but the record every `log_every` steps and a new epoch's order of the images.
"""
import copy
import math
import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ..data import DATA, load_data
from ..data.images import Images
from ..denoisers import NO_LABEL
from ..losses import s2dm_loss, timestep_weight
from ..schedule import MAX_T
from ..support.checks import check_integer, check_kind
from ..support.files import sole_writer
from ..support.machine import multiplies_bf16, open_device, seed_of
from ..unet import PRESETS, UNetConfig
from .config import DIFFUSERS, MAX_BATCH, TrainConfig
from .run import TrainingError, _files, _new_model, _opened, _Run


@dataclass
class TrainRecord:
    """The state of a training, every `log_every` steps."""

    step: int
    loss: float  # mean over the steps since the last record
    images_seen: int
    images_per_second: float  # since the last record
    minutes: float  # of training so far, resumed parts included
    progress: float  # share of the budget spent, 0..1
    ema: nn.Module  # the averaged network, a `UNet` or a `DiffusersDenoiser`: the one to sample from
    emas: dict[float, nn.Module]  # it and the further averages, by their decay


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """The learning rate at a step: a linear rise over `warmup` steps, times the annealing at `progress`, the share of the budget spent."""
    rise = min(1.0, (step + 1) / max(config.warmup, 1))
    fall = 0.5 * (1 + math.cos(math.pi * progress)) if config.annealing == "cosine" else 1.0
    return config.learning_rate * rise * fall


def antithetic_timesteps(batch: int, T: int, generator: torch.Generator) -> Tensor:
    """Half the batch uniform in 0..T−1, the other half its mirror T−1−t (as in the DDIM and S²-DM code). Returns (batch,)."""
    batch, T = check_integer("batch", batch, 1, MAX_BATCH), check_integer("T", T, 1, MAX_T)
    check_kind("generator", generator, torch.Generator)
    t = torch.randint(0, T, (batch // 2 + batch % 2,), generator=generator, device=generator.device)
    return torch.cat([t, T - 1 - t])[:batch]


def drop_labels(labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Put NO_LABEL in the place of a random `share` of the labels (B,), so that one network learns to do with and without them."""
    return torch.where(torch.rand(len(labels), generator=generator, device=labels.device) < share, NO_LABEL, labels)


def _configured_data(config: TrainConfig, unet: UNetConfig) -> Images:
    if DATA[config.data] != (unet.image_channels, unet.dimensions):
        fitting = [name for name, preset in PRESETS.items() if (preset.image_channels, preset.dimensions) == DATA[config.data]]
        network = config.start if config.preset == DIFFUSERS else f"the preset {config.preset}"
        raise ValueError(f"{network} takes x of {'×'.join(map(str, unet.shape))}, which {config.data} are not; "
                         f"presets for {config.data}: {', '.join(fitting)}.")
    return load_data(config.data, unet.image_size)


def train(config: TrainConfig, images: Images | None = None, resume: bool = False) -> Iterator[TrainRecord]:
    """Train a network, yielding a record every `log_every` steps and at the end.

    images: what to train on; by default `config.data` is loaded. resume: go on from config.out, to the bit on CPU.
    Closing the generator between records writes a checkpoint first. Raises TrainingError, DataError, CheckpointError; and WriteError or
    TakenError (files.py) if config.out cannot be written or another process trains into it.
    """
    if resume and config.out is None:
        raise ValueError("to resume, set out to the folder of the run.")
    writes = config.out is not None and os.environ.get("RANK", "0") == "0"  # of several processes the first
    with sole_writer(*_files(config.out)) if writes else nullcontext():
        yield from _train(config, images, resume)


def _train(config: TrainConfig, images: Images | None, resume: bool) -> Iterator[TrainRecord]:
    if not resume and config.out is not None and _files(config.out)[1].exists():
        raise TrainingError(f"{config.out} already holds a training, which this one would overwrite: resume it, choose another folder, "
                            f"or delete its state.safetensors.")
    ranks, accelerator = int(os.environ.get("WORLD_SIZE", 1)), None
    if ranks > 1:
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=config.device == "cpu")
    rank = accelerator.process_index if accelerator else 0
    if config.shards % ranks:
        raise ValueError(f"shards = {config.shards} must be a multiple of the number of processes, {ranks}.")
    my_shards = range(rank, config.shards, ranks)

    device = accelerator.device if accelerator else open_device(config.device)
    bf16 = config.precision == "bf16" or (config.precision == "auto" and multiplies_bf16(device))
    start, started_from, schedule = _opened(config)
    schedule = schedule.to(device)
    unet = start.config if config.preset == DIFFUSERS else PRESETS[config.preset]
    images = images if images is not None else _configured_data(config, unet)
    if config.preset == DIFFUSERS and images.pixels.shape[1:] != unet.shape:  # of any size, where `UNet` would ask
        raise ValueError(f"{config.start} takes pictures of {'×'.join(map(str, unet.shape))}, which {images.name} are not.")
    if len(images) < config.batch:
        raise ValueError(f"{images.name} has {len(images)} images, fewer than one batch of {config.batch}.")
    pixels, labels = images.pixels.to(device), images.labels.to(device)
    visited = schedule.timesteps(config.only_steps, "quadratic").to(device) if config.only_steps else None
    model = _new_model(config, start, len(images.classes) if config.label_dropout < 1 else 0).to(device)
    run = _Run(config, images, device, bf16, started_from, schedule)
    emas = {decay: copy.deepcopy(model).eval().requires_grad_(False) for decay in (config.ema_decay, *config.ema_others)}
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, betas=(0.9, config.beta2), fused=True)
    if resume:
        run.load(model, emas, optimizer)
    network = accelerator.prepare(model) if accelerator else model
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # of the whole process: cuDNN tries its convolutions once a shape, keeps the fastest
        # CUDA graphs ("reduce-overhead") launch the kernels of a pass all at once; the small presets otherwise wait for each launch.
        # They reuse the gradients' memory at the next pass, so each pass must be spent before: one shard, one call of the network.
        graphs = ranks == config.shards == 1 and config.reading != "output"
        network = torch.compile(network, mode="reduce-overhead" if graphs else "default")
    weights, averages = list(model.parameters()), {decay: list(ema.parameters()) for decay, ema in emas.items()}

    model.train()
    generator = torch.Generator(device)
    total, since, epoch, order = torch.zeros((), device=device), run.step, -1, None
    tick = last_save = time.monotonic()
    batches_per_epoch = len(images) // config.batch

    while run.progress() < 1:
        # --- one step: everything drawn here depends on (seed, step, shard) only
        if run.step // batches_per_epoch != epoch:
            epoch = run.step // batches_per_epoch
            shuffle = torch.Generator().manual_seed(seed_of(config.seed, 1, epoch))
            order = torch.randperm(len(images), generator=shuffle).to(device)
        batch = order[run.step % batches_per_epoch * config.batch:][:config.batch].chunk(config.shards)
        for shard in my_shards:
            denoiser = network
            if config.label_dropout < 1:  # drawn from a seed of their own: with labels or without, the rest is the same
                generator.manual_seed(seed_of(config.seed, 3, run.step, shard))
                denoiser = partial(network, label=drop_labels(labels[batch[shard]], config.label_dropout, generator))
            seed = seed_of(config.seed, 0, run.step, shard)
            generator.manual_seed(seed)
            x0 = images.augment(pixels[batch[shard]], generator)  # (B/shards, C, H, W) or (B/shards, C, L)
            t = antithetic_timesteps(len(x0), config.T, generator)
            if visited is not None:
                t = visited[t * len(visited) // config.T]  # as uniform over the visited ones as t is over all
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16), _dropout_seed(model, device, seed):
                losses = s2dm_loss(denoiser, x0, t, schedule, config.skip, config.tau, config.reading, generator)  # (B/shards,)
            if config.weighting != "uniform":
                losses = losses * timestep_weight(t, schedule, config.weighting)
            loss = losses.mean() / len(my_shards)
            loss.backward()
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(weights, config.clip)
        total += 0 * norm  # a gradient that is not finite makes the loss NaN: weights it has spoilt are never saved
        optimizer.param_groups[0]["lr"] = learning_rate(config, run.step, run.progress())
        optimizer.step()
        optimizer.zero_grad()
        run.step += 1
        for decay, average in averages.items():
            if config.ema_ramp:
                decay = min(decay, (1 + run.step) / (10 + run.step))
            with torch.no_grad():  # else the averages would remember every step
                torch._foreach_lerp_(average, weights, 1 - decay)

        # --- every log_every steps: look at the loss, say how it goes, save
        if run.step % config.log_every == 0 or run.progress() >= 1:
            mean, elapsed = total / (run.step - since), time.monotonic() - tick
            if accelerator:  # all processes must agree on when to stop, so they go by the slowest clock
                mean = accelerator.reduce(mean, "mean")
                elapsed = float(accelerator.gather(torch.tensor([elapsed], device=device)).max())
            run.loss, run.minutes = float(mean), run.minutes + elapsed / 60
            if not np.isfinite(run.loss):
                raise TrainingError(f"the loss became {run.loss} between steps {since} and {run.step}; training stops. {run.mend()}")
            speed = (run.step - since) * config.batch / max(elapsed, 1e-9)
            tick, since = time.monotonic(), run.step
            total.zero_()
            done = run.progress() >= 1
            if rank == 0 and config.out and (done or tick - last_save >= 60 * config.save_minutes):
                run.save(model, emas, optimizer)
                last_save = time.monotonic()
            if accelerator and done:
                accelerator.wait_for_everyone()  # whoever goes on from here may read what rank 0 has just written
            try:
                yield TrainRecord(run.step, run.loss, run.step * config.batch, speed, run.minutes, run.progress(), emas[config.ema_decay],
                                  emas)
            except GeneratorExit:
                if rank == 0 and config.out:
                    run.save(model, emas, optimizer)
                raise
            tick = time.monotonic()  # what the caller did with the record is not training time


class _dropout_seed:
    """Make dropout depend on the step's seed, and leave the global generator as it was."""

    def __init__(self, model: nn.Module, device: torch.device, seed: int):
        self.fork = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], enabled=model.config.dropout > 0)
        self.seed = seed if model.config.dropout > 0 else None

    def __enter__(self):
        self.fork.__enter__()
        if self.seed is not None:
            torch.manual_seed(self.seed)

    def __exit__(self, *exc):
        return self.fork.__exit__(*exc)
