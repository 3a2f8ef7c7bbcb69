"""Measures which levers bring quality in a fixed time: python tests/benchmarks/levers.py --size full --out runs/levers

One lever is changed at a time; each network trains from the same start on the same budget and draws images with
DDIM in 20 steps of the quadratic grid from the same noise, and `distance` says how far they lie from the data: less is better.

    quick  shapes, `tiny`, 8,000 images: some minutes on a CPU
    cpu    CIFAR-10, `nano` from nothing, as many images as one CPU core manages in 5 minutes: two hours for all with 2 seeds
    full   CIFAR-10, `compact`, 10 minutes of one GPU for each training

In the last row of `quick` and `full` diffusers' plain loop (see speed.py) trains the same network from the same weights on three times
the budget; for a CPU see peers.py. Beside the distance in the package's own features the table has the change in all others.
--together NAME NAME adds a row in which these levers are changed at once. Started again, only what is missing is run, and a
training cut short goes on from its last checkpoint; diffusers' starts afresh.
"""
import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

import torch
from speed import diffusers_training

from s2dm_mini import PRESETS, NoiseSchedule, TrainConfig, UNet, for_sampling, train
from s2dm_mini.checkpoints import load_model, load_pretrained
from s2dm_mini.data import Images, load_data
from s2dm_mini.denoisers import Denoiser
from s2dm_mini.interop import as_denoiser, to_diffusers
from s2dm_mini.measure.draw import draw
from s2dm_mini.measure.features import OFFLINE, Features, open_features
from s2dm_mini.measure.metrics import frechet_distance
from s2dm_mini.measure.references import Reference, open_reference, reference
from s2dm_mini.support.files import write_whole
from s2dm_mini.support.machine import best_device, device_name, seed_of


@dataclass(frozen=True)
class Size:
    """The setting that levers are changed in, and how many images are drawn to judge it."""

    base: TrainConfig
    decays: tuple[float, ...]  # of further EMA of the first training, to try; with `ema_ramp` those near 1 are never reached in a short run
    samples: int
    fp32: float | None = None  # images a second in fp32, over those in bf16: the lever sees fewer images in the same time
    peer: bool = True


FAST = ("own", "pixels", "spectrum")  # features for other data than CIFAR-10
SPEED = 75.6  # images/s of `nano` in bf16 on one core of an AMD EPYC, see networks.py
# τ = 1: the levers concern any loss. `full` starts from the paper's batch, learning rate and EMA, the others from what lets some hundred
# steps learn anything.
SIZES = {
    "quick": Size(TrainConfig(data="shapes", preset="tiny", tau=1.0, batch=16, learning_rate=2e-3, warmup=50, images=8_000),
                  decays=(0.9,), samples=1_000),
    "cpu": Size(TrainConfig(data="cifar10", preset="nano", tau=1.0, batch=32, learning_rate=1e-3, warmup=100, annealing="cosine",
                            beta2=0.99, weighting="min-snr-5", ema_decay=0.995, precision="bf16", images=round(5 * 60 * SPEED)),
                decays=(0.98,), samples=512, fp32=0.6, peer=False),  # 0.995 and more are never reached in 709 steps
    "full": Size(TrainConfig(data="cifar10", preset="compact", tau=1.0, minutes=10), decays=(0.9995, 0.999), samples=10_000),
}
STEPS = 20
PEER, PEER_BUDGET = "diffusers, 3 × the budget", 3


