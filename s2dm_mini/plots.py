"""Figures for the notebooks, and `tile`, which sets images side by side.

A Figure in the last line of a cell is drawn there; `.savefig("name.png")` writes it to a file. pyplot and its global state stay untouched.
"""
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from cycler import cycler
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from matplotlib.ticker import LogFormatter, MaxNLocator
from torch import Tensor
from torch.nn.functional import pad

from .data.images import to_pixels
from .samplers.common import CLEAN, Step
from .support.checks import check_integer, require

# The palette of Okabe and Ito (2008), which colour-blind readers can tell apart, without its yellow: too pale for lines on white.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000"
DASHED = {"color": BLACK, "linewidth": 1, "linestyle": "--"}
GREY = "#BBBBBB"
CLOUD = {"color": GREY, "marker": ".", "linestyle": "none", "markersize": 2, "markeredgewidth": 0}  # points behind others
WIDTH, DPI = 8.0, 100  # inches, dots per inch: 800 pixels fit the column of a notebook page
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


def tile(images: Tensor, columns: int, scale: int = 1, gap: int = 0) -> np.ndarray:
    """Images side by side on white, `columns` a row; each pixel becomes scale × scale dots, and `gap` white dots follow each image.

    images: (N, C, H, W) uint8. Returns (rows·(scale·H + gap), columns·(scale·W + gap), C) uint8.
    """
    enlarged = images.cpu().repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
    rows = math.ceil(len(images) / columns)
    tiles = pad(enlarged, (0, gap, 0, gap, 0, 0, 0, rows * columns - len(images)), value=255)
    return rearrange(tiles, "(row column) c h w -> (row h) (column w) c", column=columns).numpy()


