"""The settings of a training."""
from dataclasses import dataclass
from pathlib import Path

from ..data import DATA
from ..losses import READINGS, WEIGHTINGS
from ..schedule import MAX_T
from ..support.checks import check_types, shown
from ..unet import PRESETS

MAX_BATCH = 1_000_000
DIFFUSERS = "diffusers"  # in the place of a preset: the network is whatever `start` holds, and diffusers' own code computes it


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
