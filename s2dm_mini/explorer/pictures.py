"""What the explorer shows of a strip: rows as PNG bytes, small drawings as SVG text, and the code that shows it again."""
import base64
import io
import math
import warnings
from collections.abc import Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor

from ..data.points import RING_STD, ring_means
from ..denoisers import MixtureDenoiser, Shrunk
from ..losses import shrinkage
from ..plots import BLUE, GREY, VERMILION, image_grid, tile
from ..samplers import SAMPLERS, trajectory
from .ends import png_bytes
from .setting import SCHEDULE, Setting, Trained, changes
from .strips import View

WORDS = (BLUE, "#B04A00")  # colours of the two lines' names: vermilion is too pale for letters on white
CLOUD, WALKS = 80, 10  # points of the toy; of them with their path
SCALE = 46  # dots of the toy's picture for a length of 1; the ring has radius 1

Line = tuple[Sequence[float], Sequence[float]]  # x and y of its points


def row_png(pixels: Tensor, columns: int) -> bytes:
    """Images (N, 3, S, S) uint8, `columns` a row without gaps, as PNG bytes, one dot for each pixel."""
    return png_bytes(Image.fromarray(tile(pixels, columns)))


def draw(view: View) -> bytes:
    """The finished strip for keeping, as PNG bytes: L_0, S²-DM and their difference, with the setting below."""
    s, by, gain, size = view.setting, view.drawn_by, gain_of(view), view.l0.pixels.shape[-1]
    rows = torch.cat([view.l0.pixels, view.s2dm.pixels, difference(view.l0.pixels, view.s2dm.pixels, gain)])
    scale = max(1, min(96, 800 // s.frames - 4) // size)  # dots per pixel
    figure = image_grid(rows, s.frames, scale, row_labels=["L₀", "S²-DM", f"change ×{gain}"])
    source = f"closed form: s_t times {by.name}{', s_t = 1' if by.tau == 1 else ''}"
    if s.how == "trained":
        source = f"trained network {by.name}, the nearest to skip {s.skip}, τ {s.tau:g}"
    ends = " to ".join(f"seed {end}" if isinstance(end, int) else "encoded picture" for end in (s.first, s.second))
    eta = f", η {s.eta:g}" if s.eta else ""
    figure.text(0.01, 0, f"skip {by.skip}, τ {by.tau:g} · {source}\n{ends}, {s.way}, {s.frames} frames · {SAMPLERS[s.sampler].title}{eta}, "
                         f"{s.steps} {s.spacing} steps = {s.evaluations} network evaluations\n"
                         "change: blue where S²-DM is darker than L₀, orange where it is brighter, white where they agree", va="top")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi="figure", bbox_inches="tight", pad_inches=0.04)
    return file.getvalue()


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


def _rgb(colour: str) -> Tensor:
    return torch.tensor([int(colour[i:i + 2], 16) for i in (1, 3, 5)], dtype=torch.float32)[None, :, None, None]


def code(setting: Setting) -> str:
    """A notebook cell that opens the explorer on this setting; skip and τ are always named."""
    values = {"skip": setting.skip, "tau": setting.tau} | changes(setting)
    written = {name: f'b64decode("{base64.b64encode(value).decode()}")' if isinstance(value, bytes) else repr(value)
               for name, value in values.items()}
    decoder = "from base64 import b64decode\n\n" if any(isinstance(value, bytes) for value in values.values()) else ""
    return f"{decoder}from s2dm_mini import explore\n\nexplore({', '.join(f'{name}={text}' for name, text in written.items())})"


# Drawings.

def factor(by: Trained) -> str:
    """The factor s_t on the predicted noise over the timesteps, beside the 1 of L_0."""
    t = range(0, SCHEDULE.T, 27)
    s_t = shrinkage(SCHEDULE, by.skip, by.tau)[::27].tolist()
    return lines(f"factor s_t on the noise: {min(s_t):.3f} to 1", "timestep t",
                 {"L₀": (t, [1.0] * len(t)), f"skip {by.skip}, τ {by.tau:g}": (t, s_t)}, low=min(0.9, *s_t))


def sizes(view: View) -> str:
    """The root mean square of the predicted noise at each network evaluation of both rows."""
    return lines("size of the predicted noise", "t, drawing runs leftwards",
                 {"L₀": (view.l0.times, view.l0.eps_rms), "S²-DM": (view.s2dm.times, view.s2dm.eps_rms)})


def lines(title: str, x_label: str, series: Mapping[str, Line], low: float | None = None) -> str:
    """Two lines, the first blue and the second orange, with the range of their values as ticks. low: the lowest tick."""
    xs, ys = ([v for line in series.values() for v in line[i]] for i in (0, 1))
    bottom = min(ys) if low is None else low
    top, left, right = max(*ys, bottom + 1e-9), min(xs), max(*xs, min(xs) + 1)
    drawn = [_text(0, 12, title), _text(134, 118, x_label, "middle"), f'<path d="M34,22V98H234" fill="none" stroke="{GREY}"/>',
             _text(30, 28, f"{top:.3g}", "end"), _text(30, 101, f"{bottom:.3g}", "end"),
             _text(34, 118, f"{left:g}"), _text(234, 118, f"{right:g}", "end")]
    for i, ((name, line), colour) in enumerate(zip(series.items(), (BLUE, VERMILION), strict=True)):
        drawn.append(_path(((34 + 200 * (x - left) / (right - left), 98 - 74 * (y - bottom) / (top - bottom))
                            for x, y in zip(*line, strict=True)), colour, 'stroke-width="2"'))
        drawn.append(_text(40 + 30 * i, 92, name, colour=WORDS[i]))
    return _svg(236, 122, f"{title}, {x_label}: {' and '.join(series)}", drawn)


def toy(setting: Setting, by: Trained) -> str:
    """Eight Gaussians on a ring, sampled from the same noises with the exact prediction and with s_t times it; both follow by formula."""
    exact = MixtureDenoiser(ring_means(), RING_STD, SCHEDULE)
    x_T = torch.randn(CLOUD, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = [_dot(mean, 2 * RING_STD * SCALE, f'{GREY}" opacity=".45') for mean in ring_means()]
    spread = []
    for denoiser, colour in ((exact, BLUE), (Shrunk(exact, shrinkage(SCHEDULE, by.skip, by.tau)), VERMILION)):
        noise = torch.Generator().manual_seed(0)
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of the grid, as in `strips`
            walk = trajectory(denoiser, x_T, SCHEDULE, setting.sampler, setting.steps, setting.spacing, setting.eta, noise)
        path = torch.stack([x_T, *(step.x for step in walk)])  # (steps + 1, CLOUD, 2)
        drawn += [_path(map(_place, way), colour, 'opacity=".6"') for way in path[:, :WALKS].transpose(0, 1)]
        drawn += [_dot(point, 1.5, colour) for point in path[-1]]
        spread.append(spread_of(path[-1]))
    drawn = [_text(70, 12, "toy: eight Gaussians", "middle"), '<svg y="16" width="140" height="140">', *drawn, "</svg>",  # cuts off
             _text(70, 171, f"spread: data {RING_STD:.3f}", "middle"), _text(32, 187, f"L₀ {spread[0]:.3f}", "middle", WORDS[0]),
             _text(100, 187, f"S²-DM {spread[1]:.3f}", "middle", WORDS[1])]
    title = f"spread about the centres: data {RING_STD:.3f}, L₀ {spread[0]:.3f}, S²-DM {spread[1]:.3f}"
    return _svg(140, 192, f"Eight Gaussians on a ring, sampled with and without s_t; {title}", drawn)


def spread_of(x: Tensor) -> float:
    """Standard deviation of points x (N, 2) about the nearest centre of the ring."""
    return ((x[:, None] - ring_means()).square().sum(-1).min(dim=1).values.mean() / 2).sqrt().item()


def _place(point: Tensor) -> tuple[float, float]:
    """A point of the toy's plane in dots, downwards."""
    x, y = point.tolist()
    return 70 + SCALE * x, 70 - SCALE * y


def _dot(point: Tensor, radius: float, colour: str) -> str:
    x, y = _place(point)
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}"/>'


def _path(places, colour: str, look: str) -> str:
    return f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}" fill="none" stroke="{colour}" {look}/>'


def _text(x: int, y: int, words: str, anchor: str = "start", colour: str = "#222222") -> str:
    return f'<text x="{x}" y="{y}" font-size="12" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def _svg(width: int, height: int, label: str, drawn: list[str]) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}" font-family="sans-serif">{"".join(drawn)}</svg>'
