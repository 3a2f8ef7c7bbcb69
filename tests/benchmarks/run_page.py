"""The course of a training: python tests/benchmarks/run_page.py runs/flagship --name nano-cifar10-l0

For each network that `train --keep-images` kept on the way, and the last: its distances from the training images in all features that work
offline, as rows of data/results/run-NAME.csv, and 64 pictures from the same noises, one block below another, in
data/pictures/run-NAME.png. Rows that the table has are not measured again.
"""
import argparse
import io
from pathlib import Path

import torch
from PIL import Image

from s2dm_mini.checkpoints import images_seen, load_model, network_hash
from s2dm_mini.plots import tile
from s2dm_mini.study import tables
from s2dm_mini.study.evaluate import Bench, evaluate
from s2dm_mini.support.files import write_whole

PICTURES, COLUMNS, GAP = 64, 16, 8  # of a block; dots between two blocks


def kept(folder: Path) -> dict[int, Path]:
    """Images seen → file of the averaged network, in the order of the training; the last network ends it."""
    found = {images_seen(load_model(path)[1]): path for path in (*folder.glob("model-at-*.safetensors"), folder / "model.safetensors")}
    return dict(sorted(found.items()))


def blocks(networks: dict[int, Path], steps: int, seed: int) -> Image.Image:
    """The pictures of each network, from the same noises."""
    drawn = [torch.as_tensor(tile(Bench(str(path), "auto").draw(PICTURES, "ddim", steps, "quadratic", seed=seed)[0], COLUMNS))
             for path in networks.values()]  # (rows·32, COLUMNS·32, 3) each
    between = torch.full((GAP, *drawn[0].shape[1:]), 255, dtype=torch.uint8)
    whole = torch.cat([part for block in drawn for part in (between, block)][1:])
    return Image.fromarray(whole.numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--samples", type=int, default=1_024)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=tables.RESULTS)
    args = parser.parse_args()

    table, networks = args.results / f"run-{args.name}.csv", kept(args.folder)
    have = tables.read_rows(table) if table.exists() else []
    for images, path in networks.items():
        if not tables.holds(have, {"network_sha256": network_hash(load_model(path)[0]), "samples": args.samples}):
            evaluate(str(path), steps=args.steps, samples=args.samples, seed=args.seed, table=table)
        print(f"{images:,} images: measured", flush=True)
    file, picture = io.BytesIO(), args.results.with_name("pictures") / f"run-{args.name}.png"
    blocks(networks, args.steps, args.seed).save(file, "PNG", optimize=True)
    write_whole(picture, file.getvalue())
    print(picture)


if __name__ == "__main__":
    main()
