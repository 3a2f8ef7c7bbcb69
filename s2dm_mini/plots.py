"""Pictures for the notebooks: every function returns a matplotlib Figure and shows nothing.

A Figure as the last line of a cell is drawn there; `.savefig("name.png")` writes it to a file. Nothing else of the
package imports this module, and this module leaves pyplot and its global state alone.
"""
import io
import math
from collections.abc import Iterable, Mapping, Sequence

import matplotlib
import numpy as np
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from matplotlib.ticker import LogFormatter
from torch import Tensor

from .data.images import to_pixels
from .samplers.common import CLEAN, Step

# Okabe and Ito's palette, told apart by colour-blind readers; its yellow is left out, being too pale for lines on white.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000"
GREY = "#BBBBBB"
WIDTH, DPI = 8.0, 100  # inches and dots an inch: 800 pixels, which fits the column of a notebook page
STYLE = {
    "figure.dpi": DPI, "figure.facecolor": "white", "font.family": "DejaVu Sans", "font.size": 10,
    "axes.prop_cycle": cycler(color=[BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK]) + cycler(marker=list("osD^vPX")),
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "axes.titlesize": 10,
    "grid.color": "#E6E6E6", "lines.linewidth": 1.8, "lines.markersize": 4.5, "legend.edgecolor": "none", "legend.framealpha": 0.85,
}
styled = matplotlib.rc_context(STYLE)


