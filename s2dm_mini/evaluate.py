"""Draw many samples from a network and measure how far they are from real pictures: one row of the ledger (results.py)."""
import io
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn

from . import checkpoints, data, metrics, results
from .features import ClassifierFeatures, InceptionFeatures
from .files import write_whole
from .losses import Denoiser
from .progress import watched
from .samplers import SAMPLERS, sample
from .schedule import NoiseSchedule
from .train import best_device, device_name, load_data, seed_of
from .unet import for_sampling

BLOCK = 50  # images whose starting noise is drawn together


def starting_noise(n: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """x_T for n images, (n, *shape), drawn on the CPU. Image i depends on the seed and i only, on every device and whatever n."""
    blocks = [torch.randn(BLOCK, *shape, generator=torch.Generator().manual_seed(seed_of(seed, block))) for block in range(-(-n // BLOCK))]
    return torch.cat(blocks)[:n]


def draw(denoiser: Denoiser, n: int, shape: tuple[int, ...], schedule: NoiseSchedule, sampler: str = "ddim", steps: int = 50,
         spacing: str = "quadratic", eta: float = 0.0, seed: int = 0, device: torch.device | str = "cpu",
         batch: int | None = None) -> Iterator[Tensor]:
    """Draw n images of (C, H, W) in batches, yielding each as pixels (B, C, H, W) uint8 on the CPU; signals (C, L) as they come, float.

    Every model given the same seed starts from the same noise, so that differences between models are paired. batch: by default
    64 on a CPU, 500 on a GPU; it changes nothing but how sums are rounded.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}.")
    device = torch.device(device)
    batch = batch or (64 if device.type == "cpu" else 500)
    random = SAMPLERS[sampler].order == 0 or eta > 0 if sampler in SAMPLERS else False
    for i, x_T in zip(range(0, n, batch), starting_noise(n, shape, seed).split(batch), strict=True):
        noise = [torch.Generator(device).manual_seed(seed_of(seed, 1, j)) for j in range(i, i + len(x_T))] if random else None
        x = sample(denoiser, x_T.to(device), schedule, sampler, steps, spacing, eta, noise)
        yield (data.to_pixels(x) if x.ndim == 4 else x).cpu()


def draw_watched(title: str, denoiser: Denoiser, n: int, shape: tuple[int, ...], schedule: NoiseSchedule, sampler: str, steps: int,
                 spacing: str, **options) -> Tensor:
    """All that `draw` yields, (n, C, H, W) uint8 or (n, C, L) floating, under a bar; further options as there."""
    evaluations = n * SAMPLERS[sampler].nfe(len(schedule.timesteps(steps, spacing))) if sampler in SAMPLERS else 0  # `draw` refuses those
    with watched(denoiser, evaluations, title) as counted:
        return torch.cat(list(draw(counted, n, shape, schedule, sampler, steps, spacing, **options)))


def open_network(checkpoint: str, device: torch.device | str = "cpu") -> tuple[nn.Module, dict]:
    """A network and the record of its training, by shipped name or by the file that `train` wrote."""
    is_file = checkpoint not in checkpoints.zoo() and Path(checkpoint).suffix == ".safetensors"
    return checkpoints.load_model(checkpoint if is_file else checkpoints.pretrained_file(checkpoint), device)


def open_features(name: str, device: torch.device | str = "cpu") -> ClassifierFeatures | InceptionFeatures:
    """`classifier` (the package's own), `inception` (downloads), or the TorchScript file of an Inception network."""
    if name == "classifier":
        return ClassifierFeatures(device=device)
    if name == "inception":
        return InceptionFeatures(device=device)
    if Path(name).suffix in (".pt", ".pth"):
        return InceptionFeatures(name, device)
    raise ValueError(f"features must be classifier, inception or a TorchScript file (.pt), not {name!r}.")


def open_reference(data_name: str, size: int, features: ClassifierFeatures | InceptionFeatures) -> metrics.Reference:
    """What samples are compared with: the training pictures; for CIFAR-10 in the package's own features no data set is needed.

    Raises ValueError for CelebA in the package's own features.
    """
    if data_name == "celeba" and isinstance(features, ClassifierFeatures):
        raise ValueError("faces are not measured in the features of a CIFAR-10 classifier, which sees 32×32 pixels and knows no faces; "
                         "use features = inception, or a TorchScript file of Inception.")
    if data_name == "cifar10" and isinstance(features, ClassifierFeatures):
        return metrics.reference("cifar10-train", features)
    return metrics.reference(load_data(data_name, size), features)


def evaluate(checkpoint: str, sampler: str = "ddim", steps: int = 50, spacing: str = "quadratic", eta: float = 0.0, samples: int = 5_000,
             seed: int = 0, features: str = "classifier", device: str = "auto", table: Path | None = None) -> dict:
    """Measure a checkpoint, append the row to `table` (data/results/evaluations.csv by default), and return it.

    seconds counts the sampling only. Distances are nan where the samples are too few for them.
    """
    place = torch.device(best_device() if device == "auto" else device)
    network, record = open_network(checkpoint, place)
    extract = open_features(features, place)
    config, schedule = record["config"], checkpoints.schedule_of(record)
    if network.config.dimensions == 1:
        raise ValueError(f"{checkpoint} makes signals, and the features that distances are measured in are of pictures; "
                         f"`python -m s2dm_mini compare-signals` measures signals.")
    real = open_reference(config["data"], network.config.image_size, extract)
    shape = network.config.shape

    start = time.perf_counter()
    pixels = draw_watched(f"sampling {checkpoint}", for_sampling(network), samples, shape, schedule, sampler, steps, spacing, eta=eta,
                          seed=seed, device=place)
    seconds = time.perf_counter() - start
    x = extract(pixels)
    kid, kid_deviation = metrics.kernel_distance(real.features, x)
    precision, recall = metrics.precision_recall(real.features, x)
    row = {
        "checkpoint": checkpoint, "data": record["data"],
        "preset": config["preset"], "skip": config["skip"], "tau": config["tau"], "reading": config["reading"],
        "training_seed": config["seed"], "images_seen": checkpoints.images_seen(record),
        "network_sha256": checkpoints.network_hash(network),
        "sampler": sampler, "spacing": spacing, "eta": eta, "steps": steps,
        "nfe": SAMPLERS[sampler].nfe(len(schedule.timesteps(steps, spacing))), "samples": samples, "sampling_seed": seed,
        "features": extract.name, "features_sha256": extract.hash, "fd": round(metrics.frechet_distance(real.moments, x), 5),
        "fd_infinite": round(metrics.frechet_distance_infinite(real.moments, x), 5) if samples >= 4 * x.shape[1] else float("nan"),
        "kid": round(kid, 7), "kid_deviation": round(kid_deviation, 7), "precision": round(precision, 4), "recall": round(recall, 4),
        "seconds": round(seconds, 2), "device": device_name(place), "torch": torch.__version__, "commit": checkpoints.git_commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
    }
    results.append_row(table or results.RESULTS / "evaluations.csv", row)
    return row


def samples_picture(checkpoint: str, out: Path, n: int = 64, sampler: str = "ddim", steps: int = 50, spacing: str = "quadratic",
                    eta: float = 0.0, seed: int = 0, columns: int = 8, enlarge: int = 3, device: str = "auto") -> str:
    """Draw n images (or signals, as curves) from a checkpoint, side by side, into one PNG; returns a sentence on what it took."""
    if columns < 1 or enlarge < 1:
        raise ValueError(f"columns and enlarge must be at least 1, not {columns} and {enlarge}.")
    place = torch.device(best_device() if device == "auto" else device)
    network, record = open_network(checkpoint, place)
    schedule, shape = checkpoints.schedule_of(record), network.config.shape
    start = time.perf_counter()
    drawn = draw_watched(f"sampling {checkpoint}", network, n, shape, schedule, sampler, steps, spacing, eta=eta, seed=seed, device=place)
    seconds = time.perf_counter() - start
    file = io.BytesIO()
    if network.config.dimensions == 1:
        from .plots import signal_grid

        signal_grid(drawn, columns).savefig(file, format="png")
    else:
        _sheet(drawn, columns, enlarge).save(file, "PNG")
    write_whole(out, file.getvalue())
    evaluations = SAMPLERS[sampler].nfe(len(schedule.timesteps(steps, spacing)))
    return (f"{n} {'images' if network.config.dimensions == 2 else 'signals'}, {SAMPLERS[sampler].title}, {steps} steps, "
            f"{evaluations} network evaluations each, {seconds:.1f} s on {device_name(place)}: {out}")


def _sheet(pixels: Tensor, columns: int, enlarge: int):
    """Images (N, C, S, S) uint8 as one picture, `columns` a row, white where there are none."""
    from PIL import Image

    n, channels, size, _ = pixels.shape
    rows = -(-n // columns)
    sheet = torch.full((rows * columns, channels, size, size), 255, dtype=torch.uint8)
    sheet[:n] = pixels
    grid = sheet.reshape(rows, columns, channels, size, size).permute(0, 3, 1, 4, 2).reshape(rows * size, columns * size, channels)
    return Image.fromarray(grid.numpy()).resize((columns * size * enlarge, rows * size * enlarge), Image.Resampling.NEAREST)
