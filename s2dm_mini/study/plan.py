"""The plan of the ledger: settings, sizes, and the cells that each size measures."""
from dataclasses import dataclass, replace
from pathlib import Path

from ..samplers import SAMPLERS
from ..schedule import SPACINGS, NoiseSchedule
from ..support.checks import check_integer, check_name, check_types
from ..theory.scales import scale_of
from ..training.config import TrainConfig

# Name → what the training changes. S²-DM^k has skip = k − 1; τ is 0.99 and the reading the released code's unless said otherwise.
SETTINGS: dict[str, dict] = {
    "l0": {"tau": 1.0},
    "s2dm2": {"skip": 1}, "s2dm10": {"skip": 9}, "s2dm50": {"skip": 49},
    "s2dm50-tau0.9": {"skip": 49, "tau": 0.9}, "s2dm50-tau0.999": {"skip": 49, "tau": 0.999},
    "s2dm50-expected": {"skip": 49, "reading": "expected"}, "s2dm50-shared": {"skip": 49, "reading": "shared"},
    "s2dm50-output": {"skip": 49, "reading": "output"},
    "l0-only-10": {"tau": 1.0, "only_steps": 10},  # the reviewers' baseline: trained only where a sampler of 10 steps looks
}


@dataclass(frozen=True)
class Group:
    """A network, what its ε is multiplied by, a sampler and some step counts: one line in a plot against steps."""

    setting: str = "l0"  # see SETTINGS
    seed: int = 0  # of the training
    scale: str = "none"  # none, s2dmK (closed form: s_t for skip K − 1, τ 0.99), or bX (Epsilon Scaling: ε divided by X)
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
        steps = "-".join(map(str, self.steps))
        return f"{self.setting}.{self.seed}.{self.scale}.{self.sampler}.{self.spacing}.{steps}.{self.sampling_seed}"

    @property
    def options(self) -> str:
        """Of the command line."""
        return (f"--setting {self.setting} --seed {self.seed} --scale {self.scale} --sampler {self.sampler} --spacing {self.spacing} "
                f"--steps {' '.join(map(str, self.steps))} --sampling-seed {self.sampling_seed}")


@dataclass(frozen=True)
class Part:
    """All combinations of these, for every training seed of the experiment."""

    settings: tuple[str, ...]
    samplers: tuple[str, ...] = ("ddim",)
    steps: tuple[int, ...] = (5, 10, 20)
    scales: tuple[str, ...] = ("none",)
    spacing: str = "quadratic"


@dataclass(frozen=True)
class Experiment:
    """A size of the ledger."""

    tune: TrainConfig  # of every network; seed and what SETTINGS say are filled in
    parts: tuple[Part, ...]  # most telling first
    seeds: tuple[int, ...] = (0, 1, 2)
    samples: int = 1_024  # of each group and step count: enough to extrapolate the distance in 256 features

    def groups(self, parts: int | None = None) -> list[Group]:
        """Every group of the first so many parts (all by default), most telling first."""
        return [Group(setting, seed, scale, sampler, part.spacing, part.steps)
                for part in self.parts[:parts] for seed in self.seeds for setting in part.settings for scale in part.scales
                for sampler in part.samplers]


_MAIN = ("l0", "s2dm10", "s2dm50")
_PAPER = ("l0", "s2dm2", "s2dm10", "s2dm50")
_ALL_SAMPLERS = ("ddim", "f-pndm", "tab-deis-3")
_CONTROLS = ("s2dm50-tau0.9", "s2dm50-tau0.999", "s2dm50-expected", "s2dm50-shared", "s2dm50-output", "l0-only-10")
_CLOSED = ("s2dm10", "s2dm50")
_SHAPES = TrainConfig(data="shapes", preset="tiny", start="tiny-shapes-l0", batch=32, learning_rate=1e-3, warmup=20, ema_decay=0.99,
                      images=1_600)
_NANO = TrainConfig(preset="nano", start="nano-cifar10-l0", batch=32, learning_rate=1.6e-4, warmup=50, ema_decay=0.99, precision="fp32",
                    images=9_600)
