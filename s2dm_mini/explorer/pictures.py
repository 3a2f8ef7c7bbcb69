"""Pictures of strips and planes: views in, PNG and GIF bytes out; and the code that makes the same picture again.

Drawn with Pillow, in a few milliseconds, because a picture is drawn at every step of the sampler. Every picture says under
itself which setting it belongs to.
"""
import base64
import io
from collections.abc import Iterable
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..losses import shrinkage
from ..plots import BLUE, STYLE, VERMILION, Picture, styled
from ..samplers import SAMPLERS
from .plane import SKIPS, TAUS, Plane, nearest_cell
from .setting import SCHEDULE, Setting
from .strips import View, smoothness, views

LEFT, GAP, LINE, STRIP = 88, 4, 19, 800  # dots: labels, between images, a line of text, the strip itself
CELL, TOP = 64, 26  # dots: an image of the plane, the labels above it
INK, WAITING = "#222222", 236  # text; grey of an image still to come


def strip(setting: Setting) -> bytes:
    """The finished strip as PNG bytes. Raises as `strips.views` does."""
    *_, last = views(setting)
    return draw(last)


def draw(view: View) -> bytes:
    """The three rows and the setting they belong to, as PNG bytes of 892 × about 350 dots."""
    s = view.setting
    size = view.l0.pixels.shape[-1]
    scale = min(96, (STRIP + GAP) // s.frames - GAP) // size  # dots a pixel
    change = difference(view.l0.pixels, view.s2dm.pixels, s.amplify) if view.comparable else torch.full_like(view.l0.pixels, WAITING)
    rows = {"L₀": view.l0.pixels, "S²-DM": view.s2dm.pixels, f"change ×{s.amplify}": change}
    down, across = size * scale + GAP, size * scale + GAP
    canvas, pen = _canvas(LEFT + STRIP + GAP, 3 * down + 3 * LINE)
    for i, (label, pixels) in enumerate(rows.items()):
        pen.text((LEFT - 8, i * down + (down - GAP) // 2), label, INK, _font(14), anchor="rm")
        for j, picture in enumerate(_enlarged(pixels, scale)):
            canvas.paste(picture, (LEFT + j * across, i * down))
    state = "finished" if view.done else f"preview, step {view.step} of {view.steps}"
    how = view.source if s.how == "trained" or s.tau < 1 else f"{view.source}, s_t = 1"
    lines = (f"skip {s.skip}, τ {s.tau:g} · {how}", f"{_ends(s)}, {s.way}, {s.frames} frames · {sampling(s)} · {state}",
             "change: blue where S²-DM is darker than L₀, orange where it is brighter, white where they agree")
    for i, line in enumerate(lines):
        pen.text((LEFT, 3 * down + i * LINE + 1), line, INK, _font(13))
    return _png(canvas)


def sampling(s: Setting) -> str:
    """How the pictures are drawn, in words."""
    eta = f", η {s.eta:g}" if s.eta else ""
    return f"{SAMPLERS[s.sampler].title}{eta}, {s.steps} {s.spacing} steps = {s.evaluations} network evaluations"


def _ends(s: Setting) -> str:
    return " to ".join(f"seed {end}" if isinstance(end, int) else "encoded picture" for end in (s.first, s.second))


def difference(a: Tensor, b: Tensor, amplify: int) -> Tensor:
    """Change of brightness from a to b, times amplify: white for none, towards blue if darker, orange if brighter. (N, 3, H, W) uint8.

    The two colours are told apart by colour-blind readers.
    """
    change = (b.float() - a.float()).mean(dim=1, keepdim=True) * amplify / 255  # (N, 1, H, W)
    ink = torch.where(change > 0, _rgb(VERMILION), _rgb(BLUE))  # (N, 3, H, W)
    return (255 + (ink - 255) * change.abs().clamp(max=1)).round().to(torch.uint8)


def _rgb(colour: str) -> Tensor:
    return torch.tensor([int(colour[i:i + 2], 16) for i in (1, 3, 5)], dtype=torch.float32)[None, :, None, None]


def draw_plane(view: Plane) -> bytes:
    """The map of skip and τ as PNG bytes; a blue frame marks the cell nearest to the setting. Cells are where `cell` says."""
    s, size = view.setting, view.pixels.shape[-1]
    right, bottom = cell(len(TAUS), len(SKIPS))
    canvas, pen = _canvas(right, bottom + 3 * LINE)
    marked = nearest_cell(s)
    for i, picture in enumerate(_enlarged(view.pixels, CELL // size)):
        row, column = divmod(i, len(SKIPS))
        x, y = cell(row, column)
        if (row, column) == marked:
            pen.rectangle((x - 3, y - 3, x + CELL + 2, y + CELL + 2), fill=BLUE)
        canvas.paste(picture, (x, y))
    for column, skip in enumerate(SKIPS):
        pen.text((cell(0, column)[0] + CELL // 2, TOP // 2), f"skip {skip}", INK, _font(13), anchor="mm")
    for row, tau in enumerate(TAUS):
        pen.text((LEFT - 8, cell(row, 0)[1] + CELL // 2), f"τ {tau:g}", INK, _font(13), anchor="rm")
    state = "finished" if view.done else f"preview, step {view.step} of {view.steps}"
    first = f"seed {s.first}" if isinstance(s.first, int) else "the encoded picture"
    for i, line in enumerate((f"{first}, closed form for every skip and τ · {state}", sampling(s), "τ = 1 is L₀")):
        pen.text((8, bottom + i * LINE + 2), line, INK, _font(13))
    return _png(canvas)


def cell(row: int, column: int) -> tuple[int, int]:
    """Left and top of a cell of the map, in dots."""
    return LEFT + column * (CELL + 2 * GAP), TOP + row * (CELL + 2 * GAP)


@styled
def draw_curves(view: View) -> bytes:
    """Three small plots as PNG bytes: s_t, the size of ε along the way, and how far neighbouring frames are apart."""
    s = view.setting
    figure = Picture(figsize=((LEFT + STRIP + GAP) / STYLE["figure.dpi"], 2.3))
    place = {"left": 0.065, "right": 0.99, "bottom": 0.2, "top": 0.88, "wspace": 0.28}  # set by hand: a third of the layout engine's time
    left, middle, right = figure.subplots(1, 3, gridspec_kw=place)
    t = np.arange(SCHEDULE.T)
    left.plot(t, np.ones_like(t), marker="", label="L₀")
    left.plot(t, shrinkage(SCHEDULE, s.skip, s.tau), marker="", label=f"skip {s.skip}, τ {s.tau:g}")
    left.set(title="factor $s_t$ on the predicted noise", xlabel="timestep t")
    for row, label in ((view.l0, "L₀"), (view.s2dm, "S²-DM")):
        middle.plot(row.times, row.eps_rms, label=label)
        right.plot(range(1, len(row.pixels)), smoothness(row), label=label)
    middle.set(title="size of the predicted noise", xlabel="timestep t (drawing runs leftwards)")
    right.set(title="distance between neighbours", xlabel="from frame i to i + 1", ylabel="grey levels")
    right.set_ylim(bottom=0)
    for axes in (left, middle, right):
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_size(9)
        axes.yaxis.label.set_size(9)
        axes.legend(fontsize=8)
    return figure._repr_png_()


def animate(view: View) -> bytes:
    """L_0 (left) and S²-DM (right) walking from end to end and back, as GIF bytes that repeat forever."""
    size = view.l0.pixels.shape[-1]
    scale = 128 // size
    frames = []
    for left, right in zip(_enlarged(view.l0.pixels, scale), _enlarged(view.s2dm.pixels, scale), strict=True):
        canvas, pen = _canvas(2 * 128 + 3 * GAP, 128 + 2 * GAP + LINE)
        for x, picture, label in ((GAP, left, "L₀"), (128 + 2 * GAP, right, f"skip {view.setting.skip}, τ {view.setting.tau:g}")):
            canvas.paste(picture, (x, GAP + LINE))
            pen.text((x + 64, LINE // 2 + 1), label, INK, _font(13), anchor="mm")
        frames.append(canvas)
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:] + frames[-2:0:-1], duration=160, loop=0)
    return file.getvalue()


def code(setting: Setting) -> str:
    """A notebook cell that draws the same strip, to the byte on the same machine."""
    changed, pictures = [], False
    for field in fields(setting):
        value = getattr(setting, field.name)
        if value != field.default:
            pictures |= isinstance(value, bytes)
            text = f'b64decode("{base64.b64encode(value).decode()}")' if isinstance(value, bytes) else repr(value)
            changed.append(f"{field.name}={text}")
    decoder = "from base64 import b64decode\n\n" if pictures else ""
    return (f"{decoder}from IPython.display import Image\n\nfrom s2dm_mini.explorer.pictures import strip\n"
            f"from s2dm_mini.explorer.setting import Setting\n\nImage(strip(Setting({', '.join(changed)})))")


def _enlarged(pixels: Tensor, scale: int) -> Iterable[Image.Image]:
    """(N, 3, H, W) uint8 → pictures in which each pixel is a crisp square of scale × scale dots."""
    for picture in pixels.permute(0, 2, 3, 1).numpy().repeat(scale, axis=1).repeat(scale, axis=2):
        yield Image.fromarray(picture)


def _canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    canvas = Image.new("RGB", (width, height), "white")
    return canvas, ImageDraw.Draw(canvas)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font of the other pictures; Pillow's own has no τ."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _png(canvas: Image.Image) -> bytes:
    file = io.BytesIO()
    canvas.save(file, "PNG", compress_level=1)
    return file.getvalue()
