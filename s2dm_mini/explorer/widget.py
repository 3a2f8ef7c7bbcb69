"""The latent explorer as a notebook page: core ipywidgets over the pure functions of this folder.

    from s2dm_mini import explore
    explore()

Controls only set the wanted setting. One thread draws it, coarse to fine, and checks between sampler steps for a newer one. So the
kernel stays free for the next move, and an outdated run ends at its next step.
"""
import base64
import html
import threading
import time
from dataclasses import fields
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
SETTLED_SECONDS = 0.12  # without a move, before curves and files are made
# 0.5 … 0.9 in steps of 0.05, then 0.01, then 0.001: the effect of τ depends on 1 − τ.
TAU_STOPS = [*(i / 20 for i in range(10, 18)), *(i / 100 for i in range(90, 99)), *(i / 1000 for i in range(990, 1001))]
NOISE, SHAPE, TEST_IMAGE, OWN = "random noise", "a drawn shape", "CIFAR-10 test image", "own picture"  # kinds of an end
FIELDS = [field.name for field in fields(Setting)]  # each has a control of the same name
FULL = "The memory is full: choose fewer frames, or close other notebooks."
DOWNLOAD = '<a download="{name}" href="data:{kind};base64,{data}" style="margin-right:1em;text-decoration:underline">{label}</a>'


class End(widgets.HBox):
    """The control of one end of the strip. `value`: a seed or a picture, as in `Setting`; `problem`: a sentence, or empty."""

    value = traitlets.Any(0)
    problem = traitlets.Unicode("")

    def __init__(self, name: str, value: int | bytes):
        seed, self.own = (value, None) if isinstance(value, int) else (0, value)
        self.kind = widgets.Dropdown(options=[NOISE, SHAPE, TEST_IMAGE, OWN], value=NOISE if self.own is None else OWN, description=name,
                                     tooltip="Where this end of the strip comes from. Pictures are encoded: turned into the noise that "
                                             "draws them.", layout=widgets.Layout(width="260px"))
        self.number = widgets.BoundedIntText(seed, 0, 2**31 - 1, tooltip="Which noise (its seed), shape or CIFAR-10 image",
                                             layout=widgets.Layout(width="90px"))
        super().__init__()
        self.value = value
        self._show_controls()
        for widget in (self.kind, self.number):
            widget.observe(self._changed, "value")

    def _show_controls(self) -> None:
        """Show the number or a file button, new each time: a button whose file the server dropped no longer reacts."""
        if self.kind.value != OWN:
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
        """The seed or picture that the controls select; None until a file is chosen."""
        number = self.number.value
        if self.kind.value == NOISE:
            return number
        if self.kind.value == SHAPE:
            return shape_picture(number)
        if self.kind.value == OWN:
            return self.own
        return to_png(_test_images().pixels[number % 10_000])


