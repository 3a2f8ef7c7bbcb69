"""Which U-Net draws best after equal CPU time: OMP_NUM_THREADS=1 python tests/benchmarks/networks.py --out runs/networks

Each network trains on CIFAR-10 from nothing with L_0 and the recipe below, on as many images as one core manages in 20 minutes: counted in
images, so that other work on the machine takes nothing from a network. Then it draws images with DDIM, 20 steps of the quadratic grid, from
the same noise as all others of its seed, and the table says how far they are from the training images: less is better. Started again, it
goes on where it stopped.
"""
import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import torch
from levers import SPEED, distances

from s2dm_mini import PRESETS, TrainConfig, UNetConfig, shapes, train
from s2dm_mini.checkpoints import load_model
from s2dm_mini.denoisers import Denoiser
from s2dm_mini.measure.features import OFFLINE, open_features
from s2dm_mini.measure.references import open_reference
from s2dm_mini.support.files import write_whole
from s2dm_mini.support.machine import device_name


@dataclass(frozen=True)
class Rival:
    """A network, and the images a second that it trains on one idle core."""

    unet: UNetConfig
    speed: float  # of an AMD EPYC with bf16 before the trial, its other core busy too; --speeds measures anew


# `nano` as it was, and rivals; all have one norm group and no dropout, as it has.
SMALL = {"norm_groups": 1, "dropout": 0.0}
RIVALS = {
    "nano": Rival(UNetConfig(channels=(32, 64, 64, 64), blocks_per_level=1, **SMALL), SPEED),
    "deeper": Rival(UNetConfig(channels=(32, 64, 128, 128), blocks_per_level=1, attention_levels=(2,), **SMALL), 67.3),
    "two-blocks": Rival(UNetConfig(channels=(24, 48, 96, 96), blocks_per_level=2, attention_levels=(2,), **SMALL), 63.9),
    "wider": Rival(UNetConfig(channels=(48, 96, 96, 96), blocks_per_level=1, **SMALL), 41.5),
}
MINUTES = 20
RECIPE = TrainConfig(tau=1.0, batch=32, learning_rate=1e-3, warmup=100, annealing="cosine", beta2=0.99, weighting="min-snr-5",
                     ema_decay=0.9995, ema_others=(0.995, 0.98), precision="bf16",
                     minutes=MINUTES)


def print_speeds() -> None:
    """Images a second of each network in the recipe's training, after a first record."""
    for name, rival in RIVALS.items():
        PRESETS[name] = rival.unet
        *_, record = train(replace(RECIPE, preset=name, data="shapes", minutes=None, steps=20), shapes(1_000))
        print(f"{name}: {record.images_per_second:.1f} images/s", flush=True)


def judge(folder: Path, seed: int, samples: int) -> dict:
    """Distances of images drawn from the network in the folder, by features, and the facts of its training; kept in a file there."""
    kept = folder / f"distances-{samples}.json"
    if not kept.exists():
        network, record = load_model(folder / "model.safetensors")
        found = {"parameters": sum(p.numel() for p in network.parameters()), "images": record["images_seen"], "loss": record["loss"]}
        write_whole(kept, json.dumps(found | cifar10_distances(network, network.config.shape, seed, samples)).encode())
    return json.loads(kept.read_text(encoding="utf-8"))


def cifar10_distances(network: Denoiser, shape: tuple[int, int, int], seed: int, samples: int) -> dict[str, float]:
    """Fréchet distances to CIFAR-10 in all features that work offline."""
    return distances(network, shape, samples, seed, {f: open_reference("cifar10", 32, f) for f in map(open_features, OFFLINE)})


def table(found: dict[str, list[dict]]) -> str:
    """One row a network: the Fréchet distance in each of the features, means over the seeds, single values behind them."""
    kinds = [key for key in next(iter(found.values()))[0] if key not in ("parameters", "images", "loss")]
    lines = [f"| network | parameters | images | {' | '.join(kinds)} |", "| --- | ---: | ---: |" + " ---: |" * len(kinds)]
    for name, seeds in found.items():
        cells = [f"{seeds[0][key]:,}" for key in ("parameters", "images")]
        for key in kinds:
            values = [row[key] for row in seeds]
            cells.append(f"{mean(values):.4g} ({', '.join(f'{value:.4g}' for value in values)})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=RIVALS, default=list(RIVALS))
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path("runs/networks"))
    parser.add_argument("--speeds", action="store_true", help="only measure how fast each network trains here")
    args = parser.parse_args()
    if args.speeds:
        print_speeds()
        return
    found = {name: [] for name in args.only}
    for seed in args.seeds:
        for name in args.only:
            PRESETS[name] = RIVALS[name].unet
            out = args.out / name / f"seed-{seed}"
            config = replace(RECIPE, preset=name, minutes=None, images=round(MINUTES * 60 * RIVALS[name].speed), seed=seed, out=out)
            for record in train(config, resume=(out / "state.safetensors").exists()):
                if record.step % 100 == 0 or record.progress == 1:
                    print(f"{name}, seed {seed}: {record.images_seen:,} images in {record.minutes:.1f} minutes, loss {record.loss:.4f}",
                          flush=True)
            found[name].append(judge(out, seed, args.samples))
    print(f"\n{device_name(torch.device('cpu'))}; {args.samples} images drawn, seeds {args.seeds}; Fréchet distances, not FID"
          f"\n\n{table(found)}")


if __name__ == "__main__":
    main()
