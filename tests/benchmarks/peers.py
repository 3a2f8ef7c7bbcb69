"""diffusers' example of training and ours, on equal CPU time: OMP_NUM_THREADS=1 python tests/benchmarks/peers.py --out runs/peers

Both train on CIFAR-10 from nothing, on one core, in bf16, on as many images as it manages in the minutes of the table: counted in images,
so that other work on the machine takes nothing from a side. Then each draws images with DDIM, 20 steps of the quadratic grid, from the
same noise; the table says how far they are from the training images in each of the features: less is better.

ours    `nano` and the recipe of networks.py, for 30 minutes, and from nothing again for 10
theirs  the U-Net of the example with a quarter of its channels, which costs as many operations an image as `nano`, and its defaults:
        batch 16, AdamW (learning rate 1e-4, β 0.95 and 0.999, weight decay 1e-6), 500 steps of warm-up, cosine decay, its EMA; 30 minutes

Started again, it goes on where it stopped.
"""
import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from networks import RECIPE, RIVALS, cifar10_distances, judge, table

from s2dm_mini import train
from s2dm_mini.data import load_data, to_unit_range
from s2dm_mini.interop import as_denoiser
from s2dm_mini.support.files import write_whole
from s2dm_mini.support.machine import device_name, seed_of

MINUTES = (10, 30)  # ours; theirs has the longer time
BATCH, SPEED = 16, 52.1  # theirs; images a second of one idle core of an AMD EPYC, as in networks.py
SAVE_STEPS = 1_000


def their_network() -> UNet2DModel:
    """The U-Net of the example, a quarter as wide."""
    return UNet2DModel(sample_size=32, in_channels=3, out_channels=3, layers_per_block=2, block_out_channels=(32, 32, 64, 64, 128, 128),
                       down_block_types=(*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"),
                       up_block_types=("UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4))


def train_theirs(images: int, seed: int, folder: Path) -> UNet2DModel:
    """The averaged network after so many images, (images // BATCH) steps; goes on from folder/state.pt."""
    torch.manual_seed(seed_of(seed, 2))
    network, schedule, steps = their_network(), DDPMScheduler(), images // BATCH
    pixels = load_data("cifar10", 32).pixels  # (N, 3, 32, 32)
    ema = EMAModel(network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    rate = get_cosine_schedule_with_warmup(optimizer, 500, steps)
    parts, begun, state = {"network": network, "ema": ema, "optimizer": optimizer, "rate": rate}, 0, folder / "state.pt"
    if state.exists():
        saved = torch.load(state, weights_only=True)
        begun = saved.pop("step")
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    for step in range(begun, steps):
        # As in `train`, the seed and the step alone decide what is random, so that a resumed run needs no generator's state.
        turn, place = divmod(step, len(pixels) // BATCH)
        order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed_of(seed, 1, turn)))
        torch.manual_seed(seed_of(seed, 0, step))
        clean = to_unit_range(pixels[order[place * BATCH:(place + 1) * BATCH]])  # (B, 3, 32, 32)
        clean = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, clean.flip(3), clean)
        eps, t = torch.randn_like(clean), torch.randint(0, 1000, (BATCH,))
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.mse_loss(network(schedule.add_noise(clean, eps, t), t).sample.float(), eps)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        ema.step(network.parameters())
        if (step + 1) % SAVE_STEPS == 0 or step + 1 == steps:
            print(f"theirs, seed {seed}: {(step + 1) * BATCH:,} images, loss {loss.item():.4f}", flush=True)
            folder.mkdir(parents=True, exist_ok=True)
            torch.save({name: part.state_dict() for name, part in parts.items()} | {"step": step + 1}, state.with_suffix(".new"))
            state.with_suffix(".new").replace(state)
    ema.copy_to(network.parameters())
    return network.eval().requires_grad_(False)


def theirs(images: int, seed: int, samples: int, folder: Path) -> dict:
    """Their distances and the facts of their training, as `networks.judge` has ours; kept in a file there."""
    kept = folder / f"distances-{samples}.json"
    if not kept.exists():
        network = train_theirs(images, seed, folder)
        found = {"parameters": network.num_parameters(), "images": images // BATCH * BATCH, "loss": None}
        write_whole(kept, json.dumps(found | cifar10_distances(as_denoiser(network), (3, 32, 32), seed, samples)).encode())
    return json.loads(kept.read_text(encoding="utf-8"))


def ours(images: int, seed: int, samples: int, folder: Path) -> dict:
    """Train `nano` by the recipe and judge it."""
    config = replace(RECIPE, preset="nano", minutes=None, images=images, seed=seed, out=folder)
    for record in train(config, resume=(folder / "state.safetensors").exists()):
        if record.step % 500 == 0:
            print(f"ours, seed {seed}: {record.images_seen:,} images, loss {record.loss:.4f}", flush=True)
    return judge(folder, seed, samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--share", type=float, default=1.0, help="of the time, to try the script")
    parser.add_argument("--out", type=Path, default=Path("runs/peers"))
    args = parser.parse_args()

    found = {name: [] for name in (*(f"ours, {minutes} minutes" for minutes in MINUTES), f"theirs, {MINUTES[-1]} minutes")}
    for seed in args.seeds:
        for name, rows in found.items():
            side, minutes = name.split(", ")
            make, speed = (ours, RIVALS["nano"].speed) if side == "ours" else (theirs, SPEED)
            images = round(args.share * 60 * speed * int(minutes.split()[0]))
            rows.append(make(images, seed, args.samples, args.out / name.replace(", ", "-").replace(" ", "-") / f"seed-{seed}"))
    print(f"\n{device_name(torch.device('cpu'))}; {args.samples} images drawn, seeds {args.seeds}; Fréchet distances, not FID"
          f"\n\n{table(found)}")


if __name__ == "__main__":
    main()
