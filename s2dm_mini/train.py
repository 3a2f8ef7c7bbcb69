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
import platform
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import checkpoints, data, signals
from .arguments import check_integer, check_kind, check_name, check_types, shown
from .files import sole_writer
from .losses import READINGS, WEIGHTINGS, s2dm_loss, timestep_weight
from .schedule import MAX_T, NoiseSchedule
from .unet import NO_LABEL, PRESETS, UNet, UNetConfig

MAX_BATCH = 1_000_000
DIFFUSERS = "diffusers"  # in the place of a preset: the network is whatever `start` holds, and diffusers' own code computes it
# Name → channels and dimensions.
DATA = {"cifar10": (3, 2), "celeba": (3, 2), "shapes": (3, 2), "waves": (1, 1), "spirals": (2, 1)}


@dataclass(frozen=True)
class TrainConfig:
    """What to train, on what, how, for how long. `PAPER` below is the setting of the released S²-DM code."""

    data: str = "cifar10"  # see DATA
    preset: str = "nano"  # see unet.PRESETS; or diffusers, for the network of the pipeline in start
    skip: int = 9  # S²-DM^k has skip = k − 1
    tau: float = 0.99  # weight of L_0; 1 trains the baseline
    reading: str = "independent"  # of L_skip, see losses.py
    weighting: str = "uniform"  # of the timesteps, see losses.timestep_weight
    only_steps: int | None = None  # train only at the timesteps that a sampler of so many quadratic steps visits
    label_dropout: float = 1.0  # share of the images shown without their label; at 1 the network takes no labels
    T: int = 1000
    batch: int = 128
    learning_rate: float = 2e-4
    warmup: int = 500  # steps over which the learning rate rises
    annealing: str = "none"  # of the learning rate after that: none, or cosine, a half wave down to zero over the budget
    beta2: float = 0.999  # of Adam: how long it remembers squared gradients
    clip: float = 1.0  # largest norm of the gradient
    ema_decay: float = 0.9999
    ema_ramp: bool = True  # decay at step k at most (1 + k)/(10 + k), so that short runs forget their start
    ema_others: tuple[float, ...] = ()  # decays of further averages, each saved as model-ema-DECAY.safetensors
    steps: int | None = None  # the budget: whichever of these three is reached first
    images: int | None = None
    minutes: float | None = None
    seed: int = 0
    device: str = "auto"  # auto, cpu, cuda
    precision: str = "auto"  # fp32, bf16; auto is bf16 on a GPU that has it, else fp32
    shards: int = 1  # parts a batch is computed in, shared out over the processes
    log_every: int = 10  # steps
    save_minutes: float = 3.0
    start: str | None = None  # to fine-tune: a checkpoint, by shipped name or path; with preset diffusers a pipeline, by folder or hub name
    out: Path | None = None  # folder for checkpoints

    def __post_init__(self):
        def need(good: bool, name: str, limit: str) -> None:
            if not good:
                raise ValueError(f"{name} must be {limit}, not {shown(getattr(self, name))}.")

        check_types(self)
        need(self.data in DATA, "data", f"one of {', '.join(DATA)}")
        need(self.preset in (*PRESETS, DIFFUSERS), "preset", f"one of {', '.join(PRESETS)}, {DIFFUSERS}")
        need(self.preset != DIFFUSERS or self.start is not None, "start", "a pipeline's folder or hub name where preset is diffusers")
        need(self.reading in READINGS, "reading", f"one of {', '.join(READINGS)}")
        need(self.weighting in WEIGHTINGS, "weighting", f"one of {', '.join(WEIGHTINGS)}")
        need(self.precision in ("auto", "fp32", "bf16"), "precision", "auto, fp32 or bf16")
        need(self.annealing in ("none", "cosine"), "annealing", "none or cosine")
        need(0 <= self.beta2 < 1, "beta2", "in [0, 1)")
        need(all(0 <= decay < 1 for decay in self.ema_others), "ema_others", "decays in [0, 1)")
        need(0 <= self.tau <= 1, "tau", "in [0, 1]")
        need(2 <= self.T <= MAX_T, "T", f"at least 2, at most {MAX_T:,}")
        need(1 <= self.skip < self.T, "skip", f"in 1..{self.T - 1}")
        need(self.only_steps is None or 1 <= self.only_steps <= self.T, "only_steps", f"in 1..{self.T}")
        need(0 <= self.label_dropout <= 1, "label_dropout", "in [0, 1]")
        need(self.preset != DIFFUSERS or self.label_dropout == 1, "label_dropout", "1, for no labels, where preset is diffusers")
        need(0 <= self.ema_decay < 1, "ema_decay", "in [0, 1)")
        need(self.learning_rate > 0, "learning_rate", "above 0")
        need(self.clip > 0, "clip", "above 0")
        need(self.warmup >= 0, "warmup", "at least 0")
        need(self.log_every >= 1, "log_every", "at least 1")
        need(self.save_minutes >= 0, "save_minutes", "at least 0")
        need(1 <= self.batch <= MAX_BATCH, "batch", f"at least 1, at most {MAX_BATCH:,}")
        need(self.shards >= 1 and self.batch % self.shards == 0, "shards", f"a divisor of batch = {self.batch}")
        need(self.seed >= 0, "seed", "at least 0")
        need(self.device in ("auto", "cpu") or self.device.startswith("cuda"), "device", "auto, cpu or cuda")
        for name in ("steps", "images", "minutes"):
            need(getattr(self, name) is None or getattr(self, name) > 0, name, "above 0")
        if self.steps is None and self.images is None and self.minutes is None:
            raise ValueError("a training needs an end: set steps, images or minutes.")


