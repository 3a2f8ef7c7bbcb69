"""The two ends of a strip: noise drawn from a seed, or a picture encoded by inversion."""
import io
import warnings
from functools import lru_cache

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..data.images import to_unit_range
from ..data.shapes import MAX_SIZE, shapes
from ..latents import REFINEMENTS, interpolate, invert
from ..support.checks import check_integer, check_pixels, check_seed, shown
from ..support.machine import best_device
from .setting import SCHEDULE, Setting, family, network

UPLOAD_BYTES, UPLOAD_PIXELS = 8 << 20, 40_000_000


def latents(setting: Setting) -> Tensor:
    """The noises of the strip, (frames, 3, S, S)."""
    return interpolate(end_latent(setting.first, setting), end_latent(setting.second, setting), setting.frames, setting.way)


def end_latent(end: int | bytes, setting: Setting) -> Tensor:
    """An end's noise, (3, S, S): drawn from its seed, or found by inverting L_0's DDIM on the grid of the setting."""
    l0 = family(setting)[0]
    if isinstance(end, int):
        return torch.randn(3, l0.image_size, l0.image_size, generator=torch.Generator().manual_seed(end)).to(best_device())
    return _encoded(end, l0.name, l0.image_size, setting.steps, setting.spacing)


@lru_cache(maxsize=64)
def _encoded(end: bytes, name: str, size: int, steps: int, spacing: str) -> Tensor:
    x0 = to_unit_range(read_png(end, size))[None].to(best_device())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return invert(network(name), x0, SCHEDULE, steps, spacing, REFINEMENTS)[0]


def read_png(png: bytes, size: int) -> Tensor:
    """An end's PNG as (3, size, size) uint8. Raises ValueError, in a sentence, for bytes that are no picture."""
    size = check_integer("size", size, 1, MAX_SIZE)
    picture = _opened("png", png).resize((size, size), Image.Resampling.BOX)
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(size, size, 3).permute(2, 0, 1).contiguous()


def to_png(pixels: Tensor) -> bytes:
    """(3, H, W) uint8 → PNG bytes, which serve as an end."""
    check_pixels("pixels", pixels, "(3, H, W)")
    return _png(Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()))


def shape_picture(number: int) -> bytes:
    """One scene of `shapes`, as an end."""
    return to_png(shapes(1, 32, seed=check_seed(number, "number")).pixels[0])


def upload(name: str, content: bytes) -> bytes:
    """A user's file as an end: cut to the square in its middle, 32×32. Raises ValueError, in a sentence, for anything else."""
    return _png(ImageOps.fit(_opened(name, content), (32, 32), Image.Resampling.LANCZOS))


def _opened(name: str, content: bytes) -> Image.Image:
    if not isinstance(content, bytes):
        raise ValueError(f"the content of {name} must be the bytes of a picture file, not {shown(content)}.")
    if len(content) > UPLOAD_BYTES:
        raise ValueError(f"{name} has {len(content) / 1e6:.0f} MB; pictures of at most {UPLOAD_BYTES / 1e6:.0f} MB can be used. "
                         "Save a smaller copy: 32 × 32 pixels are enough.")
    too_many = f"{name} has more than {UPLOAD_PIXELS:,} pixels. Save a smaller copy: 32 × 32 pixels are enough."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures; they are refused below
            picture = Image.open(io.BytesIO(content))
        if picture.width * picture.height > UPLOAD_PIXELS:  # so far only the header was read
            raise ValueError(too_many)
        return ImageOps.exif_transpose(picture).convert("RGB")
    except Image.DecompressionBombError as error:
        raise ValueError(too_many) from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{name} is no picture that can be read; PNG, JPEG, GIF, BMP and WebP can.") from error


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)  # quick to write; a strip takes about 50 kB
    return file.getvalue()
