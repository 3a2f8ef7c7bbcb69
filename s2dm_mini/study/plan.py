"""The plan of the study: the losses compared, how networks are trained, and the sizes of the ledger."""
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ..losses import shrinkage
from ..measure.features import OFFLINE
from ..samplers import SAMPLERS
from ..schedule import SPACINGS, NoiseSchedule
from ..support.checks import check_integer, check_name, check_types
from ..theory.scales import scale_of
from ..training.config import TrainConfig

FAMILIES = {"ddim": "DDIM", "f-pndm": "F-PNDM", "tab-deis-3": "tAB3-DEIS"}  # the paper's families of samplers, as it prints them


@dataclass(frozen=True)
class Setting:
    """A loss under study; S²-DM^k has skip = k − 1."""

    title: str
    skip: int = 9
    tau: float = 0.99
    reading: str = "independent"
    only_steps: int | None = None

    def training(self, config: TrainConfig, **changes) -> TrainConfig:
        """`config` with this loss and with further changes."""
        return replace(config, skip=self.skip, tau=self.tau, reading=self.reading, only_steps=self.only_steps, **changes)

    def shrinkage(self, schedule: NoiseSchedule) -> Tensor | None:
        """The factor s_t by which the loss's minimiser differs from L_0's, (T,) float64; None for `output`, which has no closed form."""
        return None if self.reading == "output" else shrinkage(schedule, self.skip, self.tau, self.reading)


SETTINGS = {
    "l0": Setting("L₀", tau=1.0),
    "s2dm2": Setting("S²-DM^2", skip=1),
    "s2dm10": Setting("S²-DM^10"),
    "s2dm50": Setting("S²-DM^50", skip=49),
    "s2dm50-tau0.9": Setting("S²-DM^50, τ 0.9", skip=49, tau=0.9),
    "s2dm50-tau0.999": Setting("S²-DM^50, τ 0.999", skip=49, tau=0.999),
    "s2dm50-expected": Setting("S²-DM^50, `expected`", skip=49, reading="expected"),
    "s2dm50-shared": Setting("S²-DM^50, `shared`", skip=49, reading="shared"),
    "s2dm50-output": Setting("S²-DM^50, `output`", skip=49, reading="output"),
    # The reviewers' baseline: trained only at the timesteps that a sampler of 10 steps visits.
    "l0-only-10": Setting("L₀, trained at 10 timesteps only", tau=1.0, only_steps=10),
}
PAPER = ("s2dm2", "s2dm10", "s2dm50")  # the settings of the paper's tables

# How each family of networks is trained from nothing, with L_0. The CPU's families use fp32, since bf16 is slower on most CPUs; the two
# shards of nano-cifar10 let one process or two train it.
BASES = {
    "tiny-shapes": TrainConfig(data="shapes", preset="tiny", tau=1.0, batch=32, learning_rate=5e-3, warmup=50, ema_decay=0.99,
                               log_every=20, images=30_000),
    "nano-cifar10": TrainConfig(preset="nano", tau=1.0, batch=64, learning_rate=4e-4, warmup=200, ema_decay=0.999, precision="fp32",
                                shards=2, log_every=25, images=400_000),
    "compact-cifar10": TrainConfig(preset="compact", tau=1.0, batch=256, learning_rate=5e-4, warmup=500, ema_decay=0.999, log_every=50,
                                   minutes=10),
}


def fine_tuning(base: TrainConfig, **changes) -> TrainConfig:
    """The fine-tuning after a training: 0.4 of its learning rate, 100 steps of warm-up, no budget, unless `changes` say otherwise."""
    return replace(base, **{"learning_rate": 0.4 * base.learning_rate, "warmup": 100, "images": None, "minutes": None, **changes})


