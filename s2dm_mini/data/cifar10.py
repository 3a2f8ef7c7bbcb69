"""CIFAR-10 (Krizhevsky, 2009) from its official binary files: reading, downloading, unpacking."""
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import torch

from ..support.checks import check_name
from ..support.files import sole_writer, write_whole
from ..support.network import answers
from .images import DataError, Images, data_folder

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
NAMES = [*CIFAR10_FILES["train"], *CIFAR10_FILES["test"]]
BATCHES = "cifar-10-batches-bin"  # the folder of the files, in the archive too
PYTHON_VERSION = ("cifar-10-batches-py", "cifar-10-python.tar.gz")
RECORD_BYTES, RECORDS_PER_FILE = 1 + 3 * 32 * 32, 10_000  # a label byte, then red, green and blue planes, row by row


def cifar10(split: str = "train", folder: Path | str | None = None) -> Images:
    """CIFAR-10: 50,000 training ("train") or 10,000 test images ("test") of 10 classes, 32×32.

    folder holds `cifar-10-batches-bin/` or is that folder; by default `data_folder()`. Raises ValueError for another split, DataError if
    a file is missing or damaged.
    """
    check_name("split", split, CIFAR10_FILES)
    batches = _batches(Path(folder) if folder is not None else data_folder())
    records = np.concatenate([_read_cifar10_file(batches / name) for name in CIFAR10_FILES[split]])
    pixels = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy())
    return Images(f"cifar10-{split}", pixels, torch.from_numpy(records[:, 0].astype(np.int64)), CIFAR10_CLASSES)


def _batches(folder: Path) -> Path:
    """The folder of the .bin files: `folder` itself if it holds one, else `cifar-10-batches-bin` in it."""
    itself = not os.path.isdir(folder / BATCHES) and any(os.path.exists(folder / name) for name in NAMES)
    return folder if itself else folder / BATCHES


def _read_cifar10_file(path: Path) -> np.ndarray:
    """One file as (10000, 3073) uint8, after its size and labels are checked."""
    try:
        size = path.stat().st_size
    except OSError:
        home = path.parent.parent
        python = [f" {name}, CIFAR-10 for Python, holds pickles; reading them would run code." for name in PYTHON_VERSION
                  if os.path.exists(home / name)]
        raise DataError(f"CIFAR-10 is not at {path.parent}: {path.name} is missing.{''.join(python)} Run `python -m s2dm_mini fetch "
                        f"cifar10`, or put the folder {BATCHES} of {CIFAR10_URL} into {home} or into one that S2DM_DATA names.") from None
    if size != _file_bytes():
        raise DataError(f"{path} has {size:,} bytes; a CIFAR-10 batch has exactly {_file_bytes():,}. "
                        f"Delete it and run `python -m s2dm_mini fetch cifar10` again.")
    records = np.fromfile(path, dtype=np.uint8).reshape(RECORDS_PER_FILE, RECORD_BYTES)
    if records[:, 0].max() > 9:
        bad = int((records[:, 0] > 9).argmax())
        raise DataError(f"{path}: image {bad:,} has label {records[bad, 0]}, but CIFAR-10 has labels 0 to 9. "
                        f"This is not a CIFAR-10 binary file (CIFAR-100 has the same name ending).")
    return records


def _download(url: str, *where) -> None:
    import pooch

    if not answers(url):
        raise OSError(0, "its server does not answer")
    pooch.HTTPDownloader(timeout=10, progressbar=sys.stderr.isatty())(url, *where)


def fetch_cifar10(folder: Path | str | None = None) -> Path:
    """Download CIFAR-10's binary archive (162 MB), check its MD5, unpack it. Returns the folder of the .bin files.

    Complete files are left alone; of two processes one waits. Raises DataError without a network, WriteError without room on the disk.
    """
    import pooch

    folder = Path(folder) if folder is not None else data_folder()
    batches, downloads = _batches(folder), folder / "cifar-10-archive"  # a folder of its own: leftovers in it are not the user's
    files = [batches / name for name in NAMES]

    def whole() -> bool:
        return all(file.is_file() and file.stat().st_size == _file_bytes() for file in files)

    if not whole():
        with sole_writer(batches, *files, wait=True):
            if not whole():  # another process, for which this one waited, may have written them
                for left in downloads.glob("tmp*"):  # by a killed download
                    left.unlink()
                try:
                    archive = pooch.retrieve(CIFAR10_URL, f"md5:{CIFAR10_MD5}", fname="cifar-10-binary.tar.gz", path=downloads,
                                             downloader=_download)
                except Exception as error:
                    reason = getattr(error, "strerror", None) or type(error).__name__
                    raise DataError(f"CIFAR-10 could not be downloaded ({reason}). Where there is a network, download {CIFAR10_URL} "
                                    f"(MD5 {CIFAR10_MD5}), unpack it, and put its folder {BATCHES} into {folder}, or name the folder "
                                    f"it is in by S2DM_DATA.") from error
                with tarfile.open(archive) as tar:
                    for file in files:
                        write_whole(file, tar.extractfile(f"{BATCHES}/{file.name}").read())
    return batches


def _file_bytes() -> int:
    return RECORD_BYTES * RECORDS_PER_FILE
