"""The latent explorer: core ipywidgets over the pure functions of strips.py and strip_pictures.py.

    from s2dm_mini import explore
    explore()

Controls only say what is wanted. One thread draws it, coarse to fine, and looks between two sampler steps whether
something else is wanted by now; so the kernel stays free to hear the next move, and no old run delays a newer one.
"""
import base64
import html
import threading
import time
from functools import lru_cache

import ipywidgets as widgets
import torch
import traitlets

from ..checkpoints import CheckpointError
from ..data.cifar10 import cifar10
from ..data.images import DataError, Images
from ..latents import WAYS
from ..samplers import SAMPLERS
from ..schedule import SPACINGS
from .ends import shape_picture, to_png, upload
from .pictures import CELL, GAP, LEFT, STRIP, animate, cell, code, draw, draw_curves, draw_plane
from .plane import SKIPS, TAUS, plane
from .setting import HOW, Setting, families
from .strips import complaint, views

PREVIEW_SECONDS = 0.1  # between two previews: drawing one costs a third of a sampler step
SETTLED_SECONDS = 0.12  # of quiet before plots and files are made
# 0.5 … 0.9 in steps of 0.05, then ten times as fine, and again: what τ does depends on 1 − τ.
TAU_STOPS = [*(i / 20 for i in range(10, 18)), *(i / 100 for i in range(90, 99)), *(i / 1000 for i in range(990, 1001))]
FULL = "The memory is full: choose fewer frames, or close other notebooks."
DOWNLOAD = '<a download="{name}" href="data:{kind};base64,{data}" style="margin-right:1em;text-decoration:underline">{label}</a>'


class End(widgets.HBox):
    """One end of the strip: a seed or a picture. `value` is what `Setting` takes; `problem` a sentence, or empty."""

    value = traitlets.Any(0)
    problem = traitlets.Unicode("")

    def __init__(self, name: str, value: int | bytes):
        kinds = ["random noise", "a drawn shape", "CIFAR-10 test image", "own picture"]
        self.kind = widgets.Dropdown(options=kinds, value=kinds[0] if isinstance(value, int) else kinds[3], description=name,
                                     tooltip="Where this end of the strip comes from. Pictures are encoded: turned into the noise that "
                                             "draws them.", layout=widgets.Layout(width="260px"))
        self.number = widgets.BoundedIntText(value if isinstance(value, int) else 0, 0, 2**31 - 1, layout=widgets.Layout(width="90px"),
                                             tooltip="Which noise (its seed), shape or CIFAR-10 image")
        super().__init__()
        self.own, self.value = value if isinstance(value, bytes) else None, value
        self._show_controls()
        for widget in (self.kind, self.number):
            widget.observe(self._changed, "value")

    def _show_controls(self) -> None:
        """Beside the kind a number, or what chooses a file: made anew each time, since one whose file was dropped on the way stays deaf."""
        if self.kind.value != "own picture":
            self.children = [self.kind, self.number]
            return
        self.file = widgets.FileUpload(accept="image/*", multiple=False, description="Choose", layout=widgets.Layout(width="110px"),
                                       tooltip="A picture from your disk, at most 8 MB; its middle is used, at 32 × 32 pixels")
        self.file.observe(self._changed, "value")
        self.children = [self.kind, self.file, widgets.Label("up to 8 MB (Jupyter may drop larger files without a word)")]

    def _changed(self, change: dict) -> None:
        if change["owner"] is self.kind:
            self._show_controls()
        try:
            if isinstance(change["owner"], widgets.FileUpload) and change["new"]:
                self.own = upload(change["new"][0]["name"], bytes(change["new"][0]["content"]))
            value = self._picture()
        except (DataError, ValueError, MemoryError) as error:
            self.problem = FULL if isinstance(error, MemoryError) else str(error)
            return
        if value is not None:
            self.problem, self.value = "", value

    def _picture(self) -> int | bytes | None:
        number = self.number.value
        if self.kind.value == "random noise":
            return number
        if self.kind.value == "a drawn shape":
            return shape_picture(number)
        if self.kind.value == "own picture":
            return self.own
        return to_png(_test_images().pixels[number % 10_000])


@lru_cache(maxsize=1)
def _test_images() -> Images:
    return cifar10("test")


