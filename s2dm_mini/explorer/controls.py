"""Controls of core ipywidgets: a number with a box and a slider, and an end of the strip. Each says in `problem` what it refuses."""
from collections.abc import Sequence

import ipywidgets as widgets
import torch
import traitlets

from ..checkpoints import CheckpointError
from ..support.checks import check_integer
from .ends import upload
from .setting import LAST_SEED


class Number(widgets.HBox):
    """A number from the first to the last of its stops: typed into a box that has its name, or pulled from stop to stop by the mouse.

    `value`: the number; `problem`: a sentence after a refused one, or empty. The page's style hides the slider's handle from the
    keyboard and from screen readers, because ipywidgets gives it no name; the box serves both.
    """

    value = traitlets.Any()
    problem = traitlets.Unicode("")

    def __init__(self, name: str, value: float, stops: Sequence[float], tooltip: str):
        self.name, self.stops = name, stops
        kind, step = (widgets.IntText, 1) if isinstance(stops[0], int) else (widgets.FloatText, 0.001)
        self.box = kind(description=name, step=step, tooltip=tooltip)
        self.slider = widgets.SelectionSlider(options=self._options(), readout=False)
        super().__init__([self.box, self.slider])
        self.value = value
        self.add_class("s2dm-number")
        self.box.observe(self._typed, "value")
        self.slider.observe(self._pulled, "value")

    def _options(self) -> list[tuple[str, float]]:
        return [(f"{stop:g}", stop) for stop in self.stops]

    def _nearest(self, value: float) -> float:
        return min(self.stops, key=lambda stop: abs(stop - value))

    def _typed(self, change: dict) -> None:
        typed = change["new"]
        if self.stops[0] <= typed <= self.stops[-1]:
            self.value = typed
        else:
            self.problem = (f"{self.name} lies between {self.stops[0]:g} and {self.stops[-1]:g}, with a point and no comma: {typed:g} "
                            f"does not, and {self.value:g} stays.")
            self.box.value = self.value

    def _pulled(self, change: dict) -> None:
        if change["new"] != self._nearest(self.value):  # else the slider only followed
            self.value = change["new"]

    @traitlets.observe("value")
    def _follow(self, change: dict) -> None:
        self.problem, self.box.value, self.slider.value = "", change["new"], self._nearest(change["new"])

    def end_at(self, last: int) -> None:
        """Let the number go as far as `last`."""
        if last != self.stops[-1]:
            self.stops = range(self.stops[0], last + 1)
            self.value = min(self.value, last)
            self.slider.unobserve(self._pulled, "value")  # new options first move a slider to its start
            self.slider.options, self.slider.value = self._options(), self.value
            self.slider.observe(self._pulled, "value")


class End(widgets.HBox):
    """One end of the strip: noise by its seed, or a picture file. `value`: a seed or a picture, as in `Setting`; `problem`: a sentence."""

    value = traitlets.Any(0)
    problem = traitlets.Unicode("")

    def __init__(self, name: str, value: int | bytes):
        self.name = name
        self.seed = widgets.IntText(description=f"{name} seed", tooltip="Which noise; another seed takes a picture's place again")
        super().__init__()
        self.add_class("s2dm-end")
        self._offer()
        self.seed.observe(self._typed, "value")
        self.value = value

    def _offer(self) -> None:
        """Show a new file button: one whose file the server dropped no longer reacts."""
        old = self.children[1:]
        self.file = widgets.FileUpload(accept="image/*", description=f"{self.name} a picture", tooltip=(
            "At most 8 MB (Jupyter may drop larger files without a word); its middle is encoded as the noise that draws it"))
        self.file.observe(self._chosen, "value")
        self.children = [self.seed, self.file]
        close_all(*old)

    def _typed(self, change: dict) -> None:
        self._take(lambda: check_integer("The seed of an end", change["new"], 0, LAST_SEED))
        if self.problem:
            self.seed.unobserve(self._typed, "value")  # the box goes back; a picture keeps its place
            self.seed.value = change["old"]
            self.seed.observe(self._typed, "value")
            return
        self._offer()

    def _chosen(self, change: dict) -> None:
        if change["new"]:
            self._take(lambda: upload(change["new"][0]["name"], bytes(change["new"][0]["content"])))

    def _take(self, read) -> None:
        try:
            self.value, self.problem = read(), ""
        except (ValueError, MemoryError) as error:
            self.problem = reason(error) if isinstance(error, MemoryError) else str(error)

    @traitlets.observe("value")
    def _follow(self, change: dict) -> None:
        if isinstance(change["new"], int):
            self.seed.value = change["new"]


def reason(error: Exception) -> str:
    """One sentence about an error, for the page."""
    if isinstance(error, (CheckpointError, ValueError)):
        return f"{str(error)[:1].upper()}{str(error)[1:]}"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "memory" in str(error):
        return "The memory is full: choose fewer frames, or close other notebooks."
    return f"This setting could not be drawn ({type(error).__name__}: {error})."


def close_all(*roots: widgets.Widget) -> None:
    """Close widgets with all that hangs on them: children, layouts, styles."""
    found, waiting = {}, list(roots)
    while waiting:
        widget = waiting.pop()
        if widget.comm is not None and widget.model_id not in found:  # None: closed already
            found[widget.model_id] = widget
            for value in (getattr(widget, key) for key in widget.keys):
                waiting += [part for part in (value if isinstance(value, tuple) else [value]) if isinstance(part, widgets.Widget)]
    for widget in found.values():
        widgets.Widget.close(widget)