PAPER = TrainConfig(preset="paper", warmup=0, ema_ramp=False, steps=796_000)
# What a resumed run may change without becoming another run.
FREE_ON_RESUME = ("steps", "images", "minutes", "device", "log_every", "save_minutes", "out")


class TrainingError(Exception):
    """Training cannot go on or be resumed; the message says why and what is kept."""


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


def seed_of(*key: int) -> int:
    """A 32-bit seed from several integers, such as (seed, step, shard), well mixed."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def load_data(name: str, size: int) -> data.Images:
    """The training data `name`, one of DATA, at the side length (for signals the length) that the network takes."""
    check_name("name", name, DATA)
    makers = {"shapes": data.shapes, "waves": signals.waves, "spirals": signals.spirals}
    if name in makers:
        return makers[name](20_000, size)
    title, side = {"cifar10": ("CIFAR-10", 32), "celeba": ("CelebA", 64)}[name]
    if side != size:
        fitting = ", ".join(preset for preset, unet in PRESETS.items() if unet.shape == (3, side, side))
        raise ValueError(f"{title} is {side}×{side}, but this network takes {size}×{size} images; use {fitting}, or data = shapes.")
    return data.cifar10("train") if name == "cifar10" else data.celeba("train", size)


def _configured_data(config: TrainConfig, unet: UNetConfig) -> data.Images:
    if DATA[config.data] != (unet.image_channels, unet.dimensions):
        fitting = [name for name, preset in PRESETS.items() if (preset.image_channels, preset.dimensions) == DATA[config.data]]
        network = config.start if config.preset == DIFFUSERS else f"the preset {config.preset}"
        raise ValueError(f"{network} takes x of {'×'.join(map(str, unet.shape))}, which {config.data} are not; "
                         f"presets for {config.data}: {', '.join(fitting)}.")
    return load_data(config.data, unet.image_size)


def train(config: TrainConfig, images: data.Images | None = None, resume: bool = False) -> Iterator[TrainRecord]:
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


def _files(out: Path | str) -> tuple[Path, Path]:
    """What a training writes: the network to use, the state to go on from."""
    return Path(out) / "model.safetensors", Path(out) / "state.safetensors"


def _train(config: TrainConfig, images: data.Images | None, resume: bool) -> Iterator[TrainRecord]:
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

    device = accelerator.device if accelerator else torch.device(best_device() if config.device == "auto" else config.device)
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


class _Run:
    """Where a training stands, and how that is written down and read back."""

    def __init__(self, config: TrainConfig, images: data.Images, device: torch.device, bf16: bool, started_from: dict | None,
                 schedule: NoiseSchedule):
        self.config, self.step, self.minutes, self.loss = config, 0, 0.0, float("nan")
        self.facts = {"data": images.name, "data_images": len(images), "data_sha256": data.fingerprint(images),
                      "device": device_name(device), "precision": "bf16" if bf16 else "fp32", "torch": torch.__version__,
                      "started_from": started_from, "commit": checkpoints.git_commit()}  # now: files may change while it runs
        self.facts |= checkpoints.schedule_entry(schedule)

    def progress(self) -> float:
        c = self.config
        parts = [self.step / c.steps if c.steps else 0, self.step * c.batch / c.images if c.images else 0,
                 self.minutes / c.minutes if c.minutes else 0]
        return min(1.0, max(parts))

    def mend(self) -> str:
        """What to say where numbers are not finite any more."""
        out = self.config.out
        kept = f"The checkpoint in {out} from before is kept; start = {_files(out)[0]} begins another training from it. " \
            if out and _files(out)[1].exists() else ""
        return f"{kept}A smaller learning_rate than {self.config.learning_rate} usually helps."

    def save(self, model: nn.Module, emas: dict[float, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        """model.safetensors to use (the averaged network, fp16), then state.safetensors to resume from (full precision).

        In this order: killed in between, a training is resumed from before and comes by here again. The other way round it could be
        found finished and its network missing.
        """
        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        for decay, ema in emas.items():
            tensors |= {f"{self.prefix(decay)}.{name}": value for name, value in ema.state_dict().items()}
        for i, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{name}": value for name, value in moments.items()}
        if not all(bool(value.isfinite().all()) for value in tensors.values()):  # the last step can spoil them after a finite loss
            raise TrainingError(f"the weights are not finite after step {self.step}; training stops. {self.mend()}")
        config = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self.config).items()}
        record = {**self.facts, "config": {k: v for k, v in config.items() if k != "out"}, "steps": self.step,
                  "images_seen": self.step * self.config.batch, "minutes": round(self.minutes, 2), "loss": self.loss}
        # Numbers go through the header as exact decimal texts: floats in JSON survive a round trip.
        header = {"unet": model.config.to_dict(), "record": record, "minutes": self.minutes}
        network, state = _files(self.config.out)
        for decay, ema in emas.items():
            path = network if decay == self.config.ema_decay else network.with_name(f"model-ema-{decay:g}.safetensors")
            checkpoints.save_model(path, ema, record)
        checkpoints.write_tensors(state, tensors, header)

    def prefix(self, decay: float) -> str:
        """Of an average's tensors in the state."""
        return "ema" if decay == self.config.ema_decay else f"ema-{decay:g}"

    def load(self, model: nn.Module, emas: dict[float, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        path = _files(self.config.out)[1]
        tensors, header = checkpoints.read_tensors(path)
        now = asdict(self.config)
        pick = lambda prefix: {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}  # noqa: E731
        try:
            record = header["record"]
            before = record["config"]
            for name, default in ((f.name, f.default) for f in fields(self.config) if f.name not in FREE_ON_RESUME):
                then = before.get(name, default)  # a setting younger than the file was at its default
                then = tuple(then) if isinstance(then, list) else then  # JSON knows no tuples
                if then != now[name]:
                    raise TrainingError(f"{path} was trained with {name} = {then!r}, this run asks for {now[name]!r}. "
                                        f"Resume with the same value, or train anew in another folder.")
            if record["data_sha256"] != self.facts["data_sha256"]:
                raise TrainingError(f"{path} was trained on other images than these ({record['data']}, hash {record['data_sha256']}).")
            if record.get("alpha_bar") != self.facts.get("alpha_bar"):
                raise TrainingError(f"{path} was trained with another noise schedule than the one that {self.config.start} has now.")
            self.step, self.minutes, self.loss = record["steps"], header["minutes"], record["loss"]
            model.load_state_dict(pick("model."))
            for decay, ema in emas.items():
                ema.load_state_dict(pick(f"{self.prefix(decay)}."))
            adam = optimizer.state_dict()
            adam["state"] = {i: {name: _laid_out_like(weight, value) for name, value in pick(f"adam.{i}.").items()}
                             for i, weight in enumerate(optimizer.param_groups[0]["params"])}
            optimizer.load_state_dict(adam)
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise checkpoints.CheckpointError(f"{path} is not the state of a training: {type(error).__name__}, "
                                              f"{' '.join(str(error).split())[:300]}") from error


def _laid_out_like(weight: Tensor, value: Tensor) -> Tensor:
    """A moment of Adam in its weight's order of memory: the fused Adam walks through both side by side."""
    return torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value  # the step count is one number


def _opened(config: TrainConfig) -> tuple[nn.Module | None, dict | None, NoiseSchedule]:
    """What `start` names, if anything, its training record, and the schedule to train with."""
    if config.start is None:
        return None, None, NoiseSchedule.linear(config.T)
    start, diffusers, known = config.start, config.preset == DIFFUSERS, config.start in checkpoints.zoo()
    if diffusers and not known and Path(start).suffix != ".safetensors":
        model, schedule = checkpoints.interop().open_pipeline(start, config.T)
        record = {"pipeline": start, "network_sha256": checkpoints.network_hash(model)}
    elif not known and not Path(start).is_file():
        raise checkpoints.CheckpointError(f"{start} cannot be read: no shipped network has that name, and it is no file such as "
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
    """The network to train: fresh weights drawn from the seed, or the one to start from.

    A `UNet` that takes no labels may be taught them.
    """
    if config.preset == DIFFUSERS:
        return start.requires_grad_(True)
    unet = replace(PRESETS[config.preset], classes=classes)
    if start is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(config.seed, 2))
            return UNet(unet)
    if classes and not start.config.classes:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(config.seed, 2))
            start = start.with_classes(classes)
    if replace(start.config, dropout=unet.dropout) != unet:
        raise TrainingError(f"{config.start} is not a {config.preset} network{f' of {classes} classes' if classes else ''}: "
                            f"it has {start.config}.")
    return start.requires_grad_(True)


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


def best_device() -> str:
    """cuda where there is one, else cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16, which makes them faster than those of float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    cpuinfo = Path("/proc/cpuinfo")  # Linux; elsewhere training stays in float32
    return cpuinfo.exists() and any(flag in cpuinfo.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def device_name(device: torch.device) -> str:
    """What to write beside a measurement: the GPU's name, or the CPU's model and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")  # Linux; elsewhere Python's own word for the processor must do
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    model = names[0] if names else platform.processor() or platform.machine()
    return f"{model}, {torch.get_num_threads()} threads"
