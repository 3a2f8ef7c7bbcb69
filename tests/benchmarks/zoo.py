"""Trains, measures and draws the networks that the package ships: python tests/benchmarks/zoo.py --size cpu --out runs/zoo --ship

A family's base is trained with L_0. Its twins are fine-tuned from the base with one seed, one for each setting of the loss: all see the
same images, timesteps and noise ε₁, and differ only in the loss. Stopped, the same line goes on where it was.
"""
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from shipping import add_to_zoo

from s2dm_mini import TrainConfig, checkpoints
from s2dm_mini.study import tables
from s2dm_mini.study.evaluate import evaluate, samples_picture
from s2dm_mini.study.ledger import train_to_end
from s2dm_mini.study.plan import BASES, PAPER, SETTINGS, fine_tuning
from s2dm_mini.support.checks import check_name

TWINS = ("l0", *PAPER, "s2dm50-tau0.9")


@dataclass(frozen=True)
class Family:
    """Networks of the zoo that are fine-tuned from one base, and how they are measured."""

    base: TrainConfig
    tune: TrainConfig  # of every twin; the setting and the start are filled in
    twins: tuple[str, ...] = TWINS
    samples: int = 1_200  # drawn from each member to measure it
    steps: int = 20  # of DDIM on the quadratic grid


TINY, NANO, COMPACT = BASES["tiny-shapes"], BASES["nano-cifar10"], BASES["compact-cifar10"]
WAVE = TrainConfig(data="waves", preset="wave", tau=1.0, batch=64, learning_rate=3e-3, warmup=100, ema_decay=0.998, precision="fp32",
                   log_every=50, images=51_200)
SHAPES = replace(NANO, data="shapes", batch=32, learning_rate=1e-3, shards=1)
SPIRALS = replace(WAVE, data="spirals", preset="path")
CLASSES = replace(COMPACT, label_dropout=0.1)  # guidance needs the prediction without a class too
SIZES = {
    # A CPU, a few minutes.
    "quick": {"tiny-shapes": Family(TINY, fine_tuning(TINY, images=4_000), samples=1_000)},
    # A CPU, some hours. Both bases of `nano` go on from the shipped network: trained from nothing on 30,000 shapes, it draws noise.
    "cpu": {
        "nano-cifar10": Family(replace(NANO, start="nano-cifar10-l0", seed=4, images=206_400),
                               fine_tuning(NANO, batch=32, images=24_000)),
        "nano-shapes": Family(replace(SHAPES, start="nano-cifar10-l0", images=64_000), fine_tuning(SHAPES, images=9_600), twins=("l0",)),
        "wave-waves": Family(WAVE, fine_tuning(WAVE, images=19_200), twins=("l0",)),
        "path-spirals": Family(SPIRALS, fine_tuning(SPIRALS, images=12_800), twins=("l0",)),
    },
    # One GPU, three quarters of an hour.
    "full": {
        "compact-cifar10": Family(COMPACT, fine_tuning(COMPACT, minutes=2.5), samples=10_000),
        "compact-cifar10-classes": Family(CLASSES, fine_tuning(CLASSES, minutes=2.5), twins=("l0", "s2dm50"), samples=10_000),
    },
}


def build_zoo(size: str = "quick", out: Path = Path("runs/zoo"), only: tuple[str, ...] = (), ship: bool = False, device: str = "auto",
              table: Path | None = None) -> None:
    """Train, measure and draw the networks that the package ships.

    Args:
        size: quick (a CPU, minutes, shapes), cpu (a CPU, hours, CIFAR-10), full (one GPU, three quarters of an hour, CIFAR-10)
        out: folder for the trainings
        only: members to make, by the beginning of their names, e.g. nano-cifar10-s2dm10; their base is trained in any case
        ship: copy them into data/checkpoints, where load_pretrained finds them, and their pictures into data/pictures
        device: auto, cpu, cuda
        table: CSV file for the measurements; by default data/results/evaluations.csv
    """
    check_name("size", size, SIZES)
    plans, table = SIZES[size], table or tables.RESULTS / "evaluations.csv"
    wanted = {family: [twin for twin in plan.twins if not only or f"{family}-{twin}".startswith(only)] for family, plan in plans.items()}
    if not any(wanted.values()):
        members = ", ".join(f"{family}-{twin}" for family, plan in plans.items() for twin in plan.twins)
        raise ValueError(f"no member of the size {size} starts with {' or '.join(only)}; there are {members}.")
    for family, twins in wanted.items():
        plan, tune, base = plans[family], plans[family].tune, out / f"{family}-base"
        if twins:
            train_to_end(replace(plan.base, out=base, device=device), base.name)
        for twin in twins:
            path, start = out / f"{family}-{twin}" / "model.safetensors", (base / "model.safetensors").as_posix()
            train_to_end(SETTINGS[twin].training(tune, start=start, out=path.parent, device=device), path.parent.name)
            # With a budget of minutes, the first twin sets the number of images for the others.
            tune = replace(tune, images=checkpoints.load_model(path)[1]["images_seen"], minutes=None)
            show(path.parent.name, path, plan, ship, device, table)


def show(name: str, path: Path, plan: Family, ship: bool, device: str, table: Path) -> None:
    """Measure a member, unless the table has it or it makes signals (compare_signals.py measures those), and draw 64 samples of it."""
    checkpoint, picture = str(path.as_posix()), path.with_name(f"{name}.png")
    if ship:
        add_to_zoo(path, name)
        checkpoint, picture = name, tables.RESULTS.parent / "pictures" / f"{name}.png"
    network, _ = checkpoints.load_model(path)
    wanted = {"checkpoint": checkpoint, "sampler": "ddim", "spacing": "quadratic", "steps": plan.steps, "samples": plan.samples,
              "network_sha256": checkpoints.network_hash(network)}
    done = tables.read_rows(table) if table.exists() else []
    if network.config.dimensions == 2 and not tables.holds(done, wanted):
        for row in evaluate(checkpoint, "ddim", plan.steps, "quadratic", samples=plan.samples, device=device, table=table):
            print(f"{name}: Fréchet distance {row['fd']:.4g} in {row['features']} features")
    samples_picture(checkpoint, picture, n=64, steps=plan.steps, spacing="quadratic", columns=16, enlarge=2, device=device)


if __name__ == "__main__":
    try:
        tyro.cli(build_zoo)
    except KeyboardInterrupt:
        sys.exit("stopped: what was finished is kept; the same line goes on.")