@styled
def image_grid(images: Tensor, columns: int = 8, scale: int | None = None, column_labels: Sequence[str] = (),
               row_labels: Sequence[str] = ()) -> Figure:
    """Images side by side, `columns` a row, labels above the columns and left of the rows.

    images: (N, 3, H, W), uint8, or floating in −1..1 (values outside are clipped). scale: dots per pixel; by default the
    largest integer for which the grid is at most 8 inches wide. Raises ValueError for other images and for columns below 1.
    """
    require(images.ndim == 4 and images.shape[1] == 3 and len(images) and (images.dtype == torch.uint8 or images.is_floating_point()),
            "images must be (N, 3, H, W) with N at least 1, uint8 or floating in −1..1", images)
    h, w = images.shape[2:]
    columns, gap = min(check_integer("columns", columns, 1), len(images)), 4
    # Margins in dots, for labels with mathematics too.
    inches = [TextPath((0, 0), label, size=STYLE["font.size"]).get_extents().x1 / 72 for label in row_labels]
    left, top = math.ceil(max(inches) * DPI) + 3 * gap if inches else 0, 20 if column_labels else 0
    if scale is None:
        scale = max(1, (int(WIDTH * DPI) - left - gap * columns) // (columns * w))
    tiles = tile(images if images.dtype == torch.uint8 else to_pixels(images), columns, scale, gap)
    canvas = np.pad(tiles, ((top, 0), (left, 0), (0, 0)), constant_values=255)

    figure = Picture(figsize=(canvas.shape[1] / DPI, canvas.shape[0] / DPI))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(canvas, interpolation="nearest")  # one dot of the figure for each number of the canvas
    for i, label in enumerate(column_labels):
        axes.text(left + i * (w * scale + gap) + w * scale / 2, top / 2, label, ha="center", va="center")
    for i, label in enumerate(row_labels):
        axes.text(left - 2 * gap, top + i * (h * scale + gap) + h * scale / 2, label, ha="right", va="center")
    return figure


def trajectory_strip(steps: Iterable[Step]) -> Figure:
    """The first image of a batch on its way from noise (left) to picture (right): x_t above, the predicted x̂_0 below.

    steps: from `samplers.trajectory`, with x (B, 3, H, W); 8 evenly spaced ones are shown, always the last. Raises ValueError for none.
    """
    steps = list(steps)
    require(steps, "steps is empty: pass the iterator from samplers.trajectory, not one that is already used up")
    columns = min(8, len(steps))
    shown = [steps[(i + 1) * len(steps) // columns - 1] for i in range(columns)]
    images = torch.stack([step.x[0] for step in shown] + [step.x0[0] for step in shown])  # (2·columns, 3, H, W)
    labels = ["clean" if step.t == CLEAN else f"t = {step.t}" for step in shown]
    return image_grid(images, columns, column_labels=labels, row_labels=["$x_t$", "$\\hat{x}_0$"])


@styled
def signal_grid(x: Tensor, columns: int = 8, limit: float = 1.1, column_labels: Sequence[str] = (),
                row_labels: Sequence[str] = ()) -> Figure:
    """Signals side by side, `columns` a row: x (N, 1, L) as curves over time, x (N, 2, L) as paths in the plane that start at a dot.

    Values are clipped to −limit..limit. Paths show that whole square, curves the range of all values. Labels as in `image_grid`.
    """
    require(x.ndim == 3 and x.shape[1] in (1, 2) and len(x), "x must be (N, 1, L) or (N, 2, L) with N at least 1", tuple(x.shape))
    columns, path = min(columns, len(x)), x.shape[1] == 2
    rows, tall = math.ceil(len(x) / columns), 1.0 if path else 0.7  # height of a panel of width 1
    values = x.detach().cpu().double().numpy().clip(-limit, limit)
    low, high = (-limit, limit) if path else (values.min(), max(values.max(), values.min() + 1e-9))
    values = 0.9 * (values - (low + high) / 2) / (high - low)  # −0.45..0.45
    figure, axes = _one_panel(WIDTH / columns * tall * rows + 0.3 * bool(column_labels))
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
    """Lines with a legend: {name: (x, y)} or {name: (x, y, error)}, the latter with a band y ± error.

    With log_x, ticks stand at the x of the lines (step counts, for example). level: a dashed horizontal line, such as the ideal value.
    """
    figure, axes = _one_panel(3.8)
    for name, line in lines.items():
        x, y, *error = (np.asarray(values, dtype=np.float64) for values in line)
        drawn, = axes.plot(x, y, label=name, **({"marker": ""} if len(x) > 20 else {}))
        for e in error:
            axes.fill_between(x, y - e, y + e, color=drawn.get_color(), alpha=0.2, linewidth=0)
    if level is not None:
        axes.axhline(level, **DASHED)
    if log_x:
        axes.set_xscale("log")
        ticks = sorted({float(x) for line in lines.values() for x in line[0]})
        if len(ticks) <= 20:
            axes.set_xticks(ticks, _spaced_labels(ticks))
            axes.minorticks_off()
    if log_y:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        if high < 100 * low:
            axes.yaxis.set(major_formatter=LogFormatter(), minor_formatter=LogFormatter())  # 10 and 6 rather than 10¹ and 6·10⁰
    axes.set(xlabel=x_label, ylabel=y_label)
    if len(lines) > 1:
        axes.legend()
    return figure


@styled
def dots(groups: Mapping[str, tuple], x_label: str, y_label: str) -> Figure:
    """Prediction against measurement: {name: (x, y, error of y)}, with both axes and the diagonal of perfect agreement."""
    figure, axes = _one_panel(4.6)
    for name, (x, y, error) in groups.items():
        axes.errorbar(x, y, np.nan_to_num(error), linestyle="none", capsize=3, elinewidth=1, label=name)
    axes.axline((0, 0), slope=1, **DASHED)
    axes.axhline(0, color=GREY, linewidth=1)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.legend()
    return figure


@styled
def forest(panels: Mapping[str, Mapping[str, tuple[float, float, float]]], x_label: str, band: tuple[float, float] | None = None) -> Figure:
    """A forest plot: per panel a line for each row, its mean and interval (mean, low, high); the zero dashed, the band shaded.

    Blue: the interval lies below 0; vermilion: above; grey: it holds 0. All panels have the same rows; one may lack some.
    """
    rows = list(dict.fromkeys(row for panel in panels.values() for row in panel))
    figure = Picture(figsize=(WIDTH, 1.1 + 0.21 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (title, panel) in zip(axes, panels.items(), strict=True):
        if band:
            ax.axvspan(*band, color="#DDEBF5", zorder=0)
        ax.axvline(0, **DASHED)
        for row, (mean, low, high) in panel.items():
            color = BLUE if high < 0 else VERMILION if low > 0 else "#777777"
            ax.plot([low, high], [rows.index(row)] * 2, color=color, linewidth=1.4, marker="none")
            ax.plot(mean, rows.index(row), "o", color=color, markersize=4)
        ax.set(title=title, yticks=range(len(rows)), yticklabels=rows)
        ax.xaxis.set_major_locator(MaxNLocator(5 if len(panels) < 4 else 3))
        ax.tick_params(axis="y", length=0, labelsize=8)
        ax.grid(axis="y", visible=False)
    axes[0].invert_yaxis()
    figure.supxlabel(x_label, fontsize=10)
    return figure


def planes(panels: Mapping[str, np.ndarray], x: Sequence[float], y: Sequence[float], x_label: str, y_label: str, value_label: str,
           limit: float, points: Mapping[str, Sequence[tuple[float, float, float]]] | None = None) -> Figure:
    """Maps with logarithmic axes, {title: values (len(y), len(x))}: blue below 0, red above, a line at 0.

    Colours saturate at ±limit. points: {title: [(x, y, value), …]}, circles in the same colours, to compare with the map around them.
    """
    figure = Picture(figsize=(WIDTH, 3.1), layout="constrained")
    colours = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, values) in zip(row, panels.items(), strict=True):
        drawn = axes.pcolormesh(x, y, values, shading="gouraud", **colours)
        if np.min(values) < 0 < np.max(values):
            axes.contour(x, y, values, levels=[0], colors=BLACK, linewidths=1)
        for px, py, value in (points or {}).get(title, ()):
            axes.scatter(px, py, c=[value], s=90, edgecolors=BLACK, linewidths=1.2, marker="o", zorder=3, clip_on=False, **colours)
        axes.set(xscale="log", yscale="log", title=title, xlabel=x_label)
        axes.grid(False)
    row[0].set_ylabel(y_label)
    figure.colorbar(drawn, ax=list(row), label=value_label, extend="both")
    return figure


@styled
def scatter(panels: Mapping[str, Tensor], columns: int = 4, limit: float = 1.6, data: Tensor | None = None) -> Figure:
    """Clouds of points, {title: (N, 2)}, one panel each over the square −limit..limit. data: (M, 2), in grey behind each panel."""
    figure, drawn = _square_panels(panels, columns, limit, data)
    for axes, points in drawn:
        axes.plot(*_xy(points), ".", color=BLUE, markersize=2.5, alpha=0.6, markeredgewidth=0)
    return figure


@styled
def vector_field(panels: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> Figure:
    """Arrows of true length over a cloud of points, {title: (cloud (N, 2), positions (M, 2), arrows (M, 2))}."""
    figure, drawn = _square_panels(panels, 3, 1.6)
    for axes, (cloud, positions, arrows) in drawn:
        axes.plot(*_xy(cloud), **CLOUD)
        axes.quiver(*_xy(positions), *_xy(arrows), color=BLUE, angles="xy", scale_units="xy", scale=1, width=0.006)
    return figure


@styled
def paths(panels: Mapping[str, Tensor], columns: int = 3, data: Tensor | None = None) -> Figure:
    """Paths of samplers, {title: (steps + 1, B, 2)}, from an open circle (noise) to a dot (sample). data: as in `scatter`."""
    figure, drawn = _square_panels(panels, columns, 2.4, data)
    for axes, path in drawn:
        x, y = _xy(path)  # (steps + 1, B) each
        axes.plot(x, y, color=SKY, linewidth=0.8, marker="")
        axes.plot(x[0], y[0], "o", color=VERMILION, markersize=4, markerfacecolor="none")
        axes.plot(x[-1], y[-1], "o", color=BLUE, markersize=4)
    return figure


def _one_panel(height: float) -> tuple[Figure, Axes]:
    figure = Picture(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _square_panels(panels: Mapping[str, Any], columns: int, limit: float,
                   data: Tensor | None = None) -> tuple[Figure, Iterable[tuple[Axes, Any]]]:
    """A figure of square panels with these titles, the data in grey in each, and each panel's axes with its value."""
    columns = min(columns, len(panels))
    rows, side = math.ceil(len(panels) / columns), min(WIDTH / columns, 3.4)
    figure = Picture(figsize=(side * columns, (side + 0.15) * rows + 0.2), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, title in zip(grid, panels, strict=False):
        axes.set(title=title, xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        if data is not None:
            axes.plot(*_xy(data), **CLOUD)
    for axes in grid[len(panels):]:
        axes.set_axis_off()
    figure.supxlabel("first coordinate", fontsize=10)
    figure.supylabel("second coordinate", fontsize=10)
    return figure, zip(grid, panels.values(), strict=False)


def _spaced_labels(ticks: list[float]) -> list[str]:
    """Labels of rising ticks on a logarithmic axis; empty where a label would overlap the one before."""
    labels, last = [], 0.0
    for tick in ticks:
        far = tick > last * (ticks[-1] / ticks[0]) ** 0.035
        labels.append(f"{tick:g}" if far else "")
        last = tick if far else last
    return labels


def _xy(points: Tensor) -> Tensor:
    """(..., 2) → its two coordinates, (2, ...) float64."""
    require(points.shape[-1] == 2, "points must be (..., 2)", points)
    return points.detach().cpu().double().movedim(-1, 0)
