"""Which U-Net draws best after equal CPU time: OMP_NUM_THREADS=1 python tests/benchmarks/networks.py --out runs/networks

Each network trains on CIFAR-10 from nothing with L_0 and the recipe below, on as many images as one core manages in 20 minutes: counted in
images, so that other work on the machine takes nothing from a network. Started again, it goes on where it stopped.
"""
import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from s2dm_mini import PRESETS, TrainConfig, UNetConfig, train


@dataclass(frozen=True)
class Rival:
    """A network, and the images a second that it trains on one idle core."""

    unet: UNetConfig
    speed: float  # of an AMD EPYC without bf16, 64 images a batch, float32


# `nano` as it was, and rivals; all have one norm group and no dropout, as it has.
SMALL = {"norm_groups": 1, "dropout": 0.0}
RIVALS = {
    "nano": Rival(UNetConfig(channels=(32, 64, 64, 64), blocks_per_level=1, **SMALL), 29.1),
    "deeper": Rival(UNetConfig(channels=(32, 64, 128, 128), blocks_per_level=1, attention_levels=(2,), **SMALL), 28.6),
    "two-blocks": Rival(UNetConfig(channels=(24, 48, 96, 96), blocks_per_level=2, attention_levels=(2,), **SMALL), 28.1),
    "wider": Rival(UNetConfig(channels=(48, 96, 96, 96), blocks_per_level=1, **SMALL), 14.2),
}
MINUTES = 20
RECIPE = TrainConfig(tau=1.0, batch=32, learning_rate=1e-3, warmup=100, annealing="cosine", beta2=0.99, weighting="min-snr-5",
                     ema_decay=0.9995, ema_others=(0.995, 0.98), precision="fp32",
                     minutes=MINUTES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=RIVALS, default=list(RIVALS))
    parser.add_argument("--out", type=Path, default=Path("runs/networks"))
    args = parser.parse_args()
    for seed in args.seeds:
        for name in args.only:
            PRESETS[name] = RIVALS[name].unet
            out = args.out / name / f"seed-{seed}"
            config = replace(RECIPE, preset=name, minutes=None, images=round(MINUTES * 60 * RIVALS[name].speed), seed=seed, out=out)
            for record in train(config, resume=(out / "state.safetensors").exists()):
                if record.step % 100 == 0 or record.progress == 1:
                    print(f"{name}, seed {seed}: {record.images_seen:,} images in {record.minutes:.1f} minutes, loss {record.loss:.4f}",
                          flush=True)


if __name__ == "__main__":
    main()
