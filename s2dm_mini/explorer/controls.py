"""Controls of core ipywidgets: a number with a box and a slider, and an end of the strip. Each says in `problem` what it refuses."""
from collections.abc import Sequence

import ipywidgets as widgets
import traitlets

from .ends import shape_picture, upload

NOISE, SHAPE, OWN = "random noise", "a drawn shape", "own picture"  # kinds of an end
FULL = "The memory is full: choose fewer frames, or close other notebooks."


class Number(widgets.HBox):
    """A number from the first to the last of its stops: typed into a box that has its name, or pulled from stop to stop by the mouse.

    `value`: the number; `problem`: a sentence after a refused one, or empty. The page's style hides the slider's handle from the
    keyboard and from screen readers, because ipywidgets gives it no name; the box serves both.
    """

    value = traitlets.Any()
    problem = traitlets.Unicode("")

    def __init__(self, name: str, value: float, stops: Sequence[float], tooltip: str):
        self.name, self.stops = name, list(stops)
        kind, step = (widgets.IntText, 1) if isinstance(stops[0], int) else (widgets.FloatText, 0.001)
        self.box = kind(value, description=name, step=step, tooltip=tooltip)
        self.slider = widgets.SelectionSlider(options=self._options(), value=self._nearest(value), readout=False)
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
            self.stops = list(range(self.stops[0], last + 1))
            self.value = min(self.value, last)
            self.slider.unobserve(self._pulled, "value")  # new options first move a slider to its start
            self.slider.options, self.slider.value = self._options(), self.value
            self.slider.observe(self._pulled, "value")


class End(widgets.HBox):
    """One end of the strip. `value`: a seed or a picture, as in `Setting`; `problem`: a sentence, or empty."""

    value = traitlets.Any(0)
    problem = traitlets.Unicode("")

    def __init__(self, name: str, value: int | bytes):
        self.kind = widgets.Dropdown(options=[NOISE, SHAPE, OWN], description=name, layout=widgets.Layout(width="230px"),
                                     tooltip="Where this end of the strip comes from. Pictures are encoded: turned into the noise that "
                                             "draws them.")
        self.number = widgets.BoundedIntText(0, 0, 2**31 - 1, description=f"{name}, number", layout=widgets.Layout(width="180px"),
                                             tooltip="Which noise (its seed) or shape").add_class("s2dm-number-of-end")
        self.own = None
        super().__init__()
        for widget in (self.kind, self.number):
            widget.observe(self._changed, "value")
        self._show_controls()
        self.value = value

    def _show_controls(self) -> None:
        """Show the number or a file button, new each time: a button whose file the server dropped no longer reacts."""
        old = self.children[1:]
        if self.kind.value != OWN:
            self.children = [self.kind, self.number]
        else:
            self.file = widgets.FileUpload(accept="image/*", multiple=False, description="Choose", layout=widgets.Layout(width="110px"),
                                           tooltip="A picture from your disk, at most 8 MB; its middle is used, at 32 × 32 pixels")
            self.file.observe(self._changed, "value")
            self.children = [self.kind, self.file, widgets.Label("up to 8 MB (Jupyter may drop larger files without a word)")]
        close_all(*(widget for widget in old if widget is not self.number))

    def _changed(self, change: dict) -> None:
        if change["owner"] is self.kind:
            self._show_controls()
        try:
            if isinstance(change["owner"], widgets.FileUpload) and change["new"]:
                self.own = upload(change["new"][0]["name"], bytes(change["new"][0]["content"]))
            value = self._picture()
        except (ValueError, MemoryError) as error:
            self.problem = FULL if isinstance(error, MemoryError) else str(error)
            return
        self.problem = f"{self.kind.description}: choose a picture file; until then the end stays as it is." if value is None else ""
        self.value = self.value if value is None else value

    def _picture(self) -> int | bytes | None:
        """The seed or picture that the controls select; None until a file is chosen."""
        number = self.number.value
        if self.kind.value == NOISE:
            return number
        if self.kind.value == SHAPE:
            return shape_picture(number)
        return self.own

    @traitlets.observe("value")
    def _follow(self, change: dict) -> None:
        """Show a value that code has set."""
        value = change["new"]
        if isinstance(value, int):
            if self.kind.value != NOISE or self.number.value != value:
                self.number.value, self.kind.value = value, NOISE
        elif self.kind.value == NOISE:
            self.own, self.kind.value = value, OWN


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