_COMPACT = TrainConfig(preset="compact", start="compact-cifar10-l0", batch=256, learning_rate=1e-4, warmup=50, ema_decay=0.999,
                       images=256_000)
SIZES = {
    # Seconds: it only shows whether the pipeline runs.
    "dry": Experiment(replace(_SHAPES, images=64), (Part(("l0", "s2dm10"), steps=(2, 3)), Part(("l0",), steps=(2,), scales=("s2dm10",))),
                      seeds=(0,), samples=16),
    # A CPU, a minute or two; networks and pictures are small enough to do it in a lesson.
    "quick": Experiment(_SHAPES, (Part(_MAIN, steps=(5, 10)), Part(("l0",), steps=(5, 10), scales=_CLOSED)), seeds=(0, 1), samples=512),
    # A CPU, a night.
    "cpu": Experiment(_NANO, (
        Part(_MAIN), Part(("l0",), scales=_CLOSED), Part(_MAIN, ("tab-deis-3",)), Part(_MAIN, ("f-pndm",), steps=(5, 10)),
        Part(_CONTROLS, steps=(10,)), Part(("s2dm2",)), Part(("l0",), scales=("b1.005", "b1.01", "b1.017")),
        Part(("l0",), steps=(10,), scales=("b1.035", "b1.05", "b1.07")), Part(_MAIN, steps=(50,)), Part(_MAIN, ("f-pndm",), steps=(20,)),
        Part(_MAIN, steps=(10, 20), spacing="uniform"), Part(("l0",), steps=(50,), scales=_CLOSED), Part(("s2dm2",), steps=(50,)),
        Part(_MAIN, ("tab-deis-3",), steps=(50,)), Part(_MAIN, ("f-pndm",), steps=(50,)),
        Part(("l0", "s2dm50"), ("ddpm",), steps=(50,)), Part(("s2dm50-tau0.9", "s2dm50-tau0.999", "s2dm50-shared"), steps=(20,)),
        Part(("s2dm2",), ("tab-deis-3", "f-pndm"), steps=(5, 10, 20, 50)),
    )),
    # One GPU.
    "full": Experiment(_COMPACT, (
        Part(_PAPER, _ALL_SAMPLERS, (5, 10, 20, 50, 100)), Part(("l0",), _ALL_SAMPLERS, (5, 10, 20, 50, 100), ("s2dm2", *_CLOSED)),
        Part(("l0",), steps=(5, 10, 20, 50), scales=("b1.005", "b1.01", "b1.017", "b1.025", "b1.035", "b1.05")),
        Part(_CONTROLS, steps=(10, 20, 50, 100)), Part(_MAIN, ("ddpm",), (50, 100)), Part(_MAIN, steps=(1000,)),
        Part(_MAIN, steps=(10, 20, 50, 100), spacing="uniform"),
    ), samples=10_000),
}


def experiment_of(size: str) -> Experiment:
    check_name("size", size, SIZES)
    return SIZES[size]


PAPER = ("s2dm2", "s2dm10", "s2dm50")
FAMILIES = {"ddim": "DDIM", "f-pndm": "F-PNDM", "tab-deis-3": "tAB3-DEIS"}
TITLES = {
    "l0": "L₀", "s2dm2": "S²-DM^2", "s2dm10": "S²-DM^10", "s2dm50": "S²-DM^50", "s2dm50-tau0.9": "S²-DM^50, τ 0.9",
    "s2dm50-tau0.999": "S²-DM^50, τ 0.999", "s2dm50-expected": "S²-DM^50, `expected`", "s2dm50-shared": "S²-DM^50, `shared`",
    "s2dm50-output": "S²-DM^50, `output`", "l0-only-10": "L₀, trained at 10 timesteps only",
}
# name → (skip, τ); S²-DM^k has skip = k − 1
TWINS = {"l0": (9, 1.0), "s2dm2": (1, 0.99), "s2dm10": (9, 0.99), "s2dm50": (49, 0.99), "s2dm50-tau0.9": (49, 0.9)}
