"""The latent explorer as a notebook page: core ipywidgets over the pure functions of this folder.

    from s2dm_mini import explore
    explore(skip=49, tau=0.9)

Controls only set the wanted setting. One thread draws it, coarse to fine, and checks between sampler steps for a newer one. So the
kernel stays free for the next move, and an outdated run ends at its next step. What was drawn travels as style sheets: the page's
pictures are backgrounds, which the browser moves, walks through and blinks without asking.
"""
import base64
import html
import io
import os
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import ipywidgets as widgets
from IPython import get_ipython
from PIL import Image
from torch import Tensor

from ..latents import WAYS
from ..plots import tile
from ..samplers import SAMPLERS
from ..schedule import SPACINGS
from ..support.checks import check_name, require
from .controls import End, Number, close_all, reason
from .ends import upload
from .pictures import code, difference, draw, factor, gain_of, row_png, sizes, toy
from .plane import PRESETS, SKIPS, TAUS, nearest_cell, plane
from .setting import HOW, LIMITS, Setting, changed, families, family, grid, to_query
from .strips import View, complaint, verdict, views

PREVIEW_SECONDS = 0.1  # between two previews: drawing one costs a third of a sampler step
SETTLED_SECONDS, SWEEP_SECONDS = 0.12, 0.45  # without a move, before curves and map are drawn; before the next τ of a sweep
# 0.5 … 0.9 in steps of 0.05, then 0.01, then 0.001: the effect of τ depends on 1 − τ.
TAU_STOPS = [*(i / 20 for i in range(10, 18)), *(i / 100 for i in range(90, 99)), *(i / 1000 for i in range(990, 1001))]
FIELDS = [field.name for field in fields(Setting)]  # each has a control of the same name
CELLS = [(f"skip {skip}, τ {tau:g}", (skip, tau)) for tau in TAUS for skip in SKIPS]
PARTS = ("presets", "motion", "film", "map", "curve", "toy", "more", "save")  # that `hide` can leave out
FOLDER = Path(__file__).parent
# The page's fixed parts by name, each after a comment with it.
HTML = dict(re.findall(r"<!-- (\w+) -->\n(.*?)(?=<!--|\Z)", (FOLDER / "widget.html").read_text(encoding="utf-8"), flags=re.DOTALL))
LATE = ' <span class="s2dm-late">Nothing has come for half a minute: if that lasts, the kernel has stopped; run the cell again.</span>'


