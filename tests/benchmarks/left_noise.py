"""Is it the noise left in? python tests/benchmarks/left_noise.py runs/ledger/scratch

S²-DM^50 makes fine detail stronger. This script takes the ledger's samples of the L_0 networks, with and without its factor s_t, in 10 DDIM
steps from the same x_T, and makes three sets more of them:

l0, noise      L_0's samples with white noise, as strong as brings their power at 12 to 16 cycles to that of S²-DM^50's samples
s2dm50, even   S²-DM^50's samples, each frequency scaled to the mean power that it has in L_0's samples
l0, noise, even   the noisy ones scaled so too: what scaling leaves where noise is all there is. Added when the others were known

data/pictures/left-noise.png shows 10 of each set, in this order below those of L_0 and of S²-DM^50, of the first network and grid.
Rows of data/results/left-noise.csv say how far each set is from CIFAR-10's training images, in all features that work offline. The rule,
fixed before the first row: in one kind of features the change by S²-DM^50 *is the noise* where noise alone changes the distance in the
same direction, and where the even samples keep less than half of the change; both with the 95 % interval over the networks (Student's t).
"""
import argparse
import io
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from s2dm_mini.checkpoints import read_tensors
from s2dm_mini.measure.features import OFFLINE, _rings, open_features, ring_powers
from s2dm_mini.measure.metrics import frechet_distance
from s2dm_mini.measure.references import open_reference
from s2dm_mini.plots import tile
from s2dm_mini.study import tables
from s2dm_mini.support.files import write_whole
from s2dm_mini.support.machine import device_name

STEPS, SPACINGS, FINE = 10, ("quadratic", "uniform"), slice(11, 16)  # rings of 12 to 16 cycles
COLUMNS = 10  # of the picture


def to_bytes(pixels: Tensor) -> Tensor:
    return pixels.round().clamp(0, 255).to(torch.uint8)


def noisy(pixels: Tensor, like: Tensor) -> tuple[Tensor, float]:
    """The pixels (N, 3, H, H) with white noise, whose fine detail then has the power of `like`; and its grey levels."""
    missing = (ring_powers(like) - ring_powers(pixels)).mean(0)[FINE].mean()  # σ² in each ring
    sigma = float(missing.clamp(min=0).sqrt())
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    return to_bytes(pixels + sigma * noise), sigma


def even(pixels: Tensor, like: Tensor) -> Tensor:
    """The pixels (N, 3, H, H) with the mean power spectrum of `like`. The mean of a picture stays; corners go with the last ring."""
    side = pixels.shape[-1]
    gain = (ring_powers(like).mean(0) / ring_powers(pixels).mean(0)).sqrt()  # (H/2,), of 1, 2, … cycles
    waves = torch.fft.rfft2(pixels.double()) * torch.cat([gain.new_ones(1), gain])[_rings(side).clamp(max=side // 2)]
    return to_bytes(torch.fft.irfft2(waves, s=(side, side)))


def picture(sets: dict[str, Tensor]) -> bytes:
    """PNG: a row of pictures from each set, from the same x_T."""
    file = io.BytesIO()
    Image.fromarray(tile(torch.cat([pixels[:COLUMNS] for pixels in sets.values()]), COLUMNS)).save(file, "PNG", optimize=True)
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the ledger's networks and samples")
    parser.add_argument("--table", type=Path, default=tables.RESULTS / "left-noise.csv")
    args = parser.parse_args()
    shown = args.table.parent.with_name("pictures") / "left-noise.png"
    judges = [(features, open_reference("cifar10", 32, features)) for features in map(open_features, OFFLINE)]
    for of_network in sorted((args.folder / "samples").glob("l0.*")):
        for spacing in SPACINGS:
            l0, s2dm50 = (read_tensors(of_network / f"{scale}.ddim.{spacing}.0" / f"{STEPS}.safetensors")[0]["pixels"]
                          for scale in ("none", "s2dm50"))
            with_noise, sigma = noisy(l0, s2dm50)
            sets = {"l0": l0, "s2dm50": s2dm50, "l0, noise": with_noise, "s2dm50, even": even(s2dm50, l0),
                    "l0, noise, even": even(with_noise, l0)}
            if not shown.exists():
                write_whole(shown, picture(sets))
            place = {"training_seed": of_network.suffix[1:], "sampler": "ddim", "spacing": spacing, "steps": STEPS, "samples": len(l0)}
            for features, real in judges:
                for name, pixels in sets.items():
                    key = {**place, "images": name, "features_sha256": features.hash}
                    if not (args.table.exists() and tables.holds(tables.read_rows(args.table), key)):
                        distance = frechet_distance(real.moments, features(pixels))
                        tables.append_row(args.table, {**key, "noise": f"{sigma:.3f}", "features": features.name, "fd": f"{distance:.6g}",
                                                       "device": device_name(torch.device("cpu"))})
            print(f"network {of_network.name}, {spacing}: noise of {sigma:.2f} grey levels", flush=True)


if __name__ == "__main__":
    main()
