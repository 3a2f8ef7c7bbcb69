"""Pictures: what is drawn is what was handed over, to the pixel where that can be said, and pyplot is left alone."""
import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from s2dm_mini import plots
from s2dm_mini.samplers.common import CLEAN, Step


def drawn(figure: Figure) -> np.ndarray:
    """The picture as a notebook shows it, (height, width, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(figure._repr_png_())).convert("RGB"))


@pytest.mark.parametrize(("n", "h", "w", "columns", "scale"), [(1, 8, 8, 8, 3), (5, 4, 6, 2, 5), (6, 7, 3, 3, 1), (16, 16, 16, 8, 2)])
def test_image_grid_draws_every_pixel_as_a_crisp_square(n, h, w, columns, scale):
    images = torch.randint(0, 256, (n, 3, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
    picture = drawn(plots.image_grid(images, columns=columns, scale=scale))
    across, down, gap = min(columns, n), -(-n // columns), 4
    assert picture.shape == (down * (h * scale + gap), across * (w * scale + gap), 3)
    for i in range(n):
        for y in range(h):
            for x in range(w):
                top, left = i // columns * (h * scale + gap) + y * scale, i % columns * (w * scale + gap) + x * scale
                square = picture[top:top + scale, left:left + scale]
                assert (square == images[i, :, y, x].numpy()).all(), f"pixel ({y}, {x}) of image {i}"


def test_image_grid_maps_floats_linearly_and_clips_them():
    values = torch.tensor([-3.0, -1.0, 0.0, 1 / 3, 1.0, 7.0])
    expected = [0, 0, 128, 170, 255, 255]  # (x + 1)·127.5, rounded
    picture = drawn(plots.image_grid(values[:, None, None, None].expand(6, 3, 2, 2), columns=6, scale=4))
    assert [int(picture[3, 12 * i + 3, 0]) for i in range(6)] == expected


@pytest.mark.parametrize(("side", "labels"), [(16, 0), (32, 0), (32, 12), (96, 0)])
def test_image_grid_fills_eight_inches_and_no_more(side, labels):
    picture = drawn(plots.image_grid(torch.zeros(8, 3, side, side), row_labels=["x" * labels] if labels else ()))
    assert 800 - 8 * side < picture.shape[1] <= 800, "too wide, or a larger scale would have fitted"


def test_image_grid_labels_stand_outside_the_images():
    images = torch.zeros(4, 3, 10, 10)
    bare, labelled = plots.image_grid(images, 2, 4), plots.image_grid(images, 2, 4, ["left", "right"], ["$\\hat{x}_0$", "two"])
    assert [text.get_text() for text in labelled.axes[0].texts] == ["left", "right", "$\\hat{x}_0$", "two"]
    plain, picture = drawn(bare), drawn(labelled)
    assert (picture[-plain.shape[0]:, -plain.shape[1]:] == plain).all(), "a label runs into an image"
    assert (picture[:-plain.shape[0]] < 128).any(), "the column labels are not drawn"
    assert (picture[:, :-plain.shape[1]] < 128).any(), "the row labels are not drawn"


@pytest.mark.parametrize("images", [torch.zeros(3, 8, 8), torch.zeros(2, 1, 8, 8), torch.zeros(0, 3, 8, 8), torch.zeros(2, 3, 8, 8).long()])
def test_image_grid_refuses_what_is_no_batch_of_pictures(images):
    with pytest.raises(ValueError, match="images must be"):
        plots.image_grid(images)


def steps_of(n: int) -> list[Step]:
    """Steps whose x is all (i − n)/n and x_0 all i/n in the first image of the batch, so that one sees which is drawn."""
    value = lambda v: torch.stack([torch.full((3, 2, 2), v), torch.zeros(3, 2, 2)])  # noqa: E731
    return [Step(CLEAN if i == n else 100 - i, value((i - n) / n), value(i / n)) for i in range(1, n + 1)]


@pytest.mark.parametrize(("n", "shown"), [(1, [1]), (7, [1, 2, 3, 4, 5, 6, 7]), (10, [1, 2, 3, 5, 6, 7, 8, 10]),
                                          (50, [6, 12, 18, 25, 31, 37, 43, 50])])
def test_trajectory_strip_shows_evenly_spread_steps_and_always_the_last(n, shown):
    figure = plots.trajectory_strip(iter(steps_of(n)))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[:-2] == ["clean" if i == n else f"t = {100 - i}" for i in shown]
    canvas = np.asarray(figure.axes[0].images[0].get_array())
    rows = canvas[-6], canvas[20 + 2]  # a line within the lower and within the upper row of images
    for row, values in zip(rows, ([i / n for i in shown], [(i - n) / n for i in shown]), strict=True):
        levels = {int(level) for level in row[:, 0]} - {255}
        assert levels == {round((value + 1) * 127.5) for value in values} - {255}


def test_trajectory_strip_says_when_there_is_nothing_to_show():
    with pytest.raises(ValueError, match="already used up"):
        plots.trajectory_strip(iter(()))


def test_curves_draw_the_numbers_the_bands_and_the_level():
    x, y, error = torch.tensor([5, 10, 50]), torch.tensor([3.0, 2.0, 1.0]), torch.tensor([0.5, 0.2, 0.1])
    figure = plots.curves({"a": (x, y, error), "b": ([5, 20], [1, 2])}, "steps", "FD", log_x=True, log_y=True, level=0.25)
    axes, = figure.axes
    first, second, level = axes.get_lines()
    assert np.allclose(first.get_xdata(), x) and np.allclose(first.get_ydata(), y)
    assert np.allclose(second.get_ydata(), [1, 2]) and set(level.get_ydata()) == {0.25}
    band, = axes.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.round(4)}
    for at, low, high in ((5, 2.5, 3.5), (10, 1.8, 2.2), (50, 0.9, 1.1)):
        assert {(at, low), (at, high)} <= corners
    assert [text.get_text() for text in axes.get_xticklabels()] == ["5", "10", "20", "50"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale(), axes.get_yscale()) == ("steps", "FD", "log", "log")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]


def test_numbers_at_logarithmic_axes_are_plain_and_do_not_stand_in_each_other():
    axes, = plots.curves({"a": ([5, 19, 20, 58], [11, 7, 5, 4.5])}, "steps", "FD", log_x=True, log_y=True).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["5", "19", "", "58"]
    assert axes.yaxis.get_major_formatter()(10) == "10" and "$" not in axes.yaxis.get_minor_formatter()(6)
    axes, = plots.curves({"a": ([1, 10], [1e-5, 3])}, "steps", "error", log_y=True).axes
    assert "10^{-5}" in axes.yaxis.get_major_formatter()(1e-5)


def test_curves_of_many_points_have_no_markers_and_few_do():
    axes, = plots.curves({"long": (range(100), range(100)), "short": (range(5), range(5))}, "x", "y").axes
    long, short = axes.get_lines()
    assert long.get_marker() == "" and short.get_marker() not in ("", "None", None)


def test_scatter_panels_hold_the_points_over_the_data():
    clouds = {f"panel {i}": torch.full((4, 2), float(i)) / 10 for i in range(5)}
    figure = plots.scatter(clouds, columns=3, data=torch.ones(7, 2))
    shown, empty = figure.axes[:5], figure.axes[5:]
    for axes, (title, points) in zip(shown, clouds.items(), strict=True):
        behind, front = axes.get_lines()
        assert axes.get_title() == title and len(behind.get_xdata()) == 7
        assert np.allclose(np.stack([front.get_xdata(), front.get_ydata()], 1), points)
    assert len(empty) == 1 and not empty[0].axison


def test_vector_field_arrows_have_their_true_length():
    at, arrows = torch.tensor([[0.0, 1.0], [0.5, -0.5]]), torch.tensor([[0.25, 0.0], [-0.1, 0.3]])
    figure = plots.vector_field({"t = 0": (torch.zeros(3, 2), at, arrows)})
    quiver, = figure.axes[0].collections
    assert np.allclose(quiver.XY, at) and np.allclose(np.stack([quiver.U, quiver.V], 1), arrows)
    assert (quiver.angles, quiver.scale_units, quiver.scale) == ("xy", "xy", 1)


def test_paths_run_from_circle_to_dot():
    ways = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0))  # 5 steps, 3 samples
    *lines, start, end = plots.paths({"": ways}).axes[0].get_lines()
    assert len(lines) == 3
    for i, line in enumerate(lines):
        assert np.allclose(np.stack([line.get_xdata(), line.get_ydata()], 1), ways[:, i])
    assert np.allclose(np.stack([start.get_xdata(), start.get_ydata()], 1), ways[0]) and start.get_markerfacecolor() == "none"
    assert np.allclose(np.stack([end.get_xdata(), end.get_ydata()], 1), ways[-1]) and end.get_markerfacecolor() != "none"


@pytest.mark.parametrize("make", [lambda x: plots.scatter({"": x}), lambda x: plots.paths({"": x[None]})])
def test_points_must_have_two_coordinates(make):
    with pytest.raises(ValueError, match=r"points must be \(\.\.\., 2\)"):
        make(torch.zeros(5, 3))


def test_figures_are_at_most_eight_inches_wide():
    points = torch.zeros(2, 2)
    figures = [plots.curves({"": ([1], [1])}, "", ""), *(plots.scatter(dict.fromkeys(map(str, range(n)), points)) for n in (1, 2, 3, 4, 9))]
    assert all(drawn(figure).shape[1] <= 800 for figure in figures)


def test_drawing_leaves_pyplot_and_the_global_settings_alone():
    # Asking for the setting "backend" would itself import pyplot.
    code = ("import sys; from matplotlib import rcParams; names = set(rcParams) - {'backend'}; before = {n: rcParams[n] for n in names};"
            "from s2dm_mini import plots; plots.curves({'a': ([1, 2], [3, 4])}, 'x', 'y')._repr_png_();"
            "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'; assert before == {n: rcParams[n] for n in names}, 'rcParams'")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_dots_stand_where_they_were_put():
    groups = {"a": ([0, 1], [2, 3], [0.1, float("nan")]), "b": ([5], [-1], [0.2])}
    axes = plots.dots(groups, "predicted", "measured").axes[0]
    for container, (x, y, _) in zip(axes.containers, groups.values(), strict=True):
        line, _, bars = container
        assert line.get_xdata().tolist() == x and line.get_ydata().tolist() == y and line.get_linestyle() == "None"
    assert bars[0].get_segments()[0][:, 1].tolist() == pytest.approx([-1.2, -0.8])
    first, second = (container[0] for container in axes.containers)
    assert first.get_marker() != second.get_marker() and first.get_color() != second.get_color()


def test_forest_draws_each_interval_in_the_colour_of_its_sign():
    panels = {"A": {"down": (-5.0, -6.0, -4.0), "none": (0.5, -1.0, 2.0)}, "B": {"up": (3.0, 1.0, 5.0)}}
    a, b = plots.forest(panels, "change", (-14.0, -3.0)).axes
    assert [label.get_text() for label in a.get_yticklabels()] == ["down", "none", "up"] and a.yaxis_inverted()
    bars = [line for ax in (a, b) for line in ax.lines if len(set(line.get_xdata())) > 1]
    drawn_bars = [(line.get_color(), *line.get_xdata(), line.get_ydata()[0]) for line in bars]
    assert drawn_bars == [(plots.BLUE, -6.0, -4.0, 0), ("#777777", -1.0, 2.0, 1), (plots.VERMILION, 1.0, 5.0, 2)]


def test_planes_show_points_in_the_colours_of_the_plane():
    x, y = [1, 10, 100], [0.01, 0.1]
    figure = plots.planes({"one": np.array([[-20, 0, 20], [-10, 5, 99]]), "two": np.zeros((2, 3))}, x, y, "skip", "1 − τ", "%", 50,
                          {"one": [(10, 0.1, -20.0)]})
    first, second, bar = figure.axes
    assert (first.get_title(), second.get_title(), bar.get_ylabel()) == ("one", "two", "%")
    mesh, *_, point = first.collections
    assert mesh.norm.vmin == point.norm.vmin == -50 and mesh.norm.vmax == point.norm.vmax == 50
    assert mesh.get_array().reshape(2, 3).tolist() == [[-20, 0, 20], [-10, 5, 99]]
    assert point.get_offsets().tolist() == [[10, 0.1]] and point.get_array().tolist() == [-20.0]
    assert not point.get_clip_on(), "a circle at the edge would be cut in half"
    assert first.get_xscale() == first.get_yscale() == "log" and drawn(figure).shape[1] == 800
