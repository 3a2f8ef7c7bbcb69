"""What the notebooks share: checks in one line, numbered figures, and sliders, which move without a kernel where frames are few."""
import base64
import html
import inspect
import io
import itertools
import math
from collections.abc import Callable, Sequence

import ipywidgets as widgets
import torch
from IPython.display import Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

DPI, PAGE_DPI, FEW = 200, 100, 4096  # dots an inch in the file, and on the page; colours: drawings have fewer, photographs more
FRAMES, FRAME_PALETTES = 12, (32, 128)  # of the page without a kernel, at most
# Each slider is one digit of the frame's number. A page that removes scripts shows the picture in the middle alone.
MOVE = """let k = 0; for (const s of this.querySelectorAll('input')) {
s.nextElementSibling.value = s.dataset.names.split('|')[s.value]; k = k * (+s.max + 1) + +s.value }
this.querySelector('img').src = 'data:image/png;base64,' + this.dataset.frames.split(' ')[k]"""


def check(claim: str, value: bool | float | Tensor | Sequence[float], *, below: float | None = None, above: float | None = None,
          near: float | Tensor | None = None, within: float | None = None) -> None:
    """Print `check: claim` with its bound, which `reproduce` gathers.

    value: true or false, or numbers that all lie below, above, or within a distance of `near`. Raises AssertionError where one does not.
    """
    values, tests = torch.as_tensor(value, dtype=torch.float64, device="cpu").detach(), {}
    if not values.numel():
        raise ValueError(f"nothing to check: {claim}.")
    if near is not None:
        tests[f"within {within:.3g}"] = (values - torch.as_tensor(near, dtype=torch.float64, device="cpu")).abs() <= within
    if below is not None:
        tests[f"below {below:.3g}"] = values < below
    if above is not None:
        tests[f"above {above:.3g}"] = values > above
    for bound, holds in (tests or {"": values.bool()}).items():
        if not holds.all():
            wrong = values[~holds].flatten()[0].item()
            raise AssertionError(f"not true: {claim}. Found {wrong:.6g}{bound and f', not {bound}'}.")
    print(f"check: {claim}" + (f" ({', '.join(tests)})" if tests else ""))


def png(picture: Figure, dpi: int = DPI, palettes: tuple[int, int] = (256, 0)) -> bytes:
    """The figure as a file. palettes: its numbers of colours if it has few, and if it has many; 0 keeps all."""
    file, packed = io.BytesIO(), io.BytesIO()
    picture.savefig(file, format="png", dpi=dpi)
    image = Image.open(file).convert("RGB")
    if colours := palettes[0 if image.getcolors(FEW) else 1]:
        image = image.quantize(colours, dither=Image.Dither.NONE)
    image.save(packed, "png", optimize=True)
    return packed.getvalue()


def page_size(picture: Figure) -> dict[str, int]:
    return {name: round(PAGE_DPI * inches) for name, inches in zip(("width", "height"), picture.get_size_inches(), strict=True)}


def label_lines(picture: Figure, level: str = "") -> None:
    """Name each line at its right end, in its colour, in place of a legend of lines. level: the name of a horizontal dashed line."""
    picture.draw_without_rendering()
    for axes in picture.axes:
        legend, lines = axes.get_legend(), {line.get_label() for line in axes.lines}
        if legend and all(text.get_text() in lines for text in legend.get_texts()):
            _label(axes, level)
            legend.remove()


def _label(axes: Axes, level: str) -> None:
    last, ends = -float("inf"), []
    for line in axes.lines:
        name = level if line.get_label().startswith("_") else line.get_label()  # matplotlib's own names: outside the legend
        if name:
            ends.append((line.get_transform().transform(line.get_xydata())[-1, 1], name, line.get_color()))
    gap = 1.25 * axes.figure.dpi * 10 / 72  # dots between two names, in the font of 10 points
    for y, name, colour in sorted(ends):
        last = max(y, last + gap)
        height = axes.transAxes.inverted().transform((0, last))[1]
        axes.annotate(name, (1, height), (4, 0), xycoords="axes fraction", textcoords="offset points", va="center", color=colour)


class Sliders(widgets.VBox):
    """A slider for each argument of `draw`, from its default.

    Without a kernel, a page of HTML moves the first sliders, as many as need at most 12 pictures; the others stand at their defaults.
    """

    level = ""  # as in `label_lines`

    def __init__(self, draw: Callable[..., Figure], **options: Sequence):
        self.draw, first = draw, {name: argument.default for name, argument in inspect.signature(draw).parameters.items()}
        self.controls = {name: widgets.SelectionSlider(options=list(values), value=first[name], description=name.replace("_", " "),
                                                       continuous_update=False) for name, values in options.items()}
        self.image = widgets.Image(format="png", layout=widgets.Layout(max_width="800px"))
        super().__init__([*self.controls.values(), self.image])
        for control in self.controls.values():
            control.observe(lambda _: self.redraw(), "value")
        self.redraw()

    def _picture(self, **moved) -> Figure:
        picture = self.draw(**{name: control.value for name, control in self.controls.items()} | moved)
        label_lines(picture, self.level)
        return picture

    def redraw(self) -> None:
        picture = self._picture()
        self.image.value, self.size = png(picture), page_size(picture)

    def page(self) -> str:
        """The sliders as HTML with all their pictures inside."""
        moving = {}
        for name, control in self.controls.items():
            if math.prod(map(len, moving.values())) * len(control.options) <= FRAMES:
                moving[name] = control.options
        places = [dict(zip(moving, values, strict=True)) for values in itertools.product(*moving.values())]
        frames = [base64.b64encode(png(self._picture(**place), PAGE_DPI, FRAME_PALETTES)).decode() for place in places]
        now = places.index({name: self.controls[name].value for name in moving})
        rows = "".join(f'<label>{self.controls[name].description} <input type="range" min="0" max="{len(values) - 1}" '
                       f'value="{values.index(places[now][name])}" data-names="{html.escape("|".join(map(str, values)))}"> '
                       f"<output>{html.escape(str(places[now][name]))}</output></label><br>" for name, values in moving.items())
        return (f'<div class="sliders" data-frames="{" ".join(frames)}" oninput="{MOVE}">{rows}'
                f'<img alt="The figure at the sliders\' values" src="data:image/png;base64,{frames[now]}"></div>')

    def _repr_mimebundle_(self, **kwargs) -> tuple[dict, dict]:
        still = {"image/png": base64.b64encode(self.image.value).decode(), "text/html": self.page(),
                 "text/plain": "Sliders: live where a kernel runs."}
        return super()._repr_mimebundle_(**kwargs) | still, {"image/png": self.size}


def show(picture: Figure | Sliders, number: str, caption: str, level: str = "") -> None:
    """Show a numbered figure with a caption that says what to see. Lines are labelled at their ends; level: as in `label_lines`."""
    if isinstance(picture, Figure):
        label_lines(picture, level)
        display({"image/png": base64.b64encode(png(picture)).decode(), "text/plain": f"Figure {number}"}, raw=True,
                metadata={"image/png": page_size(picture)})
    else:
        if level:
            picture.level = level
            picture.redraw()
        display(picture)
    display(Markdown(f"**Figure {number}.** {caption}"))