class Explorer(widgets.VBox):
    """The whole page. Without a kernel, an executed notebook shows the finished strip.

    hide: names out of PARTS to leave out. story: cards of a lesson, each a question and what differs from `setting` where it starts, as
    (text, {"skip": 9}). Raises ValueError for unknown names and values out of range, CheckpointError for an unknown family.
    """

    def __init__(self, setting: Setting, hide: Sequence[str] = (), story: Sequence[tuple[str, dict]] = ()):
        self._news, self._wanted, self._worker, self._closed, self._held = threading.Condition(), None, None, False, True
        lists = (list, tuple, set)
        require(isinstance(hide, (str, *lists)), f"hide must be a list of names out of {', '.join(PARTS)}", hide)
        names = [hide] if isinstance(hide, str) else list(hide)
        for name in names:
            check_name("hide", name, PARTS)
        self.hidden = set(names)
        require(isinstance(story, lists) and all(isinstance(card, lists) and [*map(type, card)] == [str, dict] for card in story),
                'story must be a list of cards, each a text and its changes, such as [("Blink.", {"skip": 9})]', story)
        self.story = [(text, changed(setting, changes)) for text, changes in story]
        for start in (setting, *(start for _, start in self.story)):
            family(start)
            for name in ("first", "second"):
                if isinstance(end := getattr(start, name), bytes):
                    upload(f"the picture {name}", end)  # refuses what is no picture
        self._view: View | None = None  # the last finished strip
        self._sweep: list[float] = []
        self.sentence, self._status = "", ""  # what the drawing thread says, in words and as HTML
        self._make_controls(setting)
        super().__init__(self._arrange())
        self.add_class("s2dm").add_class(f"s2dm-{self.model_id}")
        for name in (*FIELDS, "frame", "time"):
            getattr(self, name).observe(self._moved, ["value", "problem"])
        self.map.observe(self._taken, "value")
        self._page = 0
        self._turn(0)

    def _make_controls(self, s: Setting) -> None:
        for name, label, stops, tooltip in (
                ("skip", "skip", range(1, 100), "How many timesteps the loss looks back; S²-DM^k has skip k − 1"),
                ("tau", "τ", TAU_STOPS, "Weight of the usual loss; 1 is L₀ alone. The slider is finer towards 1"),
                ("steps", "steps", range(1, 101), "Steps of the walk from noise to picture; more are finer and slower"),
                ("eta", "η", [i / 20 for i in range(21)], "Fresh noise that DDIM adds at each step; other samplers have no η"),
                ("frames", "frames", range(LIMITS["frames"][0], LIMITS["frames"][1] + 1), "Pictures from end to end")):
            setattr(self, name, Number(label, getattr(s, name), stops, tooltip))
        self.frame = Number("frame", (s.frames + 1) // 2, range(1, s.frames + 1), "The frame shown large, from one end to the other")
        self.time = Number("time, %", 100, range(101), "The walk from noise x_T, 0, to the picture x_0, 100")
        for name, label, options, tooltip in (
                ("family", "networks", families(), "Size of the network, and the pictures it was trained on"),
                ("how", "S²-DM by", HOW, "closed form: L₀'s answer times s_t; trained: the nearest shipped network"),
                ("sampler", "sampler", [(sampler.title, name) for name, sampler in SAMPLERS.items()], "How to walk from noise to picture"),
                ("spacing", "spacing", SPACINGS, "Timesteps of the walk; quadratic: more of them near the picture"),
                ("way", "way", WAYS, "slerp: around the sphere, every frame from proper noise; lerp: straight")):
            setattr(self, name, widgets.Dropdown(options=list(options), value=getattr(s, name), description=label, tooltip=tooltip))
        self.first, self.second = End("from", s.first), End("to", s.second)
        self.map = widgets.RadioButtons(options=CELLS, value=CELLS[0][1], tooltip="The same frame for every skip and τ")
        self.presets = [self._button(words, partial(self._choose, skip=skip, tau=tau)) for words, (skip, tau) in PRESETS.items()]
        self.sweep = self._button("sweep τ", self._toggle_sweep)
        self.make = self._button("make PNG", self._make_file)
        self.back, self.next = self._button("back", lambda: self._turn(-1)), self._button("next", lambda: self._turn(1))
        for name in ("said", "card", "code", "files", "curve", "toy", "plots", "l0", "s2dm", "change", "cells", "place", "captions"):
            setattr(self, f"_{name}", widgets.HTML().add_class(f"s2dm-{name}"))

    def _button(self, words: str, action) -> widgets.Button:
        button = widgets.Button(description=words)
        button.on_click(lambda _: action())
        return button

    def _arrange(self) -> list[widgets.Widget]:
        """The parts of the page from top to bottom, those to hide among them: the browser leaves them out."""
        def box(name: str, *children: widgets.Widget) -> widgets.Box:
            return widgets.Box(children).add_class(f"s2dm-{name}")

        for name in (*FIELDS, "frame", "time", "map", "sweep", "make"):
            getattr(self, name).add_class(f"s2dm-at-{name}")
        look = (FOLDER / "look.css").read_text(encoding="utf-8") + (FOLDER / "widget.css").read_text(encoding="utf-8")
        fixed = {name: widgets.HTML(content) for name, content in HTML.items()}
        axes = [widgets.HTML(f'<div class="{name}" aria-hidden="true">{"".join(f"<span>{value}</span>" for value in values)}</div>')
                for name, values in (("corner", ["τ \\ skip"]), ("skips", SKIPS), ("taus", (f"{tau:g}" for tau in TAUS)))]
        more = (self.family, self.how, self.first, self.second, self.sampler, self.spacing, self.way, self.eta, self.frames, self._plots)
        parts = {"presets": box("chips", *self.presets), "motion": box("chips", fixed["motion"], self.sweep),
                 "film": box("film", fixed["film"]), "curve": self._curve, "toy": self._toy,
                 "map": box("plane", *axes, self.map.add_class("s2dm-map"), fixed["map"].add_class("s2dm-note")),
                 "more": box("part", fixed["more"], box("more", *more)),
                 "save": box("part", self._code, box("chips", self.make, self._files)),
                 "story": box("story", self._card, box("chips", self.back, self.next))}
        for name in self.hidden if self.story else {*self.hidden, "story"}:
            parts[name].layout.display = "none"
        left = box("left", box("pictures", fixed["three"], self._captions, parts["motion"], self.frame, self.time), parts["film"])
        right = box("right", self.skip, self.tau, self.steps, self._said, parts["map"])
        return [box("style", widgets.HTML(f"<style>{look}</style>"), self._l0, self._s2dm, self._change, self._cells, self._place),
                fixed["head"], parts["story"], parts["presets"], box("main", left, right, box("drawings", self._curve, self._toy)),
                parts["more"], parts["save"]]

    # ------------------------------------------------------------------------------------------ the wanted setting

    def setting(self) -> Setting:
        """The setting of the controls."""
        return Setting(**{name: getattr(self, name).value for name in FIELDS})

    def _set(self, **values) -> None:
        """Set several controls as one move."""
        self._held = True
        try:
            for name, value in values.items():
                getattr(self, name).value = value
        finally:
            self._held = False
        self._moved()

    def _choose(self, **values) -> None:
        """Set several controls for the user; a sweep, which would go on over them, ends."""
        self._end_sweep()
        self._set(**values)

    def _moved(self, change: dict | None = None) -> None:
        """Request the setting of the controls; the current run stops at its next step."""
        if self._held or self._closed:
            return
        if change and change["owner"] is self.tau:
            self._end_sweep()
        setting = self.setting()
        self.eta.box.disabled = self.eta.slider.disabled = not SAMPLERS[setting.sampler].takes_eta
        self.frame.end_at(setting.frames)
        row, column = nearest_cell(setting)
        self.map.index = row * len(SKIPS) + column
        self._place.value = self._css(frames=setting.frames, frame=self.frame.value - 1)
        link = f' <a href="?{to_query(setting)}">This setting as an address</a>' if "QUERY_STRING" in os.environ else ""  # of Voilà
        self._code.value = f"<p class='quiet'>The same from a notebook.{link}</p><pre>{html.escape(code(setting))}</pre>"
        self._tell()
        with self._news:
            if not self._closed:
                self._wanted = setting
                self._news.notify_all()
                if self._worker is None:  # no daemon: Python waits for it at its exit, instead of taking the network away from under it
                    self._worker = threading.Thread(target=self._work, name="s2dm explorer")
                    self._worker.start()

    def _taken(self, change: dict) -> None:
        """Take the skip and τ of the map's cell, unless it only follows the controls."""
        row, column = nearest_cell(self.setting())
        if not self._held and self.map.index != row * len(SKIPS) + column:
            skip, tau = change["new"]
            self._choose(skip=skip, tau=tau)

    def _turn(self, by: int) -> None:
        """Show another card of the story and set what it starts from."""
        start = {}
        if self.story:
            self._page = min(max(self._page + by, 0), len(self.story) - 1)
            text, setting = self.story[self._page]
            start = vars(setting)
            self._card.value = f"<p role='status'><b>{self._page + 1} of {len(self.story)}.</b> {html.escape(text)}</p>"
            self.back.disabled, self.next.disabled = self._page == 0, self._page == len(self.story) - 1
        self._set(**start)

    def _toggle_sweep(self) -> None:
        self._sweep = [] if self._sweep else [*TAUS, *TAUS[-2::-1]]
        self.sweep.description = "stop the sweep" if self._sweep else "sweep τ"
        self._moved()

    def _end_sweep(self) -> None:
        with self._news:
            self._sweep, self.sweep.description = [], "sweep τ"

    def wait(self, seconds: float = 60) -> bool:
        """Wait until the wanted setting is drawn; False if that takes longer."""
        with self._news:
            return self._news.wait_for(lambda: self._worker is None, seconds)

    def close(self) -> None:
        """Stop drawing, and give back the thread and all widgets of the page."""
        with self._news:
            already, self._closed, worker = self._closed, True, self._worker
            self._news.notify_all()
        if worker is not None and worker is not threading.current_thread():
            worker.join()
        if not already:
            close_all(self)

    # ------------------------------------------------------------------------------------------ the thread that draws

    def _work(self) -> None:
        """Draw what is wanted until nothing is. Whatever happens to one drawing, the page must stay usable."""
        try:
            while True:
                with self._news:
                    setting, self._wanted = self._wanted, None
                    if setting is None or self._outdated():
                        self._worker = None
                        self._news.notify_all()
                        return
                try:
                    self._draw(setting)
                except Exception as error:
                    self._say(reason(error), alarm=True)
        except BaseException:  # from outside: it ends this thread, and the next move starts another
            with self._news:
                self._worker = None
                self._news.notify_all()
            self._say("The drawing was stopped half-way; move a control to go on.", alarm=True)
            raise

    def _outdated(self) -> bool:
        """Something newer is wanted, or nothing any more: the page is closed, or Python is leaving."""
        return self._wanted is not None or self._closed or not threading.main_thread().is_alive()

    def _draw(self, setting: Setting) -> None:
        drawn = 0.0
        for view in views(setting):
            if self._outdated():
                return
            if not view.slower.done and time.monotonic() - drawn > PREVIEW_SECONDS:
                self._preview(view)
                drawn = time.monotonic()
        self._show(view)
        with self._news:
            if self._news.wait_for(self._outdated, SWEEP_SECONDS if self._sweep else SETTLED_SECONDS):
                return
            tau = self._sweep.pop(0) if self._sweep else None
        if tau is not None:
            self.sweep.description = "stop the sweep" if self._sweep else "sweep τ"
            self._set(tau=tau)
            return
        self._plots.value = sizes(view)
        if "toy" not in self.hidden:
            self._toy.value = toy(setting, view.drawn_by)
        if "map" not in self.hidden:
            for row in plane(setting, min(self.frame.value, setting.frames) - 1):
                if self._outdated():
                    return
                if row.done:
                    self._cells.value = self._css(map=_lossy(row.pixels, len(SKIPS), quality=75))

    def _preview(self, view: View) -> None:
        """Show the pictures foreseen so far, in few bytes."""
        if not view.l0.done:
            self._l0.value = self._css(l0=_lossy(view.l0.pixels, view.setting.frames))
        self._s2dm.value = self._css(s2dm=_lossy(view.s2dm.pixels, view.setting.frames))
        step = f"step {view.slower.step} of {view.slower.steps}"
        self._caption("", f"preview, {step}", "of the strip before", fresh=0.2)
        self._plots.value = "<p class=quiet>The plot of the noise's size follows when the strip is finished.</p>"
        self._say(f"Drawing, {step} …", late=True)

    def _show(self, view: View) -> None:
        """Show the finished strip, or both rows earlier on their way from noise."""
        by, asked, when = view.drawn_by, view.setting, ""
        self._view, moment = view, view
        if self.time.value < 100:
            reached = self.time.value * view.l0.steps // 100
            l0, s2dm = (replace(row, pixels=row.states[reached]) for row in (view.l0, view.s2dm))
            moment = replace(view, l0=l0, s2dm=s2dm)
            when = f", x_t at t = {grid(asked)[reached]}"
        gain = gain_of(moment)
        for name, pixels in (("l0", moment.l0.pixels), ("s2dm", moment.s2dm.pixels),
                             ("change", difference(moment.l0.pixels, moment.s2dm.pixels, gain))):
            getattr(self, f"_{name}").value = self._css(**{name: _url("png", row_png(pixels, asked.frames))})
        self._caption(f", frame {self.frame.value} of {asked.frames}{when}", f"skip {by.skip}, τ {by.tau:g}", f"×{gain}")
        self._curve.value = factor(by)
        where = " That is at x₀." if when and by.tau != 1 else ""
        self._say(complaint(view) or verdict(view) + where, alarm=bool(complaint(view)))

    def _css(self, **values) -> str:
        """A style sheet that sets variables of this page."""
        return f"<style>.s2dm-{self.model_id}{{{''.join(f'--{name}:{value};' for name, value in values.items())}}}</style>"

    def _caption(self, which: str, what: str, gain: str, fresh: float = 1) -> None:
        """Words under the three pictures. fresh: opacity of the change, which while others are drawn is still the one before."""
        self._captions.value = (f'{self._css(fresh=fresh)}<div class="s2dm-words"><p>L₀<span class="s2dm-which">{which}</span></p>'
                                f"<p>S²-DM, {what}</p><p>change {gain}, blue for darker, orange for brighter</p></div>")

    def _say(self, sentence: str, alarm: bool = False, late: bool = False) -> None:
        role = "role=alert class=alert" if alarm else "role=status"
        self.sentence, self._status = sentence, f"<p {role}>{html.escape(sentence)}{LATE if late else ''}</p>"
        self._tell()

    def _tell(self) -> None:
        """What the drawing thread says, after what controls refused."""
        problems = [getattr(getattr(self, name), "problem", "") for name in (*FIELDS, "frame", "time")]
        self._said.value = "".join(f"<p role=alert class=alert>{html.escape(words)}</p>" for words in problems if words) + self._status

    def _make_file(self) -> None:
        """Offer the finished strip as a file, named after what drew it; it stays until another is asked for."""
        if (view := self._view) is None:
            self._files.value = "<p>The first strip is not finished yet.</p>"
            return
        name = f"s2dm-skip{view.drawn_by.skip}-tau{view.drawn_by.tau:g}.png"
        self._files.value = f'<p><a download="{name}" href="{_link("png", draw(view))}">{name}</a></p>'

    def _repr_mimebundle_(self, **kwargs) -> dict:
        """The live widget; where nobody watches, as under papermill, also the finished strip, for readers without a kernel."""
        bundle = super()._repr_mimebundle_(**kwargs) | {"text/plain": "The latent explorer; live in a notebook with a running kernel."}
        if _somebody_watches() or not self.wait(600) or self._view is None:
            return bundle
        return bundle | {"image/png": base64.b64encode(draw(self._view)).decode()}


def _somebody_watches() -> bool:
    """Whether this runs for a person: under Voilà, or where code may ask for input, which executors of notebooks forbid."""
    kernel = getattr(get_ipython(), "kernel", None)
    asks = kernel is not None and kernel.get_parent("shell").get("content", {}).get("allow_stdin")
    return bool(asks) or "QUERY_STRING" in os.environ


def _lossy(pixels: Tensor, columns: int, quality: int = 50) -> str:
    """Images in few bytes, for previews and the map; the finished strip is exact."""
    file = io.BytesIO()
    Image.fromarray(tile(pixels, columns)).save(file, "WEBP", quality=quality, method=0)
    return _url("webp", file.getvalue())


def _url(kind: str, content: bytes) -> str:
    return f"url({_link(kind, content)})"


def _link(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