class Explorer(widgets.VBox):
    """The whole page. Without a kernel, a notebook shows the last finished strip."""

    def __init__(self, setting: Setting):
        self._make_controls(setting)
        rows = ([self.family, self.how, self.way], [self.first, self.second], [self.skip, self.tau_slider, self.tau],
                [self.sampler, self.spacing, self.eta], [self.steps, self.frames, self.amplify])
        controls = [widgets.HBox(row, layout=widgets.Layout(flex_flow="row wrap", align_items="center")) for row in rows]
        # No tooltips on images: with one, the front end (ipywidgets 8.1) fails to show them.
        self.strip, self.curves = (widgets.Image(format="png", layout=widgets.Layout(width=f"{LEFT + STRIP + GAP}px", max_width="100%"))
                                   for _ in range(2))
        self.map = widgets.Image(format="png", layout=widgets.Layout(grid_area="1 / 1 / 2 / 2", width=f"{cell(0, len(SKIPS))[0]}px"))
        self.cells = [self._cell_button(row, column) for row in range(len(TAUS)) for column in range(len(SKIPS))]
        clickable = widgets.GridBox([self.map, *self.cells], layout=widgets.Layout(grid_template_columns=f"{LEFT + STRIP + GAP}px"))
        self.tabs = widgets.Tab([widgets.VBox([self.strip, self.curves]), clickable], titles=["strip", "map of skip and τ"])
        self.message, self.files = widgets.HTML(), widgets.HTML()
        super().__init__([*controls, self.message, self.tabs, self.files])
        for name in (*FIELDS, "tau_slider", "strip", "curves", "map", "message", "files", "tabs"):
            getattr(self, name).add_class(f"s2dm-{name.replace('_', '-')}")

        self._news, self._wanted, self._busy = threading.Condition(), None, False
        threading.Thread(target=self._work, name="s2dm explorer", daemon=True).start()
        self.tau_slider.observe(self._tau_slid, "value")
        self.tau.observe(self._tau_typed, "value")
        for name in FIELDS:
            getattr(self, name).observe(self._moved, "value")
        for end in (self.first, self.second):
            end.observe(self._moved, "problem")
        self.tabs.observe(self._moved, "selected_index")
        self._moved()

    def _make_controls(self, s: Setting) -> None:
        def wide(width: int) -> dict:
            return {"layout": widgets.Layout(width=f"{width}px"), "style": {"description_width": "80px"}}

        self.first, self.second = End("from", s.first), End("to", s.second)
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

    def _cell_button(self, row: int, column: int) -> widgets.Button:
        """A transparent button over one cell of the map, which clicks and keys reach; it takes the skip and τ of the cell."""
        skip, tau, (x, y) = SKIPS[column], TAUS[row], cell(row, column)
        button = widgets.Button(tooltip=f"skip {skip}, τ {tau:g}: take these", style={"button_color": "transparent"},
                                layout=widgets.Layout(grid_area="1 / 1 / 2 / 2", margin=f"{y}px 0 0 {x}px", width=f"{CELL}px",
                                                      height=f"{CELL}px"))

        def take(_: widgets.Button) -> None:
            self.skip.value, self.tau.value = skip, tau

        button.on_click(take)
        return button

    # ------------------------------------------------------------------------------------------ the wanted setting

    def setting(self) -> Setting:
        """The setting of the controls."""
        return Setting(**{name: getattr(self, name).value for name in FIELDS})

    def _tau_slid(self, change: dict) -> None:
        if change["new"] != _nearest_stop(self.tau.value):  # else the slider only followed the typed number
            self.tau.value = change["new"]

    def _tau_typed(self, change: dict) -> None:
        self.tau_slider.value = _nearest_stop(change["new"])

    def _moved(self, _: dict | None = None) -> None:
        """Request the setting of the controls; the current run stops at its next step."""
        self.eta.disabled = not SAMPLERS[self.sampler.value].takes_eta
        with self._news:
            self._wanted, self._busy = (self.setting(), self.tabs.selected_index), True
            self._news.notify_all()

    def wait(self, seconds: float = 60) -> bool:
        """Wait until the wanted setting is drawn; False if that takes longer."""
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
            except Exception as error:  # whatever happened, the page must stay usable
                self._say(_reason(error), alarm=True)

    def _draw_strip(self, setting: Setting) -> None:
        self._say("drawing …")
        self.files.value = "<p>Files and code: when the strip is finished.</p>"
        drawn = 0.0
        for view in views(setting):
            if self._wanted is not None:
                return
            if view.slower.done or time.monotonic() - drawn > PREVIEW_SECONDS:
                self.strip.value, drawn = draw(view), time.monotonic()
        problem = self.first.problem or self.second.problem or complaint(view)
        self._say(problem or f"S²-DM row: {view.source}. {setting.evaluations} network evaluations a picture.", alarm=bool(problem))
        with self._news:
            if self._news.wait_for(lambda: self._wanted is not None, SETTLED_SECONDS):
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
        for row in plane(setting):
            if self._wanted is not None:
                return
            self.map.value = draw_plane(setting, row)
        self._say("Click a picture, or press Enter on it, to take its skip and τ.")

    def _say(self, sentence: str, alarm: bool = False) -> None:
        kind = "role='alert' style='color:#a63c00;font-weight:bold'" if alarm else "role='status'"
        self.message.value = f"<p {kind}>{html.escape(sentence)}</p>"

    def _repr_mimebundle_(self, **kwargs) -> dict:
        """The live widget, and the finished strip as a picture, which shows where there is no kernel."""
        bundle = super()._repr_mimebundle_(**kwargs)
        self.wait()
        return bundle | {"text/plain": "The latent explorer; live in a notebook with a running kernel.",
                         "image/png": base64.b64encode(self.strip.value).decode()}


@lru_cache(maxsize=1)
def _test_images() -> Images:
    return cifar10("test")


def _reason(error: Exception) -> str:
    """One sentence about an error, for the page."""
    if isinstance(error, (CheckpointError, DataError, ValueError)):
        return f"{str(error)[:1].upper()}{str(error)[1:]}"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "memory" in str(error):
        return FULL
    return f"This setting could not be drawn ({type(error).__name__}: {error})."


def _family_names(setting: Setting) -> list[str]:
    """The families of the shipped networks; if the manifest is damaged, only the setting's: the drawing thread then reports the damage."""
    try:
        return sorted({*families(), setting.family})
    except CheckpointError:
        return [setting.family]


def _nearest_stop(tau: float) -> float:
    return min(TAU_STOPS, key=lambda stop: abs(stop - tau))
