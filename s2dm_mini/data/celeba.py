"""CelebA (Liu et al., 2015): its archive of photographs, read once into a file of pixels that is mapped into memory.

    images = celeba("train")   # images.pixels (162770, 3, 64, 64) uint8

The archive is untrusted input: no member is unpacked to a file, names and sizes are compared with the list of splits before anything is
read, and the size of a picture is checked before it is decoded. The file of pixels grows under a temporary name, beside a note of its
finished part, and takes its own name, with a fingerprint of the archive, when it is complete.
"""
import hashlib
import io
import os
import re
import stat
import struct
import sys
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from ..support.checks import check_name
from ..support.files import write_whole
from .images import DataError, Images, data_folder

ARCHIVE, LIST = "img_align_celeba.zip", "list_eval_partition.txt"
SPLITS = ("train", "valid", "test")  # 0, 1 and 2 in the list
INSIDE = "img_align_celeba/"  # the archive's only folder
PHOTOGRAPH = (178, 218)  # width, height
CROP = (89 - 64, 121 - 64, 89 + 64, 121 + 64)  # left, upper, right, lower; as in the DDIM code
MEMBER_BYTES = 1 << 20  # limit of a photograph, packed or not: its bare pixels take 116,412 bytes
BLOCK = 1_000  # photographs between two notes of the finished part


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
    if not 8 <= size <= CROP[2] - CROP[0]:
        raise ValueError(f"size must be 8 to {CROP[2] - CROP[0]}, the side of the crop from a photograph, not {size}.")
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
        cache = folder / f"celeba{size}-{_fingerprint(members)}.npy"
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
        name, shown = member.filename.removeprefix(INSIDE), repr(member.filename[:60])
        if member.filename == INSIDE:
            continue
        if not member.filename.startswith(INSIDE) or name not in split_of:
            refuse(f"holds {shown}, which {LIST} does not name")
        if name in members:
            refuse(f"holds {shown} twice")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            refuse(f"holds {shown} as a link or a device")
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            refuse(f"holds {shown} encrypted or packed in an unusual way")
        if (size := max(member.file_size, member.compress_size)) > MEMBER_BYTES:
            refuse(f"holds {shown} of {size:,} bytes; a photograph has at most {MEMBER_BYTES:,}")
        members[name] = member
    if missing := [name for name in split_of if name not in members]:
        refuse(f"lacks {len(missing):,} of the {len(split_of):,} photographs, {missing[0]} first")
    return members


def _fingerprint(members: list[zipfile.ZipInfo]) -> str:
    """16 digits of a hash of the photographs in their order and of the crop: with the size, they fix the file of pixels."""
    digest = hashlib.sha256(f"{CROP} bilinear".encode())
    for member in members:
        digest.update(f"{member.filename} {member.file_size} {member.CRC}\n".encode())
    return digest.hexdigest()[:16]


def _build(cache: Path, photographs: zipfile.ZipFile, members: list[zipfile.ZipInfo], size: int) -> None:
    """Write the file of pixels, going on from the finished part that an earlier process left."""
    from tqdm import tqdm

    part, note = cache.with_name(f"{cache.name}.part"), cache.with_name(f"{cache.name}.position")
    start = io.BytesIO()
    np.lib.format.write_array_header_1_0(start, {"descr": "|u1", "fortran_order": False, "shape": (len(members), 3, size, size)})
    head, record = start.getvalue(), 3 * size * size
    part.touch()
    try:
        noted = int(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        noted = 0
    # Photographs after the noted position may be incomplete: their writer was killed.
    done = max(0, min(noted, (part.stat().st_size - len(head)) // record))
    try:
        with open(part, "r+b") as file, tqdm(total=len(members), initial=done, unit=" photographs", desc=f"CelebA, {size}×{size}",
                                             mininterval=0.5 if sys.stderr.isatty() else 30) as bar:
            file.write(head)
            file.truncate(len(head) + done * record)
            file.seek(0, os.SEEK_END)
            write_whole(note, str(done).encode())
            while done < len(members):
                block = members[done:done + BLOCK]
                for member in block:
                    file.write(_pixels(photographs, member, size).tobytes())
                    bar.update()
                file.flush()
                os.fsync(file.fileno())
                done += len(block)
                write_whole(note, str(done).encode())
        note.unlink()
        part.replace(cache)
    except DataError:  # this archive is damaged, and its part is of no use to another archive
        note.unlink()
        part.unlink()
        raise


def _pixels(photographs: zipfile.ZipFile, member: zipfile.ZipInfo, size: int) -> np.ndarray:
    """One photograph, cropped and scaled, (3, size, size) uint8."""
    try:
        with photographs.open(member) as file:
            content = file.read(member.file_size)  # never more than the table of contents states; zipfile then compares the check sum
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError) as error:
        raise DataError(f"{photographs.filename}: {member.filename} is damaged ({error}). Download the archive again.") from error
    try:
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            picture = Image.open(io.BytesIO(content), formats=("JPEG",))  # reads the header only
        if picture.size != PHOTOGRAPH or picture.mode != "RGB":
            raise DataError(f"{photographs.filename}: {member.filename} is {picture.mode} of {picture.width}×{picture.height} pixels, but "
                            f"CelebA's aligned photographs are RGB of {PHOTOGRAPH[0]}×{PHOTOGRAPH[1]}. Download {ARCHIVE} again.")
        scaled = picture.crop(CROP).resize((size, size), Image.Resampling.BILINEAR)
    except (OSError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{photographs.filename}: {member.filename} is not a JPEG picture, only part of one, or one of a forbidding size. "
                        f"Download the archive again.") from error
    return np.asarray(scaled).transpose(2, 0, 1)