def levers(size: Size) -> dict[str, dict]:
    """Each lever's name, and the fields of TrainConfig that it changes."""
    base = size.base
    others = {"weighting": ("uniform", "min-snr-5", "p2"), "annealing": ("none", "cosine"), "beta2": (0.99, 0.999)}
    return {
        "base": {},
        **{f"ema-{decay}": {"ema_decay": decay} for decay in size.decays},
        "lr-x3": {"learning_rate": 3 * base.learning_rate},
        "lr-third": {"learning_rate": base.learning_rate / 3},
        "batch-x2": {"batch": 2 * base.batch},
        "batch-half": {"batch": base.batch // 2},
        **{f"{field}-{value}": {field: value} for field, values in others.items() for value in values if value != getattr(base, field)},
        **({"fp32": {"precision": "fp32", "images": round(size.fp32 * base.images)}} if size.fp32 else {}),
    }


# ------------------------------------------------------------------------------------------------------ distance

def distances(network: Denoiser, shape: tuple[int, int, int], n: int, seed: int, judges: dict[Features, Reference],
              device: str = "cpu") -> dict[str, float]:
    """Fréchet distances of n images drawn from the network to the real ones, by features. shape: of an image, (C, H, W)."""
    drawn = torch.cat(list(draw(for_sampling(network), n, shape, NoiseSchedule.linear(), "ddim", STEPS, seed=seed, device=device)))
    return {features.name: frechet_distance(real.moments, features(drawn)) for features, real in judges.items()}


# ------------------------------------------------------------------------------------------------------ training

def our_network(config: TrainConfig, images: Images) -> tuple[UNet, dict]:
    """The averaged network at the end of the training in config.out, gone on with if it was begun; and its record."""
    for _ in train(config, images, resume=(config.out / "state.safetensors").exists()):
        pass
    network, record = load_model(config.out / "model.safetensors", best_device() if config.device == "auto" else config.device)
    return network, {key: record[key] for key in ("images_seen", "minutes", "loss", "device")}


def other_average(config: TrainConfig, images: Images) -> tuple[UNet, dict]:
    """The average with the decay config.ema_decay that the training without any lever kept beside its own; costs no training."""
    path = config.out.parents[1] / "base" / config.out.name / f"model-ema-{config.ema_decay:g}.safetensors"
    network, record = load_model(path, best_device() if config.device == "auto" else config.device)
    return network, {key: record[key] for key in ("images_seen", "minutes", "loss", "device")}


def their_network(config: TrainConfig, images: Images) -> tuple[Denoiser, dict]:
    """The same for diffusers' loop on PEER_BUDGET times the budget."""
    device = best_device() if config.device == "auto" else config.device
    torch.manual_seed(seed_of(config.seed, 2))
    network = to_diffusers(load_pretrained(config.start).requires_grad_(True) if config.start else UNet(PRESETS[config.preset]))
    start = time.monotonic()
    for turn, ema in enumerate(diffusers_training(network, images, config, device), 1):
        seen, minutes = turn * config.log_every * config.batch, (time.monotonic() - start) / 60
        if seen >= PEER_BUDGET * (config.images or float("inf")) or minutes >= PEER_BUDGET * (config.minutes or float("inf")):
            ema.copy_to(network.parameters())
            break
    return as_denoiser(network.eval()), {"images_seen": seen, "minutes": minutes, "device": device_name(torch.device(device))}


def result(make: Callable[[TrainConfig, Images], tuple[Denoiser, dict]], config: TrainConfig, images: Images,
           judge: Callable[[Denoiser, int], dict[str, float]]) -> dict:
    """Train, draw, judge; or read what was found before."""
    path = config.out / "result.json"
    if not path.exists():
        torch.compiler.reset()  # the networks before this one are done with
        network, record = make(config, images)
        found = judge(network, config.seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({"distances": found, **record}, indent=1).encode())
    return json.loads(path.read_text(encoding="utf-8"))


# --------------------------------------------------------------------------------------------------------- table

def with_error(values: list[float]) -> str:
    """mean ± standard error over the seeds."""
    error = f" ± {stdev(values) / len(values) ** 0.5:.3g}" if len(values) > 1 else ""
    return f"{mean(values):.4g}{error}"


def table(results: dict[str, list[dict]], changes: dict[str, dict]) -> str:
    """One row a lever: the distance in the first features, and its change from base in percent in all, seed by seed, which share noise."""
    first, *_ = kinds = list(results["base"][0]["distances"])
    titles = [first, *(f"{kind}, %" for kind in kinds), "images seen", "minutes"]
    lines = [f"| lever | change | {' | '.join(titles)} |", f"| --- | --- |{' ---: |' * len(titles)}"]
    for name, found in results.items():
        change = ", ".join(f"{key} = {value:g}" if isinstance(value, float) else f"{key} = {value}"
                           for key, value in changes.get(name, {}).items())
        paired = [[100 * (row["distances"][kind] / base["distances"][kind] - 1) for row, base in zip(found, results["base"], strict=True)]
                  for kind in kinds]
        cells = [with_error([row["distances"][first] for row in found]), *("" if name == "base" else with_error(one) for one in paired),
                 f"{mean(row['images_seen'] for row in found):,.0f}", f"{mean(row['minutes'] for row in found):.1f}"]
        lines.append(f"| {name} | {change} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="quick")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--images", type=int, help="the budget of a training, instead of the size's")
    parser.add_argument("--minutes", type=float, help="the same, in minutes")
    parser.add_argument("--together", nargs="+", default=[], help="names of levers to change at once")
    parser.add_argument("--out", type=Path, default=Path("runs/levers"))
    args = parser.parse_args()
    size = SIZES[args.size]
    base = size.base if args.images is args.minutes is None else replace(size.base, images=args.images, minutes=args.minutes)
    changes = levers(size)
    if unknown := set(args.together) - set(changes):
        parser.error(f"there is no lever {min(unknown)}; there are {', '.join(changes)}.")
    if args.together:
        changes[" + ".join(args.together)] = {key: value for name in args.together for key, value in changes[name].items()}
    unet = PRESETS[base.preset]
    images = load_data(base.data, unet.image_size)
    cifar10 = base.data == "cifar10"
    judges = {features: open_reference("cifar10", 32, features) if cifar10 else reference(images, features)
              for features in map(open_features, OFFLINE if cifar10 else FAST)}

    def judge(network: Denoiser, seed: int) -> dict[str, float]:
        device = best_device() if base.device == "auto" else base.device
        return distances(network, unet.shape, size.samples, seed, judges, device)

    budget = f"{base.minutes:g}-minutes" if base.minutes else f"{base.images}-images"
    results = {name: [] for name in [*changes, *([PEER] if size.peer else [])]}
    for seed in range(args.seeds):
        for name in results:
            folder = args.out / f"{args.size}-{budget}" / name.replace(" ", "") / f"seed-{seed}"
            config = replace(base, **changes.get(name, {}), seed=seed, out=folder, ema_others=size.decays if name == "base" else ())
            make = their_network if name == PEER else other_average if name.startswith("ema-") else our_network
            found = result(make, config, images, judge)
            results[name].append(found)
            print(f"seed {seed}, {name}: {found['distances']} after {found['minutes']:.1f} minutes", flush=True)
    print(f"\n{results['base'][0]['device']}; {args.size}, {budget.replace('-', ' ')}, {size.samples:,} images drawn; "
          f"{args.seeds} seeds, mean ± standard error. Fréchet distances, not FID\n")
    print(table(results, changes))


if __name__ == "__main__":
    main()