@dataclass(frozen=True)
class Group:
    """A network, the scale of its ε, a sampler and some step counts: one line in a plot against steps."""

    setting: str = "l0"  # the loss: a name in study.plan.SETTINGS, such as s2dm10
    seed: int = 0  # of the training
    scale: str = "none"  # none, s2dmK (closed form: s_t for skip K − 1, τ 0.99), another loss by name, or bX (Epsilon Scaling: ε/X)
    sampler: str = "ddim"
    spacing: str = "quadratic"
    steps: tuple[int, ...] = (10,)
    sampling_seed: int = 0

    def __post_init__(self):
        check_types(self)
        for name, known in (("setting", SETTINGS), ("sampler", SAMPLERS), ("spacing", SPACINGS)):
            check_name(name, getattr(self, name), known)
        schedule = NoiseSchedule.linear()
        scale_of(self.scale, schedule)
        for name in ("seed", "sampling_seed"):
            check_integer(name, getattr(self, name), 0)
        for steps in self.steps:
            check_integer("steps", steps, 1, schedule.T)

    def network_path(self, size: str, out: Path) -> Path:
        return out / size / "networks" / f"{self.setting}.{self.seed}" / "model.safetensors"

    def samples_path(self, size: str, steps: int, out: Path) -> Path:
        cell = f"{self.scale}.{self.sampler}.{self.spacing}.{self.sampling_seed}"
        return out / size / "samples" / f"{self.setting}.{self.seed}" / cell / f"{steps}.safetensors"

    @property
    def name(self) -> str:
        return ".".join("-".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in vars(self).values())

    @property
    def options(self) -> str:
        """The group as options of the command `ledger`."""
        words = {name: " ".join(map(str, value)) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in words.items())


@dataclass(frozen=True)
class Part:
    """A block of the ledger: all combinations of these."""

    settings: tuple[str, ...]
    samplers: tuple[str, ...] = ("ddim",)
    steps: tuple[int, ...] = (5, 10, 20)
    scales: tuple[str, ...] = ("none",)
    spacing: str = "quadratic"
    sampling_seeds: tuple[int, ...] = (0,)  # sets of x_T
    seeds: tuple[int, ...] = ()  # of the training; by default all of the experiment


@dataclass(frozen=True)
class Experiment:
    """A size of the ledger."""

    # Of every network, from nothing or from `start`; the setting and the seed are filled in. Or a pipeline of diffusers, used as it is.
    training: TrainConfig | str
    parts: tuple[Part, ...]  # most telling first
    seeds: tuple[int, ...] = (0, 1, 2)
    samples: int = 1_024  # drawn for each cell and set of x_T: enough to extrapolate the distance in 256 features
    features: tuple[str, ...] = ("own",)  # that samples are measured in

    @property
    def data(self) -> str:
        """A pipeline is taken to be one of CIFAR-10."""
        return self.training.data if isinstance(self.training, TrainConfig) else "cifar10"

    def groups(self, parts: int | None = None) -> list[Group]:
        """The groups of the first `parts` parts, of all by default."""
        return [Group(setting, seed, scale, sampler, part.spacing, part.steps, x_T)
                for part in self.parts[:parts] for seed in part.seeds or self.seeds for setting in part.settings for scale in part.scales
                for sampler in part.samplers for x_T in part.sampling_seeds]


_MAIN, _CLOSED, _GRIDS = ("l0", "s2dm10", "s2dm50"), ("s2dm10", "s2dm50"), ("uniform", "quadratic")
_CONTROLS = ("s2dm50-tau0.9", "s2dm50-tau0.999", "s2dm50-expected", "s2dm50-shared", "s2dm50-output", "l0-only-10")
_TINY_SHORT = fine_tuning(BASES["tiny-shapes"], start="tiny-shapes-l0", learning_rate=1e-3, warmup=20, images=1_600)
_CPU = fine_tuning(BASES["nano-cifar10"], start="nano-cifar10-l0", batch=32, shards=1, warmup=50, ema_decay=0.99, images=9_600)
_SCRATCH = replace(BASES["nano-cifar10"], batch=32, shards=1, learning_rate=1e-3, warmup=500, annealing="cosine", beta2=0.99,
                   precision="bf16", images=150_000)