class Explorer(widgets.VBox):
    """The whole page. Without a kernel, a notebook shows the strip as it last was."""

    def __init__(self, setting: Setting):
        self.first, self.second = End("from", setting.first), End("to", setting.second)
        self._make_controls(setting)
        # No tooltips on images: with one, the front end (ipywidgets 8.1) fails to show them.
        self.strip, self.curves = (widgets.Image(format="png", layout=widgets.Layout(width=f"{LEFT + STRIP + GAP}px", max_width="100%"))
                                   for _ in range(2))
        self.map = widgets.Image(format="png", layout=widgets.Layout(grid_area="1 / 1 / 2 / 2", width=f"{cell(0, len(SKIPS))[0]}px"))
        self.message = widgets.HTML()
        self.files = widgets.HTML()
        self.tabs = widgets.Tab([widgets.VBox([self.strip, self.curves]), self._clickable_map()], titles=["strip", "map of skip and τ"])
        rows = ([self.family, self.how, self.way], [self.first, self.second], [self.skip, self.tau_slider, self.tau],
                [self.sampler, self.spacing, self.eta], [self.steps, self.frames, self.amplify])
        controls = [widgets.HBox(row, layout=widgets.Layout(flex_flow="row wrap", align_items="center")) for row in rows]
        super().__init__([*controls, self.message, self.tabs, self.files])
        for name, widget in self._named().items():
            widget.add_class(f"s2dm-{name.replace('_', '-')}")

        self._news, self._wanted, self._busy = threading.Condition(), None, False
        threading.Thread(target=self._work, name="s2dm explorer", daemon=True).start()
        self.tau_slider.observe(self._tau_slid, "value")
        self.tau.observe(self._tau_typed, "value")
        for widget in (self.family, self.first, self.second, self.skip, self.tau, self.how, self.sampler, self.steps, self.spacing,
                       self.eta, self.way, self.frames, self.amplify):
            widget.observe(self._moved, "value")
        for end in (self.first, self.second):
            end.observe(self._moved, "problem")
        self.tabs.observe(self._moved, "selected_index")
        self._moved()

    def _make_controls(self, s: Setting) -> None:
        def wide(width: int) -> dict:
            return {"layout": widgets.Layout(width=f"{width}px"), "style": {"description_width": "80px"}}

        self.family = widgets.Dropdown(options=_family_names(s), value=s.family, description="networks", **wide(260),
                                       tooltip="Size of the network, and the pictures it was trained on")
        self.skip = widgets.IntSlider(s.skip, 1, 99, description="skip", **wide(330),
                                      tooltip="How many timesteps the loss looks back; S²-DM^k has skip k − 1")
        self.tau_slider = widgets.SelectionSlider(options=[(f"{tau:g}", tau) for tau in TAU_STOPS], value=_nearest_stop(s.tau),
                                                  description="τ", readout=False, **wide(300),
                                                  tooltip="Weight of the usual loss; 1 is L₀ alone. Finer towards 1")
        self.tau = widgets.BoundedFloatText(s.tau, min=0.5, max=1.0, step=0.001, layout=widgets.Layout(width="85px"),
                                            tooltip="τ as a number from 0.5 to 1")
        self.how = widgets.ToggleButtons(options=HOW, value=s.how, style={"button_width": "100px"},
                                         tooltips=["Multiply L₀'s answer by s_t, for any skip and τ, without training",
                                                   "The shipped network whose training comes nearest; its name stands under the strip"])
        self.sampler = widgets.Dropdown(options=[(sampler.title, name) for name, sampler in SAMPLERS.items()], value=s.sampler,
                                        description="sampler", **wide(260), tooltip="How to walk from noise to picture")
        self.steps = widgets.IntSlider(s.steps, 1, 50, description="steps", **wide(330),
                                       tooltip="Steps of the walk; more are finer and slower")
        self.spacing = widgets.Dropdown(options=list(SPACINGS), value=s.spacing, description="spacing", **wide(210),
                                        tooltip="Which timesteps the walk visits; quadratic spends more of them near the picture")
        self.eta = widgets.FloatSlider(s.eta, min=0, max=1, step=0.05, description="η", **wide(300),
                                       tooltip="Fresh noise that DDIM adds at each step; 0 is none. Other samplers have no η")
        self.way = widgets.ToggleButtons(options=list(WAYS), value=s.way, style={"button_width": "70px"},
                                         tooltips=["Around the sphere: every frame starts from proper noise",
                                                   "Straight: frames in the middle start from too little noise"])
        self.frames = widgets.IntSlider(s.frames, 3, 12, description="frames", **wide(330), tooltip="Pictures from end to end")
        self.amplify = widgets.Dropdown(options=[(f"×{k}", k) for k in (1, 2, 4, 8, 16, 32, 64)], value=s.amplify, description="change",
                                        **wide(180), tooltip="How strongly the third row is amplified")

    def _named(self) -> dict[str, widgets.Widget]:
        names = ("first", "second", "family", "skip", "tau_slider", "tau", "how", "sampler", "steps", "spacing", "eta", "way", "frames",
                 "amplify", "strip", "curves", "map", "message", "files", "tabs")
        return {name: getattr(self, name) for name in names}

    def _clickable_map(self) -> widgets.GridBox:
        """The picture of the map, and over each of its cells a see-through button, so that keys reach them too."""
        buttons = []
        for row, tau in enumerate(TAUS):
            for column, skip in enumerate(SKIPS):
                x, y = cell(row, column)
                place = widgets.Layout(grid_area="1 / 1 / 2 / 2", margin=f"{y}px 0 0 {x}px", width=f"{CELL}px", height=f"{CELL}px")
                button = widgets.Button(tooltip=f"skip {skip}, τ {tau:g}: take these", style={"button_color": "transparent"}, layout=place)
                button.on_click(lambda _, skip=skip, tau=tau: self._take(skip, tau))
                buttons.append(button)
        self.cells = buttons
        return widgets.GridBox([self.map, *buttons], layout=widgets.Layout(grid_template_columns=f"{LEFT + STRIP + GAP}px"))

    # ------------------------------------------------------------------------------------------ what is wanted

    def setting(self) -> Setting:
        """What the controls say."""
        return Setting(self.family.value, self.first.value, self.second.value, self.way.value, self.frames.value, self.skip.value,
                       self.tau.value, self.how.value, self.sampler.value, self.steps.value, self.spacing.value, self.eta.value,
                       self.amplify.value)

    def _take(self, skip: int, tau: float) -> None:
        self.skip.value, self.tau.value = skip, tau

    def _tau_slid(self, change: dict) -> None:
        if change["new"] != _nearest_stop(self.tau.value):  # else the slider only followed what was typed
            self.tau.value = change["new"]

    def _tau_typed(self, change: dict) -> None:
        self.tau_slider.value = _nearest_stop(change["new"])

    def _moved(self, _: dict | None = None) -> None:
        """Ask for what the controls say; whatever is being drawn stops at its next step."""
        self.eta.disabled = not SAMPLERS[self.sampler.value].takes_eta
        with self._news:
            self._wanted, self._busy = (self.setting(), self.tabs.selected_index), True
            self._news.notify_all()

    def wait(self, seconds: float = 60) -> bool:
        """Wait until everything wanted is drawn; False if that takes longer."""
        with self._news:
            return self._news.wait_for(lambda: not self._busy, seconds)

    # ------------------------------------------------------------------------------------------ the thread that draws

    def _work(self) -> None:
        while True:
            with self._news:
                self._busy = self._wanted is not None
                self._news.notify_all()
                self._news.wait_for(lambda: self._wanted is not None)
                (setting, tab), self._wanted = self._wanted, None
            try:
                self._draw_map(setting) if tab == 1 else self._draw_strip(setting)
            except (CheckpointError, DataError, ValueError) as error:
                self._say(_sentence(error), alarm=True)
            except (MemoryError, torch.OutOfMemoryError):
                self._say(FULL, alarm=True)
            except Exception as error:  # the page must stay usable, whatever happened
                full = "memory" in str(error)
                self._say(FULL if full else f"This setting could not be drawn ({type(error).__name__}: {error}).", alarm=True)

    def _draw_strip(self, setting: Setting) -> None:
        self._say("drawing …")
        self.files.value = "<p>Files and code: when the strip is finished.</p>"
        drawn = 0.0
        for view in views(setting):
            if self._wanted is not None:
                return
            if view.done or time.monotonic() - drawn > PREVIEW_SECONDS:
                self.strip.value, drawn = draw(view), time.monotonic()
        problem = self.first.problem or self.second.problem or complaint(view)
        self._say(problem or f"S²-DM row: {view.source}. {setting.evaluations} network evaluations a picture.", alarm=bool(problem))
        if self._newer_within(SETTLED_SECONDS):
            return
        self.curves.value = draw_curves(view)
        name = f"s2dm-skip{setting.skip}-tau{setting.tau:g}"
        files = [(f"{name}.png", "image/png", self.strip.value, "Save as PNG"),
                 (f"{name}.gif", "image/gif", animate(view), "Save as animated GIF")]
        links = "".join(DOWNLOAD.format(name=name, kind=kind, data=base64.b64encode(content).decode(), label=label)
                        for name, kind, content, label in files)
        self.files.value = (f"<p>{links}</p><details><summary>Code that draws this strip</summary>"
                            f"<pre style='overflow:auto'>{html.escape(code(setting))}</pre></details>")

    def _draw_map(self, setting: Setting) -> None:
        self._say("drawing …")
        for view in plane(setting):
            if self._wanted is not None:
                return
            self.map.value = draw_plane(view)
        self._say("Click a picture, or press Enter on it, to take its skip and τ.")

    def _newer_within(self, seconds: float) -> bool:
        with self._news:
            return self._news.wait_for(lambda: self._wanted is not None, seconds)

    def _say(self, sentence: str, alarm: bool = False) -> None:
        kind = "role='alert' style='color:#a63c00;font-weight:bold'" if alarm else "role='status'"
        self.message.value = f"<p {kind}>{html.escape(sentence)}</p>"

    def _repr_mimebundle_(self, **kwargs) -> dict:
        """The live widget, and beside it the finished strip, which is what shows where there is no kernel."""
        bundle = super()._repr_mimebundle_(**kwargs)
        self.wait()
        return bundle | {"text/plain": "The latent explorer; live in a notebook with a running kernel.",
                         "image/png": base64.b64encode(self.strip.value).decode()}


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]


def _family_names(setting: Setting) -> list[str]:
    """The families of the zoo; if it cannot be read, the one asked for: the drawing thread then says what is wrong."""
    try:
        return sorted({*families(), setting.family})
    except CheckpointError:
        return [setting.family]


def _nearest_stop(tau: float) -> float:
    return min(TAU_STOPS, key=lambda stop: abs(stop - tau))
