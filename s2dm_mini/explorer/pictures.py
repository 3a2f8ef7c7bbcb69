"""Pictures of strips and maps as PNG and GIF bytes, each with its setting written below, and the code that draws a strip again.

Drawn with Pillow in a few milliseconds, because each sampler step needs a picture; only the curves are drawn with matplotlib.
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
from ..plots import BLUE, STYLE, VERMILION, Picture, styled, tile
from ..samplers import SAMPLERS
from .ends import png_bytes
from .plane import SKIPS, TAUS, nearest_cell
from .setting import SCHEDULE, Setting
from .strips import Row, View, smoothness, views

LEFT, GAP, LINE, STRIP = 88, 4, 19, 800  # dots: labels, between images, a line of text, the strip itself
CELL, TOP = 64, 26  # dots: an image of the map, the labels above it
FRAME = 128  # dots: an image of the animation
INK, WAITING = "#222222", 236  # text; grey of an image still to come


def strip(setting: Setting) -> bytes:
    """The finished strip as PNG bytes. Raises as `strips.views` does."""
    *_, last = views(setting)
    return draw(last)


def draw(view: View) -> bytes:
    """L_0, S²-DM and their difference, three rows, with the setting below, as PNG bytes of 892 × about 350 dots."""
    s, size = view.setting, view.l0.pixels.shape[-1]
    scale = min(96, (STRIP + GAP) // s.frames - GAP) // size  # dots per pixel
    down = size * scale + GAP
    change = difference(view.l0.pixels, view.s2dm.pixels, s.amplify) if view.comparable else torch.full_like(view.l0.pixels, WAITING)
    canvas, pen = _canvas(LEFT + STRIP + GAP, 3 * down + 3 * LINE)
    _paste(canvas, (LEFT, 0), torch.cat([view.l0.pixels, view.s2dm.pixels, change]), s.frames, scale, GAP)
    for i, label in enumerate(("L₀", "S²-DM", f"change ×{s.amplify}")):
        pen.text((LEFT - 8, i * down + (down - GAP) // 2), label, INK, _font(14), anchor="rm")
    source = view.source if s.how == "trained" or s.tau < 1 else f"{view.source}, s_t = 1"
    ends = " to ".join(f"seed {end}" if isinstance(end, int) else "encoded picture" for end in (s.first, s.second))
    _write(pen, LEFT, 3 * down + 1, (
        f"skip {s.skip}, τ {s.tau:g} · {source}", f"{ends}, {s.way}, {s.frames} frames · {_sampling(s)} · {_state(view.slower)}",
        "change: blue where S²-DM is darker than L₀, orange where it is brighter, white where they agree"))
    return png_bytes(canvas)


def difference(a: Tensor, b: Tensor, amplify: int) -> Tensor:
    """Change of brightness from a to b, times amplify, (N, 3, H, W) uint8: white for none, blue for darker, orange for brighter.

    Colour-blind readers can tell the two colours apart.
    """
    change = (b.float() - a.float()).mean(dim=1, keepdim=True) * amplify / 255  # (N, 1, H, W)
    ink = torch.where(change > 0, _rgb(VERMILION), _rgb(BLUE))  # (N, 3, H, W)
    return (255 + (ink - 255) * change.abs().clamp(max=1)).round().to(torch.uint8)


def draw_plane(s: Setting, row: Row) -> bytes:
    """The map of skip and τ, a row of `plane`, as PNG bytes. A blue frame marks the cell nearest to the setting; for places see `cell`."""
    right, bottom = cell(len(TAUS), len(SKIPS))
    canvas, pen = _canvas(right, bottom + 3 * LINE)
    _paste(canvas, cell(0, 0), row.pixels, len(SKIPS), CELL // row.pixels.shape[-1], 2 * GAP)
    x, y = cell(*nearest_cell(s))
    pen.rectangle((x - 3, y - 3, x + CELL + 2, y + CELL + 2), outline=BLUE, width=3)
    for column, skip in enumerate(SKIPS):
        pen.text((cell(0, column)[0] + CELL // 2, TOP // 2), f"skip {skip}", INK, _font(13), anchor="mm")
    for line, tau in enumerate(TAUS):
        pen.text((LEFT - 8, cell(line, 0)[1] + CELL // 2), f"τ {tau:g}", INK, _font(13), anchor="rm")
    first = f"seed {s.first}" if isinstance(s.first, int) else "the encoded picture"
    _write(pen, 8, bottom + 2, (f"{first}, closed form for every skip and τ · {_state(row)}", _sampling(s), "τ = 1 is L₀"))
    return png_bytes(canvas)


def cell(row: int, column: int) -> tuple[int, int]:
    """Left and top of a cell of the map, in dots."""
    return LEFT + column * (CELL + 2 * GAP), TOP + row * (CELL + 2 * GAP)


@styled
def draw_curves(view: View) -> bytes:
    """Three small plots as PNG bytes: s_t, the size of ε at each evaluation, the distance between neighbouring frames."""
    s = view.setting
    figure = Picture(figsize=((LEFT + STRIP + GAP) / STYLE["figure.dpi"], 2.3))
    place = {"left": 0.065, "right": 0.99, "bottom": 0.2, "top": 0.88, "wspace": 0.28}  # fixed: a layout engine takes three times as long
    left, middle, right = figure.subplots(1, 3, gridspec_kw=place)
    left.plot(np.ones(SCHEDULE.T), marker="", label="L₀")
    left.plot(shrinkage(SCHEDULE, s.skip, s.tau), marker="", label=f"skip {s.skip}, τ {s.tau:g}")
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
    """L_0 (left) and S²-DM (right) from end to end and back, as GIF bytes that repeat forever."""
    frames = []
    for pair in zip(view.l0.pixels, view.s2dm.pixels, strict=True):
        canvas, pen = _canvas(2 * FRAME + 3 * GAP, FRAME + 2 * GAP + LINE)
        _paste(canvas, (GAP, GAP + LINE), torch.stack(pair), 2, FRAME // pair[0].shape[-1], GAP)
        for i, label in enumerate(("L₀", f"skip {view.setting.skip}, τ {view.setting.tau:g}")):
            pen.text((GAP + i * (FRAME + GAP) + FRAME // 2, LINE // 2 + 1), label, INK, _font(13), anchor="mm")
        frames.append(canvas)
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:] + frames[-2:0:-1], duration=160, loop=0)
    return file.getvalue()


def code(setting: Setting) -> str:
    """A notebook cell that draws the same strip: on the same machine, the same bytes."""
    values = {field.name: getattr(setting, field.name) for field in fields(setting) if getattr(setting, field.name) != field.default}
    written = {name: f'b64decode("{base64.b64encode(value).decode()}")' if isinstance(value, bytes) else repr(value)
               for name, value in values.items()}
    decoder = "from base64 import b64decode\n\n" if any(isinstance(value, bytes) for value in values.values()) else ""
    return (f"{decoder}from IPython.display import Image\n\nfrom s2dm_mini.explorer.pictures import strip\n"
            "from s2dm_mini.explorer.setting import Setting\n\n"
            f"Image(strip(Setting({', '.join(f'{name}={text}' for name, text in written.items())})))")


def _sampling(s: Setting) -> str:
    eta = f", η {s.eta:g}" if s.eta else ""
    return f"{SAMPLERS[s.sampler].title}{eta}, {s.steps} {s.spacing} steps = {s.evaluations} network evaluations"


def _state(row: Row) -> str:
    return "finished" if row.done else f"preview, step {row.step} of {row.steps}"


def _canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    canvas = Image.new("RGB", (width, height), "white")
    return canvas, ImageDraw.Draw(canvas)


def _paste(canvas: Image.Image, place: tuple[int, int], pixels: Tensor, columns: int, scale: int, gap: int) -> None:
    canvas.paste(Image.fromarray(tile(pixels, columns, scale, gap)), place)


def _write(pen: ImageDraw.ImageDraw, x: int, y: int, lines: Iterable[str]) -> None:
    for i, line in enumerate(lines):
        pen.text((x, y + i * LINE), line, INK, _font(13))


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's DejaVu Sans, as in the other figures; the font that Pillow brings has no τ."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _rgb(colour: str) -> Tensor:
    return torch.tensor([int(colour[i:i + 2], 16) for i in (1, 3, 5)], dtype=torch.float32)[None, :, None, None]
