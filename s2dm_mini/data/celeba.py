"""CelebA (Liu et al., 2015): its archive of photographs, read once into a file of pixels that is mapped into memory.

    images = celeba("train")   # images.pixels (162770, 3, 64, 64) uint8

The archive is untrusted input: no member is unpacked to a file, names and sizes are compared with the list of splits before anything is
read, and the size of a picture is checked before it is decoded. The file of pixels grows under a temporary name, and takes its own name,
with a fingerprint of the archive, when it is complete.
"""
import hashlib
import io
import os
import re
import stat
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from ..support.checks import check_integer, check_name
from ..support.progress import bar
from .images import DataError, Images, data_folder

ARCHIVE, LIST = "img_align_celeba.zip", "list_eval_partition.txt"
SPLITS = ("train", "valid", "test")  # 0, 1 and 2 in the list
INSIDE = "img_align_celeba/"  # the archive's only folder
PHOTOGRAPH = (178, 218)  # width, height
CROP = (89 - 64, 121 - 64, 89 + 64, 121 + 64)  # left, upper, right, lower; as in the DDIM code
MEMBER_BYTES = 1 << 20  # limit of a photograph, packed or not: its bare pixels take 116,412 bytes
BLOCK = 1_000  # photographs that are safely on the disk before the next ones are written


def celeba(split: str = "train", size: int = 64, folder: Path | str | None = None) -> Images:
    """Aligned photographs of faces: 162,770 for training, 19,867 for validation ("valid"), 19,962 for the test; all labels are 0.

    size: the side, 8 to 128 pixels. folder holds the archive and the list of splits as downloaded. As in the DDIM code, 128×128 pixels
    around column 89, row 121 are scaled by Pillow's bilinear filter, which averages; compare distances only for the same crop and filter.
    The first call reads the archive for some minutes; later ones map a file. Writing into the pixels changes this process only.
    Raises ValueError for another split or size, DataError if a file is missing, damaged or not CelebA's.
    """
    check_name("split", split, SPLITS)
    pixels = mapped_pixels(Path(folder) if folder is not None else data_folder(), size)[split]
    return Images(f"celeba{size}-{split}", pixels, torch.zeros(len(pixels), dtype=torch.int64), ("face",))


def mapped_pixels(folder: Path, size: int = 64) -> dict[str, Tensor]:
    """The pixels of each split, (N, 3, size, size) uint8, in the order of the list, mapped from a file, which the first call makes.

    The file stands in `folder` beside the archive and the list, and takes 2.5 GB at 64×64. Of two processes, one makes it and the
    other waits; if it is killed, the next one goes on from the finished part. Raises as `celeba` does.
    """
    check_integer("size", size, 8, CROP[2] - CROP[0], ", the side of the crop from a photograph,")
    archive = folder / ARCHIVE
    if missing := [name for name in (ARCHIVE, LIST) if not os.path.isfile(folder / name)]:
        raise DataError(f"CelebA is not in {folder}, which lacks {' and '.join(missing)}. It has to be downloaded by hand: from the CelebA "
                        f"project page of CUHK's Multimedia Laboratory take {ARCHIVE} (the aligned and cropped images, 1.4 GB) and "
                        f"{LIST}, and put both, the archive not unpacked, into {folder} or into a folder that S2DM_DATA names.")
    split_of = _read_list(folder / LIST)
    try:
        photographs = zipfile.ZipFile(archive)
    # zipfile raises NotImplementedError for unknown versions and compressions of an archive; damaged bytes can look like one.
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError) as error:
        raise DataError(f"{archive} cannot be read as a zip file ({error}): it is cut short, or a web page was saved in its place. "
                        f"Download it again.") from error
    with photographs:
        named = _checked_members(photographs, split_of)
        members = [named[name] for name in sorted(split_of, key=split_of.get)]  # split by split, each in the order of the list
        # A hash of the crop and of the photographs in their order: with the size, they fix the file of pixels.
        contents = f"{CROP} bilinear" + "".join(f"{member.filename} {member.file_size} {member.CRC}\n" for member in members)
        cache = folder / f"celeba{size}-{hashlib.sha256(contents.encode()).hexdigest()[:16]}.npy"
        try:
            if not cache.exists():
                with FileLock(folder / f".{cache.name}.lock"):
                    if not cache.exists():
                        _build(cache, photographs, members, size)
        except OSError as error:
            raise DataError(f"{cache} cannot be written ({error.strerror or error}). It takes {len(members) * 3 * size**2 / 1e9:.1f} GB; "
                            f"the finished part is kept, and the next call goes on from there.") from error
    try:
        pixels = np.load(cache, mmap_mode="c")  # copy on write: torch warns of read-only arrays
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{cache} is damaged ({error}). Delete it; the next call makes it anew.") from error
    if pixels.dtype != np.uint8 or pixels.shape != (len(members), 3, size, size):
        raise DataError(f"{cache} holds {pixels.dtype} of shape {pixels.shape}. Delete it; the next call makes it anew.")
    lengths = np.bincount(list(split_of.values()), minlength=len(SPLITS)).tolist()
    return dict(zip(SPLITS, torch.from_numpy(pixels).split(lengths), strict=True))


