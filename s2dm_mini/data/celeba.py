"""CelebA (Liu et al., 2015): its archive of photographs, read once into a file of pixels that is mapped into memory.

    images = celeba("train")   # images.pixels (162770, 3, 64, 64) uint8

The archive is downloaded by hand. Before anything in it is read, it is held against the MD5 of the published one.
"""
import hashlib
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..support.checks import check_integer, check_name
from ..support.files import sole_writer
from ..support.progress import bar
from .images import DataError, Images, data_folder

ARCHIVE, ARCHIVE_MD5 = "img_align_celeba.zip", "00d2c5bc6d35e252742224ab0c1e8fcb"
SPLITS = {"train": 162_770, "valid": 19_867, "test": 19_962}  # photographs 000001.jpg to 202599.jpg in this order
CROP = (89 - 64, 121 - 64, 89 + 64, 121 + 64)  # left, upper, right, lower; as in the DDIM code


def celeba(split: str = "train", size: int = 64, folder: Path | str | None = None) -> Images:
    """Aligned photographs of faces: 162,770 for training, 19,867 for validation ("valid"), 19,962 for the test; all labels are 0.

    size: the side, 8 to 128 pixels. folder holds the archive as downloaded. As in the DDIM code, 128×128 pixels around column 89, row 121
    are scaled by Pillow's bilinear filter, which averages; compare distances only for the same crop and filter.
    The first call reads the archive for some minutes into a file beside it, of 2.5 GB at 64×64; of two processes, one waits. Later calls
    map that file and need no archive. Writing into the pixels changes this process only.
    Raises ValueError for another split or size, DataError if a file is missing, damaged or not CelebA's, and WriteError.
    """
    check_name("split", split, SPLITS)
    check_integer("size", size, 8, CROP[2] - CROP[0], ", the side of the crop from a photograph,")
    cache = (Path(folder) if folder is not None else data_folder()) / f"celeba{size}.npy"
    if not cache.exists():
        _check_archive(cache.parent)
        with sole_writer(cache, wait=True):
            if not cache.exists():  # another process, for which this one waited, may have written it
                _build(cache, size)
    try:
        pixels = np.load(cache, mmap_mode="c")  # copy on write: torch warns of read-only arrays
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{cache} is damaged ({error}). Delete it; the next call makes it anew.") from error
    if pixels.dtype != np.uint8 or pixels.shape != (sum(SPLITS.values()), 3, size, size):
        raise DataError(f"{cache} holds {pixels.dtype} of shape {pixels.shape}. Delete it; the next call makes it anew.")
    pixels = dict(zip(SPLITS, torch.from_numpy(pixels).split(list(SPLITS.values())), strict=True))[split]
    return Images(f"celeba{size}-{split}", pixels, torch.zeros(len(pixels), dtype=torch.int64), ("face",))


def _check_archive(folder: Path) -> None:
    archive = folder / ARCHIVE
    if not archive.is_file():
        raise DataError(f"CelebA is not in {folder}, which lacks {ARCHIVE}. It has to be downloaded by hand: from the CelebA project page "
                        f"of CUHK's Multimedia Laboratory take the aligned and cropped images, 1.4 GB, and put the archive, not unpacked, "
                        f"into {folder} or into a folder that S2DM_DATA names.")
    with open(archive, "rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != ARCHIVE_MD5:
        raise DataError(f"{archive} is not CelebA's: its MD5 is {found}, not {ARCHIVE_MD5}. It is cut short or packed anew, or a web page "
                        f"was saved in its place. Download it again.")


def _build(cache: Path, size: int) -> None:
    """Write the file of pixels, under another name until it is whole."""
    part, n = cache.with_name(f"{cache.name}.new.part"), sum(SPLITS.values())
    try:
        with (open(part, "wb") as file, zipfile.ZipFile(cache.with_name(ARCHIVE)) as photographs,
              bar(f"CelebA, {size}×{size}", n, unit=" photographs") as progress):
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (n, 3, size, size)})
            for i in range(1, n + 1):
                with photographs.open(f"img_align_celeba/{i:06}.jpg") as photograph:
                    scaled = Image.open(photograph).crop(CROP).resize((size, size), Image.Resampling.BILINEAR)
                file.write(np.asarray(scaled).transpose(2, 0, 1).tobytes())
                progress.update()
        part.replace(cache)
    except OSError as error:
        raise DataError(f"{cache} cannot be written ({error.strerror or error}). It takes {n * 3 * size**2 / 1e9:.1f} GB: make room, then "
                        f"call again.") from error
    finally:
        part.unlink(missing_ok=True)
