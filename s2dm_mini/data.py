"""Images as uint8 tensors: CIFAR-10 from its official binary files, CelebA from its archive, and `shapes`, drawn on the spot.

    images = cifar10("train")        # images.pixels (50000, 3, 32, 32) uint8, images.labels (50000,)
    images = celeba("train")         # images.pixels (162770, 3, 64, 64) uint8, mapped into memory
    images = shapes(5_000, seed=0)   # images.factors: what each scene was drawn from

CIFAR-10 and CelebA are looked for in the folder named by S2DM_DATA, else in the user's cache folder; `fetch_cifar10` puts the first
there, the second has to be downloaded by hand.
"""
import gzip
import hashlib
import io
import math
import os
import sys
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .arguments import check_floating, check_generator, check_integer, check_name, check_number, check_pixels, check_seed, shown
from .files import sole_writer, write_whole

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
RECORD_BYTES, RECORDS_PER_FILE = 1 + 3 * 32 * 32, 10_000  # label byte, then red, green and blue planes, row by row


class DataError(Exception):
    """Data that is missing or not what it should be; the message says which file and what to do."""


@dataclass
class Images:
    """A data set in memory, or mapped into it."""

    name: str
    pixels: Tensor  # (N, 3, H, W) uint8
    labels: Tensor  # (N,) int64
    classes: tuple[str, ...]
    factors: dict[str, Tensor] = field(default_factory=dict)  # for `shapes`: name → (N,) float32

    def __len__(self) -> int:
        return len(self.pixels)

    def augment(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What training sees of some of the pixels, (B, 3, H, W) uint8: float32 −1..1, each mirrored with probability one half."""
        return random_flip(to_unit_range(pixels), generator)


def to_unit_range(pixels: Tensor) -> Tensor:
    """uint8 0..255 → float32 −1..1, the range the networks are trained in. Any shape."""
    check_pixels("pixels", pixels, "(...)")
    return pixels.float() / 127.5 - 1


def to_pixels(x: Tensor) -> Tensor:
    """Float −1..1 → uint8 0..255, rounded; what lies outside is clipped. Any shape."""
    check_floating("x", x, "(...)", empty=True)
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def random_flip(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Mirror each image left to right with probability one half. x: (B, C, H, W)."""
    if not isinstance(x, Tensor) or x.ndim != 4:
        raise ValueError(f"x must be a tensor (B, C, H, W), not {shown(x)}.")
    check_generator(generator)
    flip = torch.rand(len(x), generator=generator, device=x.device) < 0.5
    return torch.where(flip[:, None, None, None], x.flip(3), x)


# ---------------------------------------------------------------------------------------------------- CIFAR-10

def data_folder() -> Path:
    """Where data sets are kept: the folder named by S2DM_DATA, else the user's cache folder."""
    if os.environ.get("S2DM_DATA"):
        return Path(os.environ["S2DM_DATA"]).expanduser()
    import pooch

    return Path(pooch.os_cache("s2dm_mini"))


def cifar10(split: str = "train", folder: Path | str | None = None) -> Images:
    """CIFAR-10 (Krizhevsky, 2009): 50,000 training or 10,000 test images of 10 classes, 32×32.

    folder holds `cifar-10-batches-bin/` (or is that folder). Raises DataError if a file is missing or damaged.
    """
    check_name("split", split, CIFAR10_FILES)
    folder = Path(folder) if folder is not None else data_folder()
    batches = folder / "cifar-10-batches-bin"
    if not batches.is_dir() and (folder / CIFAR10_FILES[split][0]).exists():
        batches = folder
    records = np.concatenate([_read_cifar10_file(batches / name) for name in CIFAR10_FILES[split]])
    pixels = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy())
    return Images(f"cifar10-{split}", pixels, torch.from_numpy(records[:, 0].astype(np.int64)), CIFAR10_CLASSES)


