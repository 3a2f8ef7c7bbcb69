"""The zoo, the networks that the package ships: trained, measured, drawn and entered in the manifest by one command.

    python -m s2dm_mini zoo --size cpu --out runs/zoo

A family's base is trained with L_0. Its twins are fine-tuned from the base with one seed, one for each setting of the loss: all see the
same images, timesteps and noise ε₁, and differ only in the loss.
"""
import json
from dataclasses import replace
from pathlib import Path

from .. import checkpoints
from ..support.checks import check_name
from ..support.files import sole_writer, write_whole
from ..training.config import TrainConfig
from ..training.watched import train_with_bar
from . import tables
from .evaluate import evaluate, samples_picture
from .plan import SETTINGS, ZOO_SIZES, Family


def build_zoo(size: str = "quick", out: Path = Path("runs/zoo"), only: tuple[str, ...] = (), ship: bool = False, device: str = "auto",
              table: Path | None = None) -> Path:
    """Train, measure and draw the networks that the package ships; the same command goes on after a stop.

    Args:
        size: quick (a CPU, minutes, shapes), cpu (a CPU, hours, CIFAR-10), full (one GPU, three quarters of an hour, CIFAR-10)
        out: folder for the trainings
        only: members to make, by the beginning of their names, e.g. nano-cifar10-s2dm10; their base is trained in any case
        ship: copy them into data/checkpoints, where load_pretrained finds them, and their pictures into data/pictures
        device: auto, cpu, cuda
        table: CSV file for the measurements; by default data/results/evaluations.csv
    """
    check_name("size", size, ZOO_SIZES)
    plans, table = ZOO_SIZES[size], table or tables.RESULTS / "evaluations.csv"
    wanted = {family: [twin for twin in plan.twins if not only or f"{family}-{twin}".startswith(only)] for family, plan in plans.items()}
    if not any(wanted.values()):
        members = ", ".join(f"{family}-{twin}" for family, plan in plans.items() for twin in plan.twins)
        raise ValueError(f"no member of the size {size} starts with {' or '.join(only)}; there are {members}.")
    with sole_writer(out / "zoo"):
        for family, twins in wanted.items():
            plan, tune, base = plans[family], plans[family].tune, out / f"{family}-base"
            if twins:
                train_to_end(replace(plan.base, out=base, device=device), base.name)
            for twin in twins:
                path, start = out / f"{family}-{twin}" / "model.safetensors", (base / "model.safetensors").as_posix()
                train_to_end(SETTINGS[twin].training(tune, start=start, out=path.parent, device=device), path.parent.name)
                # With a budget of minutes, the first twin sets the number of images for the others.
                tune = replace(tune, images=checkpoints.load_model(path)[1]["images_seen"], minutes=None)
                _show(path.parent.name, path, plan, ship, device, table)
    return out


def train_to_end(config: TrainConfig, title: str) -> None:
    """Begin a training, or go on with the one in config.out, until its budget is spent. Raises KeyboardInterrupt if stopped before."""
    begun = (Path(config.out) / "state.safetensors").exists()
    train_with_bar(config, resume=begun, title=title)


def _show(name: str, path: Path, plan: Family, ship: bool, device: str, table: Path) -> None:
    """Measure a member, unless the table has it or it makes signals (study.signals measures those), and draw 64 samples of it."""
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


def add_to_zoo(path: Path | str, name: str) -> Path:
    """Copy a trained network into the zoo and enter it, with its training record, in the manifest."""
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
