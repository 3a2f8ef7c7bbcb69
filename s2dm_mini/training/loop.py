"""Training: one loop for L_0 and S²-DM, a generator of records, so that the caller decides what to show.

    config = TrainConfig(data="shapes", preset="tiny", steps=500)
    for record in train(config):
        print(record.step, record.loss)
    network = record.ema

All randomness in step k comes from (seed, k): two runs that differ only in tau see the same images, the same t and the same ε₁, and a
resumed run needs no generator's state. Images stay on the device as uint8. The loop waits for the device only at a record and for the
shuffled order of a new epoch. Preparation is in setup.py, the state on disk in run.py, a step as one CUDA graph in recorded.py.
"""
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..data.images import Images
from ..denoisers import NO_LABEL
from ..losses import s2dm_loss, timestep_weight
from ..schedule import MAX_T
from ..support.checks import check_integer, check_kind
from ..support.machine import seed_of
from .config import MAX_BATCH, TrainConfig
from .recorded import Recorded
from .run import Run, claimed
from .setup import batch_indices, compiled, dropout_seed


@dataclass
class TrainRecord:
    """The state of a training at a record."""

    step: int
    loss: float  # mean over the steps since the last record
    images_seen: int
    images_per_second: float  # since the last record
    minutes: float  # training time, resumed parts included
    progress: float  # share of the budget spent, 0..1
    ema: nn.Module  # the averaged network to sample from, a `UNet` or a `DiffusersDenoiser`
    emas: dict[float, nn.Module]  # all averaged networks by their decay, `ema` included


def train(config: TrainConfig, images: Images | None = None, resume: bool = False) -> Iterator[TrainRecord]:
    """Train a network; yield a record every `log_every` steps, every 10 seconds where steps are slow, and at the end.

    images: the training set, `config.data` by default. resume: continue the run in config.out, on a CPU to the bit.
    Closing the generator between records saves a checkpoint first. Raises ValueError for settings and images that do not fit,
    TrainingError, DataError, CheckpointError, WriteError, and TakenError if another process trains into config.out.
    """
    with claimed(config, resume):
        run = Run(config, images, resume)
        device, images, schedule = run.device, run.images, run.schedule
        network = compiled(run.model, config, run.accelerator, device)
        pixels, labels = images.pixels.to(device), images.labels.to(device)  # (N, C, H, W) or (N, C, L), and (N,)
        visited = schedule.timesteps(config.only_steps, "quadratic").to(device) if config.only_steps else None
        weights, averages = list(run.model.parameters()), {decay: list(ema.parameters()) for decay, ema in run.emas.items()}
        # Labels are dropped with a seed of their own: without them, all else is the same.
        generator, for_labels, total = torch.Generator(device), torch.Generator(device), torch.zeros((), device=device)
        run.model.train()

        def gradients(index: Tensor) -> None:
            """Add the loss of the images index, (B/shards,), to total, and its gradients to the weights'."""
            denoiser = network
            if config.label_dropout < 1:
                denoiser = partial(network, label=drop_labels(labels[index], config.label_dropout, for_labels))
            x0 = images.augment(pixels[index], generator)  # (B/shards, C, H, W) or (B/shards, C, L)
            t = antithetic_timesteps(len(x0), config.T, generator)
            if visited is not None:
                t = visited[t * len(visited) // config.T]  # as uniform over the visited timesteps as t is over all
            with torch.autocast(device.type, torch.bfloat16, enabled=run.bf16):
                losses = s2dm_loss(denoiser, x0, t, schedule, config.skip, config.tau, config.reading, generator)  # (B/shards,)
            if config.weighting != "uniform":
                losses = losses * timestep_weight(t, schedule, config.weighting)
            loss = losses.mean() / len(run.shards)
            loss.backward()
            total.add_(loss.detach())

        if config.record_step:
            gradients = Recorded(gradients, weights, (generator, for_labels))
        while run.progress() < 1:
            batch = batch_indices(config, run.step, len(images), device)
            for shard in run.shards:
                seed = seed_of(config.seed, 0, run.step, shard)
                generator.manual_seed(seed)
                for_labels.manual_seed(seed_of(config.seed, 3, run.step, shard))
                with dropout_seed(run.model, device, seed):
                    gradients(batch[shard])

            norm = torch.nn.utils.clip_grad_norm_(weights, config.clip)
            total += 0 * norm  # NaN where a gradient is not finite: the record then raises, and the spoilt weights are not saved
            run.optimizer.param_groups[0]["lr"] = learning_rate(config, run.step, run.progress())
            run.optimizer.step()
            run.optimizer.zero_grad()
            run.step += 1
            for decay, average in averages.items():
                if config.ema_ramp:
                    decay = min(decay, (1 + run.step) / (10 + run.step))
                with torch.no_grad():
                    torch._foreach_lerp_(average, weights, 1 - decay)

            if run.due():
                speed = run.log(total)
                total.zero_()
                with run.paused():
                    yield TrainRecord(run.step, run.loss, run.step * config.batch, speed, run.minutes, run.progress(),
                                      run.emas[config.ema_decay], run.emas)


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """Learning rate of a step: a linear rise over `warmup` steps times the annealing at `progress`, the share of the budget spent."""
    rise = min(1.0, (step + 1) / max(config.warmup, 1))
    fall = 0.5 * (1 + math.cos(math.pi * progress)) if config.annealing == "cosine" else 1.0
    return config.learning_rate * rise * fall


def antithetic_timesteps(batch: int, T: int, generator: torch.Generator) -> Tensor:
    """Draw half the batch uniformly from 0..T−1 and mirror it to T−1−t for the other half (DDIM and S²-DM code). Returns (batch,)."""
    batch, T = check_integer("batch", batch, 1, MAX_BATCH), check_integer("T", T, 1, MAX_T)
    check_kind("generator", generator, torch.Generator)
    t = torch.randint(0, T, (batch // 2 + batch % 2,), generator=generator, device=generator.device)
    return torch.cat([t, T - 1 - t])[:batch]


def drop_labels(labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Replace a random `share` of the labels (B,) by NO_LABEL, so that one network learns both predictions (classifier-free guidance)."""
    return torch.where(torch.rand(len(labels), generator=generator, device=labels.device) < share, NO_LABEL, labels)