def _read_cifar10_file(path: Path) -> np.ndarray:
    """One file as (10000, 3073) uint8, refused unless size and labels are right."""
    try:
        size = path.stat().st_size
    except OSError:
        raise DataError(f"CIFAR-10 is not at {path.parent}: {path.name} is missing. Run `python -m s2dm_mini fetch cifar10`, or put "
                        f"the folder cifar-10-batches-bin of cifar-10-binary.tar.gz ({CIFAR10_URL}) into {path.parent.parent} "
                        f"or into a folder that S2DM_DATA names.") from None
    if size != RECORD_BYTES * RECORDS_PER_FILE:
        raise DataError(f"{path} has {size:,} bytes; a CIFAR-10 batch has exactly {RECORD_BYTES * RECORDS_PER_FILE:,}. "
                        f"Delete it and run `python -m s2dm_mini fetch cifar10` again.")
    records = np.fromfile(path, dtype=np.uint8).reshape(RECORDS_PER_FILE, RECORD_BYTES)
    if records[:, 0].max() > 9:
        bad = int((records[:, 0] > 9).argmax())
        raise DataError(f"{path}: image {bad:,} has label {records[bad, 0]}, but CIFAR-10 has labels 0 to 9. "
                        f"This is not a CIFAR-10 binary file (CIFAR-100 has the same name ending).")
    return records


def fetch_cifar10(folder: Path | str | None = None) -> Path:
    """Download CIFAR-10's binary archive (162 MB), check its MD5, unpack it; returns the folder of the .bin files.

    Files that are already there and whole are left alone; of two processes one waits. Raises DataError if there is no network or no room.
    """
    folder = Path(folder) if folder is not None else data_folder()
    batches = folder / "cifar-10-batches-bin"
    files = [batches / name for split in CIFAR10_FILES.values() for name in split]
    if not _whole(files):
        with sole_writer(batches, *files, wait=True):
            if not _whole(files):  # nor has the process that this one waited for put them there
                unpack_cifar10(_download_cifar10(folder), folder)
    return batches


def _whole(files: list[Path]) -> bool:
    return all(file.is_file() and file.stat().st_size == RECORD_BYTES * RECORDS_PER_FILE for file in files)


def _download_cifar10(folder: Path) -> Path:
    """The archive, in a folder of its own: there the temporary files of a download that was killed can be told from the user's."""
    import pooch

    downloads = folder / "cifar-10-archive"
    for left in downloads.glob("tmp*"):
        left.unlink()
    try:
        return Path(pooch.retrieve(CIFAR10_URL, f"md5:{CIFAR10_MD5}", fname="cifar-10-binary.tar.gz", path=downloads,
                                   progressbar=sys.stderr.isatty()))
    except Exception as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise DataError(f"CIFAR-10 could not be downloaded ({reason}). Where there is a network, download {CIFAR10_URL} "
                        f"(MD5 {CIFAR10_MD5}), unpack it, and put its folder cifar-10-batches-bin into {folder}, or name the "
                        f"folder it is in by S2DM_DATA.") from error


def unpack_cifar10(archive: Path, folder: Path) -> None:
    """Unpack the six .bin files of the archive into folder/cifar-10-batches-bin, once all six are read and found whole.

    Only plain files of the expected name and size are read, by name; links, other paths and anything else in the
    archive are never touched. What the archive unpacks to is cut off where six files would long be through, so that no bomb fills the
    memory, and all sizes are looked at before anything is written. Raises DataError.
    """
    size = RECORD_BYTES * RECORDS_PER_FILE
    names = [name for split in CIFAR10_FILES.values() for name in split]
    target, limit = folder / "cifar-10-batches-bin", 8 * size  # six files, the readme and the names of the classes
    try:
        with gzip.open(archive) as stream:
            unpacked = stream.read(limit + 1)  # to the end, where gzip compares its check sum
        if len(unpacked) > limit:
            raise DataError(f"{archive} unpacks to more than {limit:,} bytes: it is not CIFAR-10's binary archive. Delete it and run "
                            f"`python -m s2dm_mini fetch cifar10` again.")
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:  # plain: a second packing inside is not CIFAR-10's
            members = {}
            for member in tar:
                inside, _, name = member.name.removeprefix("./").rpartition("/")
                if inside != "cifar-10-batches-bin" or name not in names or not member.isreg():
                    continue
                if member.size != size:
                    raise DataError(f"{archive}: {member.name} has {member.size:,} bytes, not {size:,}.")
                members[name] = member
            if missing := [name for name in names if name not in members]:
                raise DataError(f"{archive} lacks {', '.join(missing)}: it is not CIFAR-10's binary archive.")
            for name, member in members.items():
                write_whole(target / name, tar.extractfile(member).read())
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{archive} could not be unpacked into {target} ({reason}). Is it whole, and is there room on the disk?") from error