def _read_list(path: Path) -> dict[str, int]:
    """The list of splits, one line like `000001.jpg 0` per photograph: name → 0, 1 or 2."""
    split_of: dict[str, int] = {}
    with open(path, encoding="ascii", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            found = re.fullmatch(r"([0-9]{6}\.jpg)\s+([012])\s*", line)
            if not found or found[1] in split_of:
                what = "names a photograph for the second time" if found else "is not like '000001.jpg 0'"
                raise DataError(f"{path}, line {number:,}, {line[:40].strip()!r}, {what}: this is not CelebA's list of splits. "
                                f"Download it again.")
            split_of[found[1]] = int(found[2])
    if not split_of:
        raise DataError(f"{path} is empty: this is not CelebA's list of splits. Download it again.")
    return split_of


def _checked_members(photographs: zipfile.ZipFile, split_of: dict[str, int]) -> dict[str, zipfile.ZipInfo]:
    """Name → member, for exactly the photographs of the list. Reads the archive's table of contents only."""
    members: dict[str, zipfile.ZipInfo] = {}

    def refuse(what: str) -> None:
        raise DataError(f"{photographs.filename} {what}. It must hold exactly the photographs that {LIST} names, as plain JPEG files in "
                        f"{INSIDE}: download both again.")

    for member in photographs.infolist():
        if member.filename == INSIDE:
            continue
        name, size = member.filename.removeprefix(INSIDE), max(member.file_size, member.compress_size)
        for wrong, how in (
            (name == member.filename or name not in split_of, f", which {LIST} does not name"),
            (name in members, " twice"),
            (stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG), " as a link or a device"),
            (member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
             " encrypted or packed in an unusual way"),
            (size > MEMBER_BYTES, f" of {size:,} bytes; a photograph has at most {MEMBER_BYTES:,}"),
        ):
            if wrong:
                refuse(f"holds {member.filename[:60]!r}{how}")
        members[name] = member
    if missing := [name for name in split_of if name not in members]:
        refuse(f"lacks {len(missing):,} of the {len(split_of):,} photographs, {missing[0]} first")
    return members


def _build(cache: Path, photographs: zipfile.ZipFile, members: list[zipfile.ZipInfo], size: int) -> None:
    """Write the file of pixels, going on from the part that an earlier process left.

    Each block is on the disk before the next one begins, so only the last one of a part may be incomplete; it is written again.
    """
    part, head, record = cache.with_name(f"{cache.name}.part"), io.BytesIO(), 3 * size * size
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (len(members), 3, size, size)})
    part.touch()
    done = max(part.stat().st_size - head.tell() - 1, 0) // (BLOCK * record) * BLOCK
    try:
        with open(part, "r+b") as file, bar(f"CelebA, {size}×{size}", len(members), initial=done, unit=" photographs") as progress:
            file.write(head.getvalue())
            file.truncate(head.tell() + done * record)
            file.seek(0, os.SEEK_END)
            for start in range(done, len(members), BLOCK):
                for member in members[start:start + BLOCK]:
                    file.write(_pixels(photographs, member, size).tobytes())
                    progress.update()
                file.flush()
                os.fsync(file.fileno())
        part.replace(cache)
    except DataError:  # this archive is damaged, and its part is of no use to another archive
        part.unlink()
        raise


def _pixels(photographs: zipfile.ZipFile, member: zipfile.ZipInfo, size: int) -> np.ndarray:
    """One photograph, cropped and scaled, (3, size, size) uint8."""
    try:
        with photographs.open(member) as file:
            content = file.read(member.file_size)  # never more than the table of contents states; zipfile then compares the check sum
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            picture = Image.open(io.BytesIO(content), formats=("JPEG",))  # reads the header only
        if picture.size != PHOTOGRAPH or picture.mode != "RGB":
            raise ValueError(f"{picture.mode} of {picture.width}×{picture.height} pixels, not RGB of {PHOTOGRAPH[0]}×{PHOTOGRAPH[1]}")
        scaled = picture.crop(CROP).resize((size, size), Image.Resampling.BILINEAR)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError, Image.DecompressionBombError,
            Image.DecompressionBombWarning) as error:
        raise DataError(f"{photographs.filename}: {member.filename} is damaged or no photograph of CelebA ({error}). "
                        f"Download the archive again.") from error
    return np.asarray(scaled).transpose(2, 0, 1)