LEDGER_SIZES = {
    # Seconds; shows only that the pipeline runs.
    "dry": Experiment(replace(_TINY_SHORT, images=64), (
        Part(("l0", "s2dm10"), steps=(2, 3)), Part(("l0",), steps=(2,), scales=("s2dm10",))), seeds=(0,), samples=16),
    # A CPU, a minute or two; for a lesson.
    "quick": Experiment(_TINY_SHORT, (Part(_MAIN, steps=(5, 10)), Part(("l0",), steps=(5, 10), scales=_CLOSED)), seeds=(0, 1), samples=512),
    # A CPU, a night.
    "cpu": Experiment(_CPU, (
        Part(("l0", *PAPER), tuple(FAMILIES), (5, 10, 20, 50)), Part(("l0",), steps=(5, 10, 20, 50), scales=_CLOSED),
        Part(_MAIN, steps=(10, 20), spacing="uniform"), Part(_CONTROLS, steps=(10,)), Part(("l0",), scales=("b1.005", "b1.01", "b1.017")),
        Part(("l0",), steps=(10,), scales=("b1.035", "b1.05", "b1.07")), Part(("l0", "s2dm50"), ("ddpm",), steps=(50,)),
        Part(("s2dm50-tau0.9", "s2dm50-tau0.999", "s2dm50-shared"), steps=(20,)))),
    # A CPU, some nights: networks trained from nothing, the paper's experiment at this size. The most telling rows come first.
    "scratch": Experiment(_SCRATCH, (
        *(Part(_MAIN, spacing=grid) for grid in _GRIDS),
        *(Part(("l0",), steps=(10, 20), scales=_CLOSED, spacing=grid) for grid in _GRIDS),
        *(Part(_MAIN, ("f-pndm", "tab-deis-3"), (10,), spacing=grid) for grid in _GRIDS),
        *(Part(("l0",), steps=(10,), scales=("s2dm50-tau0.9", "s2dm50-tau0.999", "s2dm50-shared"), spacing=grid) for grid in _GRIDS),
        *(Part(_MAIN, steps=(50,), spacing=grid) for grid in _GRIDS)), features=OFFLINE),
    # One GPU.
    "full": Experiment(fine_tuning(BASES["compact-cifar10"], start="compact-cifar10-l0", learning_rate=1e-4, warmup=50, images=256_000), (
        Part(("l0", *PAPER), tuple(FAMILIES), (5, 10, 20, 50, 100)),
        Part(("l0",), tuple(FAMILIES), (5, 10, 20, 50, 100), PAPER),
        Part(("l0",), steps=(5, 10, 20, 50), scales=("b1.005", "b1.01", "b1.017", "b1.025", "b1.035", "b1.05")),
        Part(_CONTROLS, steps=(10, 20, 50, 100)), Part(_MAIN, ("ddpm",), (50, 100)), Part(_MAIN, steps=(1000,)),
        Part(_MAIN, steps=(10, 20, 50, 100), spacing="uniform")), samples=10_000, features=OFFLINE),
    # Any pipeline of diffusers as L_0, under the closed forms of S²-DM and Epsilon Scaling, which need no training.
    "hub": Experiment("google/ddpm-cifar10-32", tuple(
        Part(("l0",), steps=(5, 10, 20, 50), scales=("none", "s2dm2", *_CLOSED, "b1.005", "b1.01", "b1.017"), spacing=grid,
             sampling_seeds=(0, 1)) for grid in _GRIDS), seeds=(0,), samples=5_000, features=(*OFFLINE, "inception")),
}


def experiment_of(size: str) -> Experiment:
    """The ledger's plan at a size. Raises ValueError for an unknown one."""
    check_name("size", size, LEDGER_SIZES)
    return LEDGER_SIZES[size]