# ------------------------------------------------------------------------------------------------------ CelebA

def celeba(split: str = "train", size: int = 64, folder: Path | str | None = None) -> Images:
    """CelebA (Liu et al., 2015), aligned: 162,770 training, 19,867 validation or 19,962 test photographs of faces.

    split: train, valid or test. size: the side, 8 to 128 pixels. folder holds the archive and the list of its splits as they were
    downloaded. As in the DDIM code, the 128×128 pixels around column 89, row 121 of each photograph are scaled to size×size bilinearly,
    in Pillow's sense: halving takes a mean over four pixels each way, weighted 1, 3, 3, 1, so that nothing finer than the new
    pixels comes through as a pattern. Distances to published ones mean something only with the same crop and the same scaling.

    The first call reads the archive for some minutes (celeba.py); after that pixels are mapped from a file, read from the disk
    as they are needed, and what is written into them stays in this process. CelebA has attributes, not classes: all labels are 0.
    Raises DataError if a file is missing or damaged.
    """
    from .celeba import SPLITS, mapped_pixels  # which imports this module

    check_name("split", split, SPLITS)
    pixels = mapped_pixels(Path(folder) if folder is not None else data_folder(), size)[split]
    return Images(f"celeba{size}-{split}", pixels, torch.zeros(len(pixels), dtype=torch.int64), ("face",))


# ------------------------------------------------------------------------------------------------------ shapes

SHAPES = ("disc", "square", "triangle", "cross")
MAX_SIZE, MAX_BYTES = 2048, 4 << 30  # of a scene's side, of all scenes


