"""The zoo: which networks the package ships, and one command that trains, measures and draws them, at three sizes.

    python -m s2dm_mini zoo --size cpu --out runs/zoo

First a base is trained with L_0 from nothing. Then every member is fine-tuned from it: a twin with L_0, and one for each S²-DM setting,
with the same seed, so that all twins see the same images, timesteps and noise ε₁ and differ in their loss alone. Started again, the
command goes on where it was stopped, and does nothing that is done.
"""
import json
from dataclasses import dataclass, replace
from pathlib import Path

from .. import checkpoints
from ..support.files import sole_writer, write_whole
from ..training.config import TrainConfig
from ..training.watched import train_with_bar
from . import tables
from .evaluate import evaluate, samples_picture
from .plan import TWINS


@dataclass(frozen=True)
class Plan:
    """A size of the zoo."""

    base: TrainConfig
    tune: TrainConfig  # of every twin; skip, tau and start are filled in
    twins: tuple[str, ...] = tuple(TWINS)
    samples: int = 1_200  # drawn from each member to measure it
    steps: int = 20  # of DDIM on the quadratic grid


_SHAPES = TrainConfig(data="shapes", preset="tiny", tau=1.0, batch=32, learning_rate=5e-3, warmup=50, ema_decay=0.99, log_every=20,
                      images=30_000)
# fp32 since bf16 is slower on most CPUs, and two shards, so that one process or two may train it.
_NANO = TrainConfig(preset="nano", tau=1.0, batch=64, learning_rate=4e-4, warmup=200, ema_decay=0.999, precision="fp32", shards=2,
                    log_every=25, images=400_000)
_NANO_SHAPES = replace(_NANO, data="shapes", batch=32, learning_rate=1e-3, shards=1)
_WAVE = TrainConfig(data="waves", preset="wave", tau=1.0, batch=64, learning_rate=3e-3, warmup=100, ema_decay=0.998, precision="fp32",
                    log_every=50, images=51_200)
_PATH = replace(_WAVE, data="spirals", preset="path")
_COMPACT = TrainConfig(preset="compact", tau=1.0, batch=256, learning_rate=5e-4, warmup=500, ema_decay=0.999, log_every=50, minutes=10)
_TOLD = replace(_COMPACT, label_dropout=0.1)  # the classes; one image in ten is shown without, for what guidance pushes away from


def _fine_tuning(base: TrainConfig, **budget: float) -> TrainConfig:
    """The same at less than half the learning rate, for a shorter time."""
    return replace(base, **{"learning_rate": 0.4 * base.learning_rate, "warmup": 100, "images": None, "minutes": None, **budget})


SIZES = {
    # A CPU, a few minutes.
    "quick": {"tiny-shapes": Plan(_SHAPES, _fine_tuning(_SHAPES, images=4_000), samples=1_000)},
    # A CPU, some hours. The base goes on from the `nano` that is shipped, so that whoever has the hours to spare makes the zoo better.
    "cpu": {"nano-cifar10": Plan(replace(_NANO, start="nano-cifar10-l0", seed=4, images=206_400),
                                 _fine_tuning(_NANO, batch=32, images=24_000)),
            # From nothing, 30,000 images leave this network with pure noise; from one that knows photographs, they make shapes.
            "nano-shapes": Plan(replace(_NANO_SHAPES, start="nano-cifar10-l0", images=64_000), _fine_tuning(_NANO_SHAPES, images=9_600),
                                twins=("l0",)),
            "wave-waves": Plan(_WAVE, _fine_tuning(_WAVE, images=19_200), twins=("l0",)),
            "path-spirals": Plan(_PATH, _fine_tuning(_PATH, images=12_800), twins=("l0",))},
    # One GPU, three quarters of an hour.
    "full": {"compact-cifar10": Plan(_COMPACT, _fine_tuning(_COMPACT, minutes=2.5), samples=10_000),
             "compact-cifar10-classes": Plan(_TOLD, _fine_tuning(_TOLD, minutes=2.5), twins=("l0", "s2dm50"), samples=10_000)},
}


