"""CIFAR-10 (Krizhevsky, 2009) from its official binary files: read, downloaded, unpacked."""
import gzip
import io
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import torch

from ..support.checks import check_name
from ..support.files import sole_writer, write_whole
from .images import DataError, Images, data_folder

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
RECORD_BYTES, RECORDS_PER_FILE = 1 + 3 * 32 * 32, 10_000  # label byte, then red, green and blue planes, row by row


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
