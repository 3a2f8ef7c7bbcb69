"""Pictures of strips as PNG bytes, and the code that shows a strip again.

`strip` is for keeping: labels beside its rows, its setting below. `row_png` has the pixels alone, for a page that labels them itself.
"""
import base64
import math
from functools import lru_cache
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..plots import BLUE, VERMILION, tile
from ..samplers import SAMPLERS
from .ends import png_bytes
from .setting import Setting, changes
from .strips import View, views

LEFT, GAP, LINE, STRIP = 88, 4, 19, 800  # dots: labels, between images, a line of text, the strip itself
INK, WAITING = "#222222", 236  # text; grey of an image still to come


def strip(setting: Setting) -> bytes:
    """The finished strip as PNG bytes. Raises as `strips.views` does."""
    *_, last = views(setting)
    return draw(last)


def row_png(pixels: Tensor, columns: int) -> bytes:
    """Images (N, 3, S, S) uint8, `columns` a row without gaps, as PNG bytes, one dot for each pixel."""
    return png_bytes(Image.fromarray(tile(pixels, columns)))


def draw(view: View) -> bytes:
    """L_0, S²-DM and their difference, three rows, with the setting below, as PNG bytes of 892 × about 350 dots."""
    s, size, gain = view.setting, view.l0.pixels.shape[-1], gain_of(view)
    scale = min(96, (STRIP + GAP) // s.frames - GAP) // size  # dots per pixel
    down = size * scale + GAP
    change = difference(view.l0.pixels, view.s2dm.pixels, gain) if view.comparable else torch.full_like(view.l0.pixels, WAITING)
    canvas = Image.new("RGB", (LEFT + STRIP + GAP, 3 * down + 3 * LINE), "white")
    pen = ImageDraw.Draw(canvas)
    rows = torch.cat([view.l0.pixels, view.s2dm.pixels, change])
    canvas.paste(Image.fromarray(tile(rows, s.frames, scale, GAP)), (LEFT, 0))
    for i, label in enumerate(("L₀", "S²-DM", f"change ×{gain}")):
        pen.text((LEFT - 8, i * down + (down - GAP) // 2), label, INK, _font(14), anchor="rm")
    ends = " to ".join(f"seed {end}" if isinstance(end, int) else "encoded picture" for end in (s.first, s.second))
    row, eta = view.slower, f", η {s.eta:g}" if s.eta else ""
    state = "finished" if row.done else f"preview, step {row.step} of {row.steps}"
    how = f"{SAMPLERS[s.sampler].title}{eta}, {s.steps} {s.spacing} steps = {s.evaluations} network evaluations"
    lines = (factor_label(view), f"{ends}, {s.way}, {s.frames} frames · {how} · {state}",
             "change: blue where S²-DM is darker than L₀, orange where it is brighter, white where they agree")
    for i, line in enumerate(lines):
        pen.text((LEFT, 3 * down + 1 + i * LINE), line, INK, _font(13))
    return png_bytes(canvas)


def factor_label(view: View) -> str:
    """The skip and τ of what drew the S²-DM row, and what that was."""
    by, asked = view.drawn_by, view.setting
    source = f"closed form: s_t times {by.name}"
    if asked.how == "trained":
        source = f"trained network {by.name}, the nearest to skip {asked.skip}, τ {asked.tau:g}"
    return f"skip {by.skip}, τ {by.tau:g} · {source}{', s_t = 1' if by.tau == 1 else ''}"


def gain_of(view: View) -> int:
    """The power of two, 1 to 64, that brings the mean change nearest to 40 grey levels."""
    return 2 ** min(6, max(0, round(math.log2(40 / max(view.change, 0.1)))))


def difference(a: Tensor, b: Tensor, gain: int) -> Tensor:
    """Change of brightness from a to b, times gain, (N, 3, H, W) uint8: white for none, blue for darker, orange for brighter.

    Colour-blind readers can tell the two colours apart.
    """
    change = (b.float() - a.float()).mean(dim=1, keepdim=True) * gain / 255  # (N, 1, H, W)
    ink = torch.where(change > 0, _rgb(VERMILION), _rgb(BLUE))  # (N, 3, H, W)
    return (255 + (ink - 255) * change.abs().clamp(max=1)).round().to(torch.uint8)


def code(setting: Setting) -> str:
    """A notebook cell that opens the explorer on this setting; skip and τ are always named."""
    values = {"skip": setting.skip, "tau": setting.tau} | changes(setting)
    written = {name: f'b64decode("{base64.b64encode(value).decode()}")' if isinstance(value, bytes) else repr(value)
               for name, value in values.items()}
    decoder = "from base64 import b64decode\n\n" if any(isinstance(value, bytes) for value in values.values()) else ""
    return f"{decoder}from s2dm_mini import explore\n\nexplore({', '.join(f'{name}={text}' for name, text in written.items())})"


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's DejaVu Sans, as in the other figures; the font that Pillow brings has no τ."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _rgb(colour: str) -> Tensor:
    return torch.tensor([int(colour[i:i + 2], 16) for i in (1, 3, 5)], dtype=torch.float32)[None, :, None, None]
