"""The settings of a training."""
from dataclasses import dataclass
from pathlib import Path

from ..data import DATA
from ..losses import READINGS, WEIGHTINGS
from ..schedule import MAX_T
from ..support.checks import check_fields, check_types
from ..unet import PRESETS

MAX_BATCH = 1_000_000
DIFFUSERS = "diffusers"  # as preset: train the UNet2DModel of the pipeline in `start`, in diffusers' own code


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a training. `PAPER` holds those of the released S²-DM code. Raises ValueError, naming the setting and its limit."""

    data: str = "cifar10"  # see DATA
    preset: str = "nano"  # see unet.PRESETS; diffusers: the network of the pipeline in start
    skip: int = 9  # S²-DM^k has skip = k − 1
    tau: float = 0.99  # weight of L_0; 1 trains the baseline
    reading: str = "independent"  # of L_skip, see losses.py
    weighting: str = "uniform"  # of the timesteps, see losses.timestep_weight
    only_steps: int | None = None  # train only at the timesteps of a sampler with this many quadratic steps
    label_dropout: float = 1.0  # share of the images shown without their label; 1: the network takes no labels
    T: int = 1000
    batch: int = 128
    learning_rate: float = 2e-4
    warmup: int = 500  # steps over which the learning rate rises
    annealing: str = "none"  # of the learning rate: none, or cosine, half a wave down to zero over the budget
    beta2: float = 0.999  # Adam's decay of squared gradients
    clip: float = 1.0  # largest norm of the gradient
    ema_decay: float = 0.9999
    ema_ramp: bool = True  # limit the decay at step k to (1 + k)/(10 + k), so that short runs forget their start
    ema_others: tuple[float, ...] = ()  # decays of further averages, each saved as model-ema-DECAY.safetensors
    steps: int | None = None  # the budget: training ends when it reaches the first of these three
    images: int | None = None
    minutes: float | None = None
    seed: int = 0
    device: str = "auto"  # auto, cpu, cuda
    precision: str = "auto"  # fp32, bf16; auto: bf16 where the device multiplies it in hardware; a resumed run goes on as it began
    shards: int = 1  # parts of a batch, computed one after another and shared among the processes
    record_step: bool = False  # on one GPU: launch a step's gradients at once, for networks as small as nano; never tried on a GPU
    log_every: int = 10  # steps
    save_minutes: float = 3.0
    keep_images: tuple[int, ...] = ()  # after so many images the averaged network is kept, as model-at-IMAGES.safetensors
    start: str | None = None  # to fine-tune: a shipped name or a checkpoint; with preset diffusers a pipeline's folder or hub name
    out: Path | None = None  # folder for checkpoints

    def __post_init__(self):
        check_types(self)
        diffusers, ends = self.preset == DIFFUSERS, (self.steps, self.images, self.minutes)
        decays = [f"{decay:g}" for decay in (self.ema_decay, *self.ema_others)]  # in the names of files
        ranges = (("learning_rate clip steps images minutes", lambda v: v is None or v > 0, "above 0"),
                  ("warmup seed save_minutes", lambda v: v >= 0, "at least 0"), ("tau label_dropout", lambda v: 0 <= v <= 1, "in [0, 1]"),
                  ("beta2 ema_decay", lambda v: 0 <= v < 1, "in [0, 1)"))
        check_fields(self, *(
            *((name, within(getattr(self, name)), limit) for names, within, limit in ranges for name in names.split()),
            ("data", self.data in DATA, f"one of {', '.join(DATA)}"),
            ("preset", self.preset in (*PRESETS, DIFFUSERS), f"one of {', '.join(PRESETS)}, {DIFFUSERS}"),
            ("start", self.start is not None or not diffusers, "a pipeline's folder or hub name where preset is diffusers"),
            ("T", 2 <= self.T <= MAX_T, f"at least 2, at most {MAX_T:,}"),
            ("skip", 1 <= self.skip < self.T, f"in 1..{self.T - 1}"),
            ("reading", self.reading in READINGS, f"one of {', '.join(READINGS)}"),
            ("weighting", self.weighting in WEIGHTINGS, f"one of {', '.join(WEIGHTINGS)}"),
            ("only_steps", self.only_steps is None or 1 <= self.only_steps <= self.T, f"in 1..{self.T}"),
            ("label_dropout", self.label_dropout == 1 or not diffusers, "1, for no labels, where preset is diffusers"),
            ("batch", 1 <= self.batch <= MAX_BATCH, f"at least 1, at most {MAX_BATCH:,}"),
            ("annealing", self.annealing in ("none", "cosine"), "none or cosine"),
            ("ema_others", all(0 <= decay < 1 for decay in self.ema_others), "decays in [0, 1)"),
            ("ema_others", len(set(decays)) == len(decays), f"decays that differ in six digits, also from ema_decay = {decays[0]}"),
            ("device", self.device in ("auto", "cpu") or self.device.startswith("cuda"), "auto, cpu or cuda"),
            ("precision", self.precision in ("auto", "fp32", "bf16"), "auto, fp32 or bf16"),
            ("shards", self.shards >= 1 and self.batch % self.shards == 0, f"a divisor of batch = {self.batch}"),
            ("record_step", not self.record_step or self.shards == 1, "False where a batch has several shards"),
            ("log_every", self.log_every >= 1, "at least 1"),
            ("keep_images", all(n > 0 for n in self.keep_images), "numbers of images above 0"),
        ))
        if ends == (None, None, None):
            raise ValueError("a training needs an end: set steps, images or minutes.")


# The setting of the released code.
PAPER = TrainConfig(preset="paper", warmup=0, ema_ramp=False, steps=796_000)