class Picture(Figure):
    """A Figure that a notebook draws without pyplot."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi="figure")
        return file.getvalue()


@styled
def image_grid(images: Tensor, columns: int = 8, scale: int | None = None, column_labels: Sequence[str] = (),
               row_labels: Sequence[str] = ()) -> Figure:
    """Images side by side, `columns` a row, each pixel a crisp square.

    images: (N, 3, H, W), uint8 or floating in −1..1 (what lies outside is clipped). scale: dots a pixel; by default the
    largest whole number with which the grid is at most 8 inches wide. Labels stand above the columns and left of the rows.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise ValueError(f"images must be (N, 3, H, W) with N at least 1, not {tuple(images.shape)}.")
    if not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise ValueError(f"images must be uint8, or floating in −1..1, not {images.dtype}.")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, not {columns}.")
    n, _, h, w = images.shape
    columns = min(columns, n)
    rows, gap = math.ceil(n / columns), 4
    left = max(map(_width, row_labels)) + 3 * gap if row_labels else 0  # dots left free for labels
    top = 20 if column_labels else 0
    if scale is None:
        scale = max(1, (int(WIDTH * DPI) - left - gap * columns) // (columns * w))
    pixels = images if images.dtype == torch.uint8 else to_pixels(images)
    pixels = pixels.cpu().permute(0, 2, 3, 1).numpy().repeat(scale, axis=1).repeat(scale, axis=2)  # (N, H·scale, W·scale, 3)

    down, across = h * scale + gap, w * scale + gap
    canvas = np.full((top + rows * down, left + columns * across, 3), 255, dtype=np.uint8)
    figure = Picture(figsize=(canvas.shape[1] / DPI, canvas.shape[0] / DPI))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for i, picture in enumerate(pixels):
        y, x = top + i // columns * down, left + i % columns * across
        canvas[y:y + h * scale, x:x + w * scale] = picture
    axes.imshow(canvas, interpolation="nearest")  # one dot of the figure for one number of the canvas
    for i, label in enumerate(column_labels):
        axes.text(left + i * across + w * scale / 2, top / 2, label, ha="center", va="center")
    for i, label in enumerate(row_labels):
        axes.text(left - 2 * gap, top + i * down + h * scale / 2, label, ha="right", va="center")
    return figure


def trajectory_strip(steps: Iterable[Step], columns: int = 8, image: int = 0) -> Figure:
    """How one picture comes into being: x_t above, the foreseen x̂_0 below, from noise (left) to picture (right).

    steps: what `samplers.trajectory` yields, with x (B, 3, H, W). Of many steps, `columns` evenly spread ones are shown,
    the last always. image: which one of the batch.
    """
    steps = list(steps)
    if not steps:
        raise ValueError("steps is empty: hand over what samplers.trajectory yields, not an iterator already used up.")
    columns = min(columns, len(steps))
    shown = [steps[(i + 1) * len(steps) // columns - 1] for i in range(columns)]
    images = torch.stack([step.x[image] for step in shown] + [step.x0[image] for step in shown])  # (2·columns, 3, H, W)
    labels = ["clean" if step.t == CLEAN else f"t = {step.t}" for step in shown]
    return image_grid(images, columns, column_labels=labels, row_labels=["$x_t$", "$\\hat{x}_0$"])


@styled
def signal_grid(x: Tensor, columns: int = 8, limit: float = 1.1, column_labels: Sequence[str] = (),
                row_labels: Sequence[str] = ()) -> Figure:
    """Signals side by side, `columns` a row: x (N, 1, L) as curves over time, x (N, 2, L) as paths in the plane, from the dot on.

    Values outside −limit..limit are clipped; paths show all of that square, curves the range that they have in common. Labels stand
    above the columns and left of the rows.
    """
    if x.ndim != 3 or x.shape[1] not in (1, 2) or not len(x):
        raise ValueError(f"x must be (N, 1, L) or (N, 2, L) with N at least 1, not {tuple(x.shape)}.")
    columns, path = min(columns, len(x)), x.shape[1] == 2
    rows, tall = math.ceil(len(x) / columns), 1.0 if path else 0.7  # height of a panel of width 1
    values = x.detach().cpu().double().numpy().clip(-limit, limit)
    low, high = (-limit, limit) if path else (values.min(), max(values.max(), values.min() + 1e-9))
    values = 0.9 * (values - (low + high) / 2) / (high - low)  # −0.45..0.45
    figure = Picture(figsize=(WIDTH, WIDTH / columns * tall * rows + 0.3 * bool(column_labels)), layout="constrained")
    axes = figure.add_subplot()
    for i, value in enumerate(values):
        column, below = i % columns, i // columns * tall
        across = value[0] if path else np.linspace(-0.45, 0.45, x.shape[2])
        axes.plot(column + across, tall * value[-1] - below, color=BLUE, linewidth=1.2, marker="")
        if path:
            axes.plot(column + across[0], value[1, 0] - below, "o", color=VERMILION, markersize=3.5)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(-(rows - 0.5) * tall, 0.5 * tall))
    axes.set_xticks(range(len(column_labels)), column_labels)
    axes.set_yticks([-row * tall for row in range(len(row_labels))], row_labels)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return figure


@styled
def curves(lines: Mapping[str, tuple], x_label: str, y_label: str, log_x: bool = False, log_y: bool = False,
           level: float | None = None) -> Figure:
    """Lines with legend: {name: (x, y)} or {name: (x, y, error)}, the last drawn with a band y ± error.

    With log_x the ticks stand at the x of the lines, as one wants for step counts. level: a dashed horizontal line, such
    as the value that would be perfect.
    """
    figure = Picture(figsize=(WIDTH, 3.8), layout="constrained")
    axes = figure.add_subplot()
    ticks = set()
    for name, line in lines.items():
        x, y, *error = (np.asarray(values, dtype=np.float64) for values in line)
        drawn, = axes.plot(x, y, label=name, markevery=1 if len(x) <= 20 else len(x) + 1)
        if len(x) > 20:
            drawn.set_marker("")
        if error:
            axes.fill_between(x, y - error[0], y + error[0], color=drawn.get_color(), alpha=0.2, linewidth=0)
        ticks.update(x.tolist())
    if level is not None:
        axes.axhline(level, color=BLACK, linewidth=1, linestyle="--")
    if log_x:
        axes.set_xscale("log")
        if len(ticks) <= 20:
            places, labels, last = sorted(ticks), [], 0.0
            for tick in places:  # a number that would stand in the one before it is left out
                far = tick > last * (places[-1] / places[0]) ** 0.035
                labels.append(f"{tick:g}" if far else "")
                last = tick if far else last
            axes.set_xticks(places, labels)
            axes.minorticks_off()
    if log_y:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        if high < 100 * low:  # 10 and 6 rather than 10¹ and 6·10⁰
            axes.yaxis.set_major_formatter(LogFormatter())
            axes.yaxis.set_minor_formatter(LogFormatter())
    axes.set(xlabel=x_label, ylabel=y_label)
    if len(lines) > 1:
        axes.legend()
    return figure


@styled
def dots(groups: Mapping[str, tuple], x_label: str, y_label: str) -> Figure:
    """Prediction against measurement: {name: (x, y, error of y)}, with the diagonal on which both agree, and both zeros."""
    figure = Picture(figsize=(WIDTH, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for name, (x, y, error) in groups.items():
        axes.errorbar(x, y, np.nan_to_num(error), linestyle="none", capsize=3, elinewidth=1, label=name)
    axes.axline((0, 0), slope=1, color=BLACK, linewidth=1, linestyle="--")
    axes.axhline(0, color=GREY, linewidth=1)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.legend()
    return figure


@styled
def planes(panels: Mapping[str, np.ndarray], x: Sequence[float], y: Sequence[float], x_label: str, y_label: str, value_label: str,
           limit: float, points: Mapping[str, Sequence[tuple[float, float, float]]] | None = None) -> Figure:
    """Values over a plane with logarithmic axes, blue below 0 and red above, a line where they are 0: {title: (len(y), len(x))}.

    Colours end at ±limit. points: (x, y, value) by title, drawn as circles in the same colours, to hold against the plane around them.
    """
    figure = Picture(figsize=(WIDTH, 3.1), layout="constrained")
    colours = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, values) in zip(every, panels.items(), strict=True):
        drawn = axes.pcolormesh(x, y, values, shading="gouraud", **colours)
        if np.min(values) < 0 < np.max(values):
            axes.contour(x, y, values, levels=[0], colors=BLACK, linewidths=1)
        for px, py, value in (points or {}).get(title, ()):
            axes.scatter(px, py, c=[value], s=90, edgecolors=BLACK, linewidths=1.2, marker="o", zorder=3, clip_on=False,
                         **colours)
        axes.set(xscale="log", yscale="log", title=title, xlabel=x_label)
        axes.grid(False)
    every[0].set_ylabel(y_label)
    figure.colorbar(drawn, ax=list(every), label=value_label, extend="both")
    return figure


@styled
def scatter(panels: Mapping[str, Tensor], columns: int = 4, limit: float = 1.6, data: Tensor | None = None) -> Figure:
    """Clouds of points, {title: (N, 2)}, one panel each, all over the square −limit..limit.

    data: (M, 2), drawn in grey behind every panel.
    """
    figure, axes = _square_panels(panels, columns, limit)
    for panel, points in zip(axes, panels.values(), strict=True):
        _cloud(panel, data)
        panel.plot(*_xy(points), ".", color=BLUE, markersize=2.5, alpha=0.6, markeredgewidth=0)
    return figure


@styled
def vector_field(panels: Mapping[str, tuple[Tensor, Tensor, Tensor]], columns: int = 3, limit: float = 1.6) -> Figure:
    """Arrows over a cloud, {title: (cloud (N, 2), positions (M, 2), arrows (M, 2))}; arrows have their true length."""
    figure, axes = _square_panels(panels, columns, limit)
    for panel, (cloud, positions, arrows) in zip(axes, panels.values(), strict=True):
        _cloud(panel, cloud)
        panel.quiver(*_xy(positions), *_xy(arrows), color=BLUE, angles="xy", scale_units="xy", scale=1, width=0.006)
    return figure


@styled
def paths(panels: Mapping[str, Tensor], columns: int = 3, limit: float = 2.4, data: Tensor | None = None) -> Figure:
    """Ways that samplers take, {title: (steps + 1, B, 2)}: from the open circle (noise) to the dot (sample)."""
    figure, axes = _square_panels(panels, columns, limit)
    for panel, path in zip(axes, panels.values(), strict=True):
        _cloud(panel, data)
        x, y = _xy(path)  # (steps + 1, B) each
        panel.plot(x, y, color=SKY, linewidth=0.8, marker="")
        panel.plot(x[0], y[0], "o", color=VERMILION, markersize=4, markerfacecolor="none")
        panel.plot(x[-1], y[-1], "o", color=BLUE, markersize=4)
    return figure


def _width(label: str) -> int:
    """Dots that a label takes, mathematics included, in the font of `STYLE`."""
    return math.ceil(TextPath((0, 0), label, size=STYLE["font.size"]).get_extents().x1 * DPI / 72)


def _square_panels(titles: Iterable[str], columns: int, limit: float) -> tuple[Figure, list[Axes]]:
    titles = list(titles)
    columns = min(columns, len(titles))
    rows = math.ceil(len(titles) / columns)
    side = min(WIDTH / columns, 3.4)
    figure = Picture(figsize=(side * columns, (side + 0.15) * rows + 0.2), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for panel, title in zip(grid, titles, strict=False):
        panel.set(title=title, xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    for panel in grid[len(titles):]:
        panel.set_axis_off()
    figure.supxlabel("first coordinate", fontsize=10)
    figure.supylabel("second coordinate", fontsize=10)
    return figure, list(grid[:len(titles)])


def _cloud(panel: Axes, points: Tensor | None) -> None:
    if points is not None:
        panel.plot(*_xy(points), ".", color=GREY, markersize=2, markeredgewidth=0)


def _xy(points: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(..., 2) → its two coordinates, (...) each."""
    points = points.detach().cpu().double().numpy()
    if points.shape[-1] != 2:
        raise ValueError(f"points must be (..., 2), not {points.shape}.")
    return points[..., 0], points[..., 1]