def build_zoo(size: str, out: Path, only: tuple[str, ...] = (), ship: bool = False, device: str = "auto",
              table: Path | None = None) -> bool:
    """Train, measure and draw the zoo of a size in `out`; returns whether all is done, False after Ctrl-C in a training.

    only: beginnings of member names; the base is trained whatever they are. ship: copy the members into data/checkpoints and their
    pictures into data/pictures. table: CSV file for the measurements, data/results/evaluations.csv by default.
    """
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, not {size!r}.")
    members = [f"{family}-{twin}" for family, plan in SIZES[size].items() for twin in plan.twins]
    if only and not any(name.startswith(only) for name in members):
        raise ValueError(f"no member of the size {size} starts with {' or '.join(only)}; there are {', '.join(members)}.")
    with sole_writer(out / "zoo"):
        return _build(SIZES[size], out, only, ship, device, table or tables.RESULTS / "evaluations.csv")


def _build(plans: dict[str, Plan], out: Path, only: tuple[str, ...], ship: bool, device: str, table: Path) -> bool:
    for family, plan in plans.items():
        chosen = [twin for twin in plan.twins if not only or f"{family}-{twin}".startswith(only)]
        base = out / f"{family}-base"
        if not chosen:
            continue
        if not _trained(replace(plan.base, out=base, device=device), f"{family}-base"):
            return False
        images = plan.tune.images
        for twin in chosen:
            name, (skip, tau) = f"{family}-{twin}", TWINS[twin]
            config = replace(plan.tune, skip=skip, tau=tau, start=(base / "model.safetensors").as_posix(), out=out / name, device=device)
            if images:  # what the first twin managed in its minutes, all others get to see too
                config = replace(config, images=images, minutes=None)
            if not _trained(config, name):
                return False
            _, record = checkpoints.load_model(out / name / "model.safetensors")
            images = record["images_seen"]
            _show(name, out / name / "model.safetensors", plan, ship, device, table)
    return True


def _trained(config: TrainConfig, name: str) -> bool:
    """Train to the end of the budget, from wherever the folder stands; False if stopped on the way."""
    begun = (Path(config.out) / "state.safetensors").exists()
    return not train_with_bar(config, resume=begun, title=name).stopped


def _show(name: str, path: Path, plan: Plan, ship: bool, device: str, table: Path) -> None:
    """Measure a member, unless the table has it or it makes signals (compare_signals.py measures those), and draw 64 samples of it."""
    checkpoint, picture = str(path.as_posix()), path.with_name(f"{name}.png")
    if ship:
        add_to_zoo(path, name)
        checkpoint, picture = name, tables.RESULTS.parent / "pictures" / f"{name}.png"
    network, _ = checkpoints.load_model(path)
    asked = {"checkpoint": checkpoint, "sampler": "ddim", "spacing": "quadratic", "steps": plan.steps, "samples": plan.samples,
             "network_sha256": checkpoints.network_hash(network)}
    done = tables.read_rows(table) if table.exists() else []
    if network.config.dimensions == 2 and not tables.holds(done, asked):
        row = evaluate(checkpoint, "ddim", plan.steps, "quadratic", samples=plan.samples, device=device, table=table)
        print(f"{name}: Fréchet distance {row['fd']:.3f} in {row['features']} features")
    samples_picture(checkpoint, picture, n=64, steps=plan.steps, columns=16, enlarge=2, device=device)


def add_to_zoo(path: Path | str, name: str) -> Path:
    """Copy a trained network into the zoo and enter it, with its own training record, in the manifest."""
    model, record = checkpoints.load_model(path)
    target = checkpoints.ZOO / f"{name}.safetensors"
    checkpoints.save_model(target, model, record)
    ship(name, target, {"parameters": sum(p.numel() for p in model.parameters()), "unet": model.config.to_dict(), "record": record})
    return target


def ship(name: str, path: Path, entry: dict) -> None:
    """Enter a file of the zoo's folder in the manifest."""
    with sole_writer(checkpoints.ZOO / "manifest.json", wait=True):
        entries = checkpoints.manifest() | {name: {"file": path.name, "sha256": checkpoints.sha256(path), **entry}}
        write_whole(checkpoints.ZOO / "manifest.json", (json.dumps(entries, indent=1, sort_keys=True) + "\n").encode())
