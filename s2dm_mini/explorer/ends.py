"""The two ends of a strip: noise drawn from a seed, or a picture encoded as noise by inversion."""
import io
import warnings
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..data.images import to_unit_range
from ..data.shapes import MAX_SIZE
from ..latents import REFINEMENTS, interpolate, invert
from ..support.checks import check_integer, shown
from ..support.machine import best_device
from .setting import SCHEDULE, Setting, family, network

UPLOAD_BYTES, UPLOAD_PIXELS = 8 << 20, 40_000_000
SIDE = 32  # of the pictures made here


def latents(setting: Setting) -> Tensor:
    """The noises of the strip, (frames, 3, S, S)."""
    return interpolate(end_latent(setting.first, setting), end_latent(setting.second, setting), setting.frames, setting.way)


def end_latent(end: int | bytes, setting: Setting) -> Tensor:
    """The noise of one end, (3, S, S): drawn from its seed, or found by inverting DDIM of L_0 on the setting's grid."""
    l0 = family(setting)[0]
    if isinstance(end, int):
        return torch.randn(3, l0.image_size, l0.image_size, generator=torch.Generator().manual_seed(end)).to(best_device())
    return encoded(end, l0.name, l0.image_size, setting.steps, setting.spacing)


@lru_cache(maxsize=64)
def encoded(png: bytes, name: str, size: int, steps: int, spacing: str) -> Tensor:
    """The noise, (3, size, size), that DDIM of the network `name` turns into the picture; kept in memory."""
    x0 = to_unit_range(read_png(png, size))[None].to(best_device())
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of repeated timesteps, as in `grid`
        return invert(network(name), x0, SCHEDULE, steps, spacing, REFINEMENTS)[0]


def read_png(png: bytes, size: int) -> Tensor:
    """The picture of an end as (3, size, size) uint8. Raises ValueError for bytes that are not a picture."""
    size = check_integer("size", size, 1, MAX_SIZE)
    picture = _opened("png", png).resize((size, size), Image.Resampling.BOX)
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(size, size, 3).permute(2, 0, 1).contiguous()


def upload(name: str, content: bytes) -> bytes:
    """A user's picture file as an end: its central square, scaled to 32×32; transparent parts show white.

    Raises ValueError for any other file; `name` is for errors.
    """
    return png_bytes(ImageOps.fit(_opened(name, content), (SIDE, SIDE), Image.Resampling.LANCZOS))


def png_bytes(picture: Image.Image) -> bytes:
    """A Pillow image as PNG bytes, encoded for speed: a strip takes about 50 kB."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _opened(name: str, content: bytes) -> Image.Image:
    """The picture in three channels of 8 bits, upright as its EXIF orientation asks, transparent parts white."""
    if not isinstance(content, bytes):
        raise ValueError(f"the content of {name} must be the bytes of a picture file, not {shown(content)}.")
    if len(content) > UPLOAD_BYTES:
        raise ValueError(f"{name} has {len(content):,} bytes; pictures of at most 8 MB, {UPLOAD_BYTES:,} bytes, can be used. "
                         f"Save a smaller copy: {SIDE} × {SIDE} pixels are enough.")
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow warns of large pictures, which are refused below
            picture = Image.open(io.BytesIO(content))  # reads the header only
        if picture.width * picture.height <= UPLOAD_PIXELS:
            picture.getexif()
            picture.info.pop("exif", None)  # the rest of it, which Pillow would write back and often cannot
            picture = ImageOps.exif_transpose(picture)
            if picture.mode[0] in "IF":  # greys of more than 8 bits, stretched over their range
                picture = Image.fromarray(np.interp(picture, (np.min(picture), np.max(picture)), (0, 255)).round().astype(np.uint8))
            white = Image.new("RGBA", picture.size, "white")
            return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    except MemoryError:
        raise
    except Image.DecompressionBombError:
        pass  # refused below
    except Exception as error:  # decoders raise exceptions of many kinds
        raise ValueError(f"{name} is no picture that can be read; PNG, JPEG, GIF, BMP and WebP can.") from error
    raise ValueError(f"{name} has more than {UPLOAD_PIXELS:,} pixels. Save a smaller copy: {SIDE} × {SIDE} pixels are enough.")