def shapes(n: int = 5_000, size: int = 32, seed: int = 0) -> Images:
    """Scenes of one coloured shape on a plain ground, drawn from known factors: a data set without a download.

    Factors, each (n,) float32, drawn uniformly: `shape` (0..3, see SHAPES), `hue` (0..1, around the colour circle),
    `radius` (0.3..0.6 of half the width), `x`, `y` (centre, −0.35..0.35), `background` (0.25..0.75, its grey).
    Labels are the shape. The same (n, size, seed) gives the same pixels; the factors do not depend on size.
    """
    n, size = check_integer("n", n, 0), check_integer("size", size, 8, MAX_SIZE)
    if 3 * n * size**2 > MAX_BYTES:
        raise ValueError(f"n = {n:,} scenes of {size}×{size} take {3 * n * size**2 / 2**30:,.0f} GiB; the limit is {MAX_BYTES >> 30}.")
    generator = torch.Generator().manual_seed(check_seed(seed))
    u = torch.rand(n, 6, generator=generator)  # (n, 6)
    factors = {"shape": (u[:, 0] * len(SHAPES)).floor().clamp(max=len(SHAPES) - 1), "hue": u[:, 1], "radius": 0.3 + 0.3 * u[:, 2],
               "x": 0.7 * u[:, 3] - 0.35, "y": 0.7 * u[:, 4] - 0.35, "background": 0.25 + 0.5 * u[:, 5]}
    some = max(500 * 32**2 // size**2, 1)  # at a time, so that what is calculated with stays small beside the result
    pixels = torch.cat([_draw({k: v[i:i + some] for k, v in factors.items()}, size) for i in range(0, max(n, 1), some)])
    return Images(f"shapes{size}", pixels, factors["shape"].long(), SHAPES, factors)


def draw_shapes(factors: dict[str, Tensor], size: int = 32) -> Tensor:
    """Draw one scene for each row of factors: names as in `shapes`, and ranges, but radius and place may lie outside, and hue turn on.

    Returns (n, 3, size, size) uint8.
    """
    size = check_integer("size", size, 1, MAX_SIZE)
    limits = {"shape": (0, len(SHAPES) - 1), "hue": (-100, 100), "radius": (0, 2), "x": (-2, 2), "y": (-2, 2), "background": (0, 1)}
    if not isinstance(factors, dict) or not limits.keys() <= factors.keys():
        raise ValueError(f"factors must be tensors (n,) called {', '.join(limits)}, not {shown(factors)}.")
    for name, (low, high) in limits.items():
        value = factors[name]
        if not isinstance(value, Tensor) or value.is_complex() or value.ndim != 1 or len(value) != len(factors["shape"]):
            raise ValueError(f"{name} must be a tensor (n,), one number a scene, not {shown(value)}.")
        if not bool(((value >= low) & (value <= high)).all()):
            raise ValueError(f"{name} must lie in [{low}, {high}] for every scene, not {shown(value.tolist())}.")
    return _draw(factors, size)


def _draw(factors: dict[str, Tensor], size: int) -> Tensor:
    axis = (torch.arange(size) + 0.5) / size * 2 - 1  # pixel centres, −1..1
    column = {name: value.float()[:, None, None] for name, value in factors.items()}  # (n, 1, 1)
    dx, dy = axis[None, None, :] - column["x"], axis[None, :, None] - column["y"]  # (n, 1, size), (n, size, 1)
    r, kind = column["radius"], column["shape"]
    # Signed distance to each outline, negative inside; all four have about the same area.
    far, near = torch.maximum(dx.abs(), dy.abs()), torch.minimum(dx.abs(), dy.abs())
    square = far - 0.89 * r
    slanted = torch.maximum(math.sqrt(0.75) * dx.abs() - 0.5 * dy, dy) - 0.64 * r
    arms = torch.maximum(near - 0.34 * r, far - 1.15 * r)
    disc = (dx.square() + dy.square()).sqrt() - r
    distance = torch.where(kind == 0, disc, torch.where(kind == 1, square, torch.where(kind == 2, slanted, arms)))  # (n, size, size)
    cover = (0.5 - distance * size / 2).clamp(0, 1)[:, None]  # share of the pixel inside, so that edges are smooth
    # Hue as three cosines a third of a circle apart: every hue equally bright, no hard colour boundary.
    phase = torch.tensor([0.0, 1 / 3, 2 / 3])[None, :, None, None]
    colour = 0.5 + 0.45 * torch.cos(2 * math.pi * (column["hue"][:, None] - phase))  # (n, 3, 1, 1)
    return ((cover * colour + (1 - cover) * column["background"][:, None]) * 255).round().to(torch.uint8)


# ------------------------------------------------------------------------------------------------------ points

def ring_means(k: int = 8, radius: float = 1.0) -> Tensor:
    """k centres on a circle, (k, 2) float64: the means of the mixture that `points("ring")` draws from."""
    k, radius = check_integer("k", k, 1, MAX_POINTS), check_number("radius", radius)
    angle = torch.arange(k, dtype=torch.float64) / k * 2 * math.pi
    return radius * torch.stack([angle.cos(), angle.sin()], dim=1)


RING_STD = 0.1
POINTS = ("ring", "moons", "spiral", "checkerboard")
MAX_POINTS = 10_000_000


def points(name: str = "ring", n: int = 1_000, seed: int = 0) -> Tensor:
    """2-D data, (n, 2) float32, roughly within −1..1: `ring` (8 Gaussians of std 0.1), `moons`, `spiral`, `checkerboard`."""
    check_name("name", name, POINTS)
    n, generator = check_integer("n", n, 0, MAX_POINTS), torch.Generator().manual_seed(check_seed(seed))
    u, noise = torch.rand(n, 2, generator=generator), torch.randn(n, 2, generator=generator)
    if name == "ring":
        x = ring_means()[(u[:, 0] * 8).long().clamp(max=7)].float() + RING_STD * noise
    elif name == "moons":
        upper, angle = u[:, 1] < 0.5, math.pi * u[:, 0]
        x = torch.where(upper[:, None], torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1),
                        torch.stack([0.5 - angle.cos(), 0.25 - angle.sin()], 1)) * 0.65 + 0.05 * noise
    elif name == "spiral":
        angle = 3 * math.pi * u[:, 0].sqrt()
        x = (angle / (3 * math.pi))[:, None] * torch.stack([angle.cos(), angle.sin()], 1) + 0.02 * noise
    else:
        column = (u[:, 0] * 4).floor()
        row = 2 * (u[:, 1] * 2).floor() + column % 2  # every second of the 4 × 4 cells
        x = torch.stack([u[:, 0] * 4, row + u[:, 1] * 2 % 1], 1) / 2 - 1
    return x


def fingerprint(images: Images) -> str:
    """SHA-256 of the pixels and labels, first 16 digits: which data a checkpoint or a result rests on."""
    digest = hashlib.sha256(images.pixels.contiguous().numpy())
    digest.update(images.labels.contiguous().numpy())
    return digest.hexdigest()[:16]
