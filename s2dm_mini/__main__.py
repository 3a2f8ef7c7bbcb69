"""The command line: `python -m s2dm_mini COMMAND --help`. Options are made from the same dataclasses and functions."""
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import tyro

from .checkpoints import CheckpointError
from .data import DataError
from .reproduce import ReproductionError, reproduce
from .train import PAPER, TrainConfig, TrainingError, train

Config = Annotated[TrainConfig, tyro.conf.arg(name="")]  # its fields become options without a prefix


def train_command(config: Config, resume: bool = False) -> None:
    """Train a network: `train --minutes 60 --tau 1 --out runs/l0`; --resume goes on where it stopped.

    Args:
        config: what to train, on what, how, for how long
        resume: go on from the checkpoint in --out
    """
    from tqdm import tqdm

    stop: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda *_: stop.append(1) if not stop else signal.default_int_handler(*_))
    first_rank = os.environ.get("RANK", "0") == "0"  # of several processes only one speaks
    records, record = train(config, resume=resume), None
    try:
        with tqdm(total=100, bar_format="{l_bar}{bar}| {elapsed} gone, {remaining} left{postfix}", disable=not first_rank,
                  mininterval=0.5 if sys.stderr.isatty() else 30) as bar:
            for record in records:
                state = f"step {record.step:,}, loss {record.loss:.4f}, {record.images_per_second:,.0f} images/s"
                bar.set_postfix_str(state, refresh=False)
                bar.update(100 * record.progress - bar.n)
                if stop:
                    records.close()
                    then = f"Its state is in {config.out}; --resume goes on." if config.out else "Without --out, nothing was kept."
                    print(f"Stopped after step {record.step:,}. {then}")
                    return
    finally:
        signal.signal(signal.SIGINT, previous)
    if record is None:
        print(f"Nothing left to train: the run in {config.out} has already spent this budget.")
    elif first_rank:
        print(f"Trained {record.step:,} steps, {record.images_seen:,} images, {record.minutes:.1f} minutes; loss {record.loss:.4f}."
              + (f" Network: {config.out / 'model.safetensors'}" if config.out else ""))


def train_paper_command(config: Config = PAPER, resume: bool = False) -> None:
    """Like `train`, with the setting of the released S²-DM code as defaults.

    Args:
        config: what to train, on what, how, for how long
        resume: go on from the checkpoint in --out
    """
    train_command(config, resume)


def sample_command(checkpoint: Annotated[str, tyro.conf.Positional], n: int = 64, sampler: str = "ddim", steps: int = 50,
                   spacing: str = "uniform", eta: float = 0.0, seed: int = 0, columns: int = 8, enlarge: int = 3,
                   out: Path = Path("samples.png"), device: str = "auto") -> None:
    """Draw images from a checkpoint and write them as one PNG.

    Args:
        checkpoint: a shipped network's name, or a file that `train` wrote
        n: number of images
        sampler: see s2dm_mini.samplers
        steps: of the sampler
        spacing: of the timesteps: uniform, quadratic, trailing, logsnr
        eta: noise added by DDIM
        seed: of the starting noise; image i depends on the seed and i only
        columns: images in a row
        enlarge: pixels a pixel
        out: the PNG file
        device: auto, cpu, cuda
    """
    import torch
    from PIL import Image

    from .checkpoints import load_model, load_pretrained, zoo
    from .data import to_pixels
    from .samplers import SAMPLERS, sample
    from .schedule import NoiseSchedule
    from .train import best_device, device_name, seed_of

    if n < 1 or columns < 1 or enlarge < 1:
        raise ValueError(f"n, columns and enlarge must be at least 1, not {n}, {columns}, {enlarge}.")
    place = torch.device(best_device() if device == "auto" else device)
    is_file = checkpoint not in zoo() and Path(checkpoint).suffix == ".safetensors"
    network = load_model(checkpoint, place)[0] if is_file else load_pretrained(checkpoint, place)
    generator = torch.Generator().manual_seed(seed)
    size, channels = network.config.image_size, network.config.image_channels
    x_T = torch.randn(n, channels, size, size, generator=generator).to(place)
    start = time.perf_counter()
    generators = [torch.Generator(place).manual_seed(seed_of(seed, i)) for i in range(n)]
    x = torch.cat([sample(network, x_T[i:i + 64], NoiseSchedule.linear(), sampler, steps, spacing, eta, generators[i:i + 64])
                   for i in range(0, n, 64)])
    pixels = to_pixels(x).cpu()
    seconds = time.perf_counter() - start
    rows = -(-n // columns)
    sheet = torch.full((rows * columns, channels, size, size), 255, dtype=torch.uint8)
    sheet[:n] = pixels
    grid = sheet.reshape(rows, columns, channels, size, size).permute(0, 3, 1, 4, 2).reshape(rows * size, columns * size, channels)
    picture = Image.fromarray(grid.numpy()).resize((columns * size * enlarge, rows * size * enlarge), Image.Resampling.NEAREST)
    out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(out)
    evaluations = SAMPLERS[sampler].nfe(len(NoiseSchedule.linear().timesteps(steps, spacing)))
    print(f"{n} images, {SAMPLERS[sampler].title}, {steps} steps, {evaluations} network evaluations an image, "
          f"{seconds:.1f} s on {device_name(place)}: {out}")


def reproduce_command(only: tuple[str, ...] = (), set: tuple[str, ...] = (), out: Path = Path("build/reproduction")) -> None:
    """Run the notebook series and gather its pictures and checks in index.html.

    Args:
        only: notebooks to run, by the beginning of their names, e.g. 01 02
        set: papermill parameters for the notebooks that have them, e.g. profile=quick seed=1
        out: folder for the executed notebooks and index.html
    """
    print(f"All done: {reproduce(out, only, list(set))}")


def fetch_command(dataset: Annotated[str, tyro.conf.Positional] = "cifar10", folder: Path | None = None) -> None:
    """Download a data set, check it and unpack it.

    Args:
        dataset: cifar10
        folder: where to; by default the folder S2DM_DATA names, else the user's cache folder
    """
    from .data import fetch_cifar10

    if dataset != "cifar10":
        raise ValueError(f"the data set that can be fetched is cifar10, not {dataset!r}.")
    print(f"CIFAR-10 is in {fetch_cifar10(folder)}")


COMMANDS = {"train": train_command, "train-paper": train_paper_command, "sample": sample_command, "reproduce": reproduce_command,
            "fetch": fetch_command}


def main() -> None:
    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="python -m s2dm_mini", description=__doc__)
    except (CheckpointError, DataError, TrainingError, ReproductionError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped.")


if __name__ == "__main__":
    main()
