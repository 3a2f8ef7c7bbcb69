"""The explorer's widgets without a browser: what a front end would send is sent, and the pictures are, to the byte, what the pure
functions draw for the setting that was asked for; whatever goes wrong is a sentence, and the next move works again.
"""
import base64
import ctypes
import gc
import io
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace

import ipywidgets as widgets
import pytest
import torch
from ipywidgets.widgets.widget import _instances
from PIL import Image
from shipping import add_to_zoo

from s2dm_mini import checkpoints, explore, load_pretrained, shapes
from s2dm_mini.checkpoints import CheckpointError
from s2dm_mini.explorer import strips
from s2dm_mini.explorer import widget as e
from s2dm_mini.explorer.controls import End
from s2dm_mini.explorer.ends import UPLOAD_BYTES, upload
from s2dm_mini.explorer.pictures import WORDS, difference, draw, gain_of, row_png
from s2dm_mini.explorer.plane import SKIPS, TAUS, nearest_cell, plane
from s2dm_mini.explorer.setting import LIMITS, Setting
from s2dm_mini.explorer.strips import views
from s2dm_mini.samplers import SAMPLERS
from s2dm_mini.schedule import SPACINGS

SMALL = Setting(family="tiny, shapes", frames=3, steps=3)


def send(widget: widgets.Widget, **state) -> None:
    """A front end's message that these traits have changed. Bytes travel beside the message, as they do on the wire."""
    paths, buffers = [], []
    for file, entry in enumerate(state["value"] if isinstance(widget, widgets.FileUpload) else ()):
        paths.append(["value", file, "content"])
        buffers.append(memoryview(entry.pop("content")))
    content = {"data": {"method": "update", "state": state, "buffer_paths": paths}}
    widget._handle_msg({"content": content, "buffers": buffers})


def click(button: widgets.Button) -> None:
    button._handle_msg({"content": {"data": {"method": "custom", "content": {"event": "click"}}}, "buffers": []})


def shape_png(seed: int) -> bytes:
    return row_png(shapes(1, 32, seed=seed).pixels, 1)


def choose(end: End, name: str, content: bytes) -> None:
    send(end.file, value=[{"name": name, "type": "image/png", "size": len(content), "last_modified": 0, "content": content}])


def pictures(setting: Setting) -> dict[str, bytes]:
    """The three rows of the pure functions, nothing kept from what the explorer has drawn."""
    strips.forget()
    *_, view = views(setting)
    change = difference(view.l0.pixels, view.s2dm.pixels, gain_of(view))
    return {name: row_png(row, setting.frames) for name, row in (("l0", view.l0.pixels), ("s2dm", view.s2dm.pixels), ("change", change))}


def row(page: e.Explorer, name: str) -> bytes:
    return base64.b64decode(re.search(r"base64,([^)]*)", getattr(page, f"_{name}").value)[1])


def shows(page: e.Explorer, setting: Setting) -> None:
    assert page.wait(), "nothing was drawn in a minute"
    assert page.setting() == setting
    for name, content in pictures(setting).items():
        assert row(page, name) == content, f"the row {name} is not the one of {setting}; the page says: {page._said.value}"


def alarm(page: e.Explorer) -> str:
    """The sentences of alarms; the page must show one."""
    assert page.wait(), "nothing came of it in a minute"
    found = re.findall(r"<p role=alert class=alert>(.*?)</p>", page._said.value)
    assert found, f"no alarm, but {page._said.value}"
    assert all(sentence.endswith(".") and "Traceback" not in sentence for sentence in found), f"no sentence: {found}"
    return " ".join(found)


def works_again(page: e.Explorer, setting: Setting) -> None:
    shows(page, setting)
    assert "alert" not in page._said.value, page._said.value


def png(side: int, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def trained():
    """The shipped network of `shapes`; loaded before any test puts another zoo in its place."""
    return load_pretrained("tiny-shapes-l0")


@pytest.fixture
def networks(trained, zoo, tmp_path):
    """A zoo of L_0, S²-DM^10 and S²-DM^50 by their names and records; their weights are one network's. Returns its folder."""
    strips.forget()
    for name, skip, tau in (("b-l0", 9, 1.0), ("a-s2dm10", 9, 0.99), ("c-s2dm50", 49, 0.99)):
        record = {"config": {"preset": "tiny", "data": "shapes", "skip": skip, "tau": tau}}
        checkpoints.save_model(tmp_path / "x.safetensors", trained, record)
        add_to_zoo(tmp_path / "x.safetensors", name)
    yield zoo
    strips.forget()


@pytest.fixture
def page(networks):
    """Without the map and the toy, which take longer than all the rest; the tests of them draw them."""
    found = e.Explorer(SMALL, hide=("map", "toy"))
    assert found.wait()
    yield found
    found.close()


def test_every_control_moves_what_it_says(page):
    now = SMALL
    for widget, state, change in (
            (page.skip.box, {"value": 9}, {"skip": 9}), (page.tau.box, {"value": 0.965}, {"tau": 0.965}),
            (page.tau.slider, {"index": e.TAU_STOPS.index(0.9)}, {"tau": 0.9}), (page.how, {"index": 1}, {"how": "trained"}),
            (page.how, {"index": 0}, {"how": "closed form"}), (page.steps.slider, {"index": 3}, {"steps": 4}),
            (page.spacing, {"index": list(SPACINGS).index("uniform")}, {"spacing": "uniform"}),
            (page.eta.box, {"value": 0.6}, {"eta": 0.6}),
            (page.sampler, {"index": list(SAMPLERS).index("dpm-solver++")},
             {"sampler": "dpm-solver++", "eta": 0.0}),
            (page.way, {"index": 1}, {"way": "lerp"}), (page.frames.box, {"value": 5}, {"frames": 5})):
        send(widget, **state)
        now = replace(now, **change)
        shows(page, now)
    send(page.first.seed, value=7)
    choose(page.second, "shape.png", shape_png(3))
    now = replace(now, first=7, second=upload("shape.png", shape_png(3)))
    shows(page, now)
    assert page.tau.box.value == 0.9 and page.eta.box.disabled
    click(page.presets[0])
    shows(page, replace(now, skip=9, tau=0.99))


def test_slider_and_box_follow_each_other_and_a_typed_number_stays_as_it_is(page):
    send(page.tau.box, value=0.9637)
    shows(page, replace(SMALL, tau=0.9637))
    assert (page.tau.box.value, page.tau.slider.value) == (0.9637, 0.96)
    send(page.tau.slider, index=e.TAU_STOPS.index(0.9))
    assert (page.tau.box.value, page.tau.value) == (0.9, 0.9)


@pytest.mark.parametrize(("name", "typed", "limits"), [("skip", 500, "1 and 99"), ("skip", -3, "1 and 99"), ("tau", 97.0, "0.5 and 1"),
                                                       ("tau", 0.1, "0.5 and 1"), ("steps", 101, "1 and 100")])
def test_a_number_beyond_its_limits_is_a_sentence_and_changes_nothing(page, name, typed, limits):
    """97 is what a browser makes of 0,97."""
    number = getattr(page, name)
    send(number.box, value=typed)
    assert f"between {limits}, with a point" in alarm(page) and f"{typed:g} does not" in page._said.value
    assert number.box.value == getattr(SMALL, name) and page.setting() == SMALL
    send(number.box, value=30 if name != "tau" else 0.97)
    works_again(page, replace(SMALL, **{name: 30 if name != "tau" else 0.97}))


def test_setting_and_controls_know_the_same_values(networks):
    far = Setting(family="tiny, shapes", frames=12, steps=100, skip=1, tau=0.5123, eta=1.0, first=2**31 - 1)
    page = e.Explorer(far, hide=e.PARTS)
    assert page.setting() == far and page.steps.box.value == 100
    for name, (low, high) in LIMITS.items():
        assert (getattr(page, name).stops[0], getattr(page, name).stops[-1]) == (low, high)
    page.close()


# ------------------------------------------------------------------------------- frame, time, map, presets, lessons

def test_the_time_slider_shows_both_rows_on_their_way_from_noise(page):
    *_, view = views(SMALL)
    for percent, reached in ((0, 0), (40, 1), (99, 2), (100, 3)):
        send(page.time.box, value=percent)
        assert page.wait()
        assert row(page, "l0") == row_png(view.l0.states[reached], 3) and row(page, "s2dm") == row_png(view.s2dm.states[reached], 3)
        assert ("x_t at t = " in page._captions.value) == (percent < 100)
    assert torch.equal(view.l0.states[-1], view.l0.pixels)


def test_the_frame_shown_large_travels_as_a_number(page):
    send(page.frame.box, value=3)
    assert "--frame:2;" in page._place.value and "frame 3 of 3" in (page.wait() and page._captions.value)
    send(page.frames.box, value=5)
    send(page.frame.box, value=5)
    assert "--frames:5;--frame:4;" in page._place.value
    send(page.frames.box, value=4)
    assert page.frame.value == 4, "the frame must not lie beyond the last"


def test_the_map_and_the_controls_are_linked_both_ways(networks):
    page = e.Explorer(SMALL, hide=("toy",))
    assert page.wait()
    *_, whole = plane(SMALL, page.frame.value - 1)
    assert page._cells.value == page._css(map=e._lossy(whole.pixels, len(SKIPS), quality=75))
    assert page.map.value == (49, 0.99)
    send(page.map, index=3 * len(SKIPS) + 2)
    shows(page, replace(SMALL, skip=SKIPS[2], tau=TAUS[3]))
    send(page.skip.box, value=70)
    assert page.map.value == (74, 0.97) and page.setting().skip == 70, "following must not move the controls"
    first = page._cells.value
    send(page.frame.box, value=3)
    assert page.wait() and page._cells.value != first, "the map shows the frame chosen"
    page.close()


def test_a_sweep_goes_through_every_tau_and_ends_where_it_began(page, monkeypatch):
    monkeypatch.setattr(e, "SWEEP_SECONDS", 0)
    seen = []
    page.tau.observe(lambda change: seen.append(change["new"]), "value")
    send(page.tau.box, value=1.0)
    click(page.sweep)
    assert page.wait() and seen == [*TAUS, *TAUS[-2::-1]] and page.sweep.description == "sweep τ"
    monkeypatch.setattr(e, "SWEEP_SECONDS", 60)
    click(page.sweep)
    assert page.sweep.description == "stop the sweep"
    click(page.sweep)
    assert page.wait() and page.sweep.description == "sweep τ"


@pytest.mark.parametrize("choice", ["preset", "cell", "tau"])
def test_a_choice_ends_the_sweep(page, monkeypatch, choice):
    page.wait()
    monkeypatch.setattr(e, "SWEEP_SECONDS", 60)
    click(page.sweep)
    if choice == "preset":
        click(page.presets[0])
    elif choice == "cell":
        send(page.map, index=3 * len(SKIPS) + 2)
    else:
        send(page.tau.box, value=0.995)
    assert page.sweep.description == "sweep τ" and not page._sweep
    monkeypatch.setattr(e, "SWEEP_SECONDS", 0)
    chosen = page.setting()
    shows(page, chosen)
    send(page.time.box, value=0)
    assert page.wait() and page.sentence.endswith("That is at x₀.")


def test_parts_can_be_hidden_and_cards_set_the_controls(networks):
    story = [("Where is the change?", {}), ("And at τ = 1?", {"tau": 1.0}), ("And at skip 9?", {"skip": 9, "tau": 0.9, "first": 5})]
    page = explore(hide=["map", "toy", "more"], story=story, family=SMALL.family, frames=3, steps=3)
    shown = tree(page, hidden=False)
    assert page.map not in shown and page.sampler not in shown and page.skip in shown and page.sweep in shown
    assert "1 of 3.</b> Where is the change?" in page._card.value and page.back.disabled
    click(page.next)
    shows(page, replace(SMALL, tau=1.0))
    click(page.next)
    assert "3 of 3" in page._card.value and page.next.disabled
    shows(page, replace(SMALL, skip=9, tau=0.9, first=5))
    assert page.first.seed.value == 5
    click(page.next)  # of a double click that came before the browser knew that this is the last
    assert "3 of 3" in page._card.value
    click(page.back)
    assert "2 of 3" in page._card.value
    shows(page, replace(SMALL, tau=1.0))  # as the card starts, whatever the others changed
    page._turn(-9)
    assert "1 of 3" in page._card.value
    page.close()


@pytest.mark.parametrize(("wrong", "words"), [
    ({"hide": ["maps"]}, "Did you mean 'map'"), ({"hide": "pictures"}, "hide must be one of"), ({"hide": 5}, "hide must be a list"),
    ({"hide": [["map"]]}, "hide must be one of"), ({"story": None}, "story must be a list of cards"), ({"story": "x"}, "a list of cards"),
    ({"story": ["x"]}, "a list of cards"), ({"story": ("x", {})}, "a list of cards"), ({"story": [("x", None)]}, "a list of cards"),
    ({"story": [("?", {"tau": 3.0})]}, r"tau .*\[0.5, 1"), ({"story": [("?", {"tao": 1.0})]}, "Did you mean 'tau'"),
    ({"story": [("?", {"family": "x"})]}, "no shipped network"), ({"story": [("?", {"first": b"x"})]}, "the picture first is no picture"),
    ({"second": b"x"}, "the picture second is no picture"), ({"tao": 1.0}, "Did you mean"), ({"skip": 9.0}, "of the type int, not 9.0")])
def test_wrong_keywords_are_refused_when_the_explorer_is_made(networks, wrong, words):
    with pytest.raises((ValueError, CheckpointError), match=words):
        explore(**{"family": SMALL.family} | wrong)


def test_a_control_moved_after_the_end_does_nothing(networks):
    page = explore(family=SMALL.family, frames=3, steps=3, hide=["map", "toy"])
    page.wait()
    page.close()
    page.skip.value = 20
    page.close()


def test_a_refused_change_leaves_the_controls_alive(networks):
    page = explore(family=SMALL.family, frames=3, steps=3, hide=["map", "toy"])
    with pytest.raises(Exception, match="Invalid selection"):
        page._set(family="nobody's")
    page.skip.value = 20
    shows(page, replace(SMALL, skip=20))
    page.close()


# ---------------------------------------------------------------------------------------- what belongs to which setting

def test_trained_names_the_network_that_drew_and_its_skip_and_tau(page):
    """Asked for skip 99, τ 0.5; the nearest network has skip 49, τ 0.99."""
    send(page.how, index=1)
    send(page.skip.box, value=99)
    send(page.tau.box, value=0.5)
    assert page.wait()
    assert "c-s2dm50, skip 49, τ 0.99" in page._said.value
    assert "skip 49, τ 0.99" in page._captions.value and "skip 49, τ 0.99" in page._curve.value and "τ 0.5" not in page._curve.value
    click(page.make)
    assert "s2dm-skip49-tau0.99.png" in page._files.value and "skip99" not in page._files.value


def test_files_are_made_when_asked_for_stay_and_name_their_setting(page):
    assert page._files.value == ""
    click(page.make)
    made = page._files.value
    kept = base64.b64decode(re.search(r'download="s2dm-skip49-tau0.99.png" href="data:image/png;base64,([^"]*)"', made)[1])
    *_, view = views(SMALL)
    assert kept == draw(view)
    send(page.skip.box, value=30)
    assert page.wait() and page._files.value == made, "a move must neither empty nor make files"


def test_the_code_follows_every_move_a_click_on_the_map_too(networks):
    page = e.Explorer(SMALL, hide=("toy",))
    send(page.map, index=8)
    skip, tau = page.map.value
    assert f"explore(skip={skip}, tau={tau}, family=&#x27;tiny, shapes&#x27;, frames=3, steps=3)" in page._code.value
    assert nearest_cell(page.setting()) == (1, 1)
    page.close()


def test_while_a_strip_previews_nothing_of_the_one_before_passes_for_it(page, monkeypatch):
    held, go_on = threading.Event(), threading.Event()

    def slow(setting):
        for view in views(setting):
            yield view
            held.set()
            assert go_on.wait(60)

    monkeypatch.setattr(e, "PREVIEW_SECONDS", 0)
    monkeypatch.setattr(e, "views", slow)
    assert "<svg" in page._plots.value
    send(page.skip.box, value=60)
    assert held.wait(60)
    assert "<svg" not in page._plots.value and "--fresh:0.2" in page._captions.value and "preview, step 1 of 3" in page._captions.value
    assert "Drawing, step 1 of 3" in page._said.value and "Nothing has come" in page._said.value, "a dead kernel must show by itself"
    go_on.set()
    shows(page, replace(SMALL, skip=60))
    assert "<svg" in page._plots.value and "--fresh:1" in page._captions.value and "Nothing has come" not in page._said.value


def test_newer_moves_end_the_older_run_between_its_steps(page, monkeypatch):
    """Thirty moves while the first run is at its first step: it takes no second one, and of the others only the last is drawn."""
    steps, at_step, go_on = [], threading.Event(), threading.Event()

    def held(setting):
        for view in views(setting):
            steps.append((setting.skip, view.slower.step))
            at_step.set()
            assert go_on.wait(60)
            yield view

    monkeypatch.setattr(e, "views", held)
    send(page.skip.box, value=70)
    assert at_step.wait(60)
    for skip in range(10, 40):
        send(page.skip.box, value=skip)
    assert not page.wait(0), "what is being drawn must not count as done"
    go_on.set()
    shows(page, replace(SMALL, skip=39))
    assert steps == [(70, 1), (39, 1), (39, 2), (39, 3)]


# ---------------------------------------------------------------------------------------- threads, widgets and exits

def drawing_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "s2dm explorer"]


def test_a_closed_explorer_leaves_no_thread_and_no_widget(networks):
    before = len(_instances)
    for hide in ([], e.PARTS, ["map", "toy"]):
        page = explore(family=SMALL.family, frames=3, steps=3, hide=hide)
        page.close()
        page.close()  # a second time does nothing
    with pytest.raises(ValueError, match="hide"):
        explore(hide=["nothing"])
    del page
    gc.collect()
    assert not drawing_threads() and len(_instances) == before


def test_an_explorer_at_rest_has_no_thread_and_few_widgets(page):
    assert not drawing_threads() and len(tree(page, hidden=False)) < 200


def test_a_worker_that_is_killed_half_way_says_so_and_the_next_move_works(page, monkeypatch):
    started, killed = threading.Event(), threading.Event()

    def endless(setting):
        started.set()
        while not killed.wait(0.01):
            pass
        yield

    with monkeypatch.context() as patch:
        patch.setattr(e, "views", endless)
        patch.setattr(threading, "excepthook", lambda _: None)
        send(page.skip.box, value=11)
        assert started.wait(60)
        thread, = drawing_threads()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
        thread.join(60)
        killed.set()
    assert "stopped half-way" in alarm(page)
    send(page.skip.box, value=12)
    works_again(page, replace(SMALL, skip=12))


def test_python_leaves_quietly_while_it_draws():
    script = ("import time\nfrom s2dm_mini import explore\npage = explore(steps=50, frames=12, hide=['map'])\n"
              "while page._worker is None or 'Drawing' not in page._said.value: time.sleep(0.01)\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stderr == "", done.stderr


# ------------------------------------------------------------------------------------------------- what goes wrong

@pytest.mark.parametrize(("damage", "words"), [(lambda path: path.unlink(), "cannot be read"),
                                               (lambda path: path.write_bytes(path.read_bytes()[:-9]), "not the file that was shipped")])
def test_a_missing_or_damaged_checkpoint_is_a_sentence(page, networks, damage, words):
    path = networks / "c-s2dm50.safetensors"
    whole = path.read_bytes()
    damage(path)
    send(page.how, index=1)
    assert words in alarm(page) and "c-s2dm50" in page._said.value
    send(page.how, index=0)
    works_again(page, SMALL)
    path.write_bytes(whole)
    send(page.how, index=1)
    works_again(page, replace(SMALL, how="trained"))


def test_a_damaged_manifest_is_a_sentence_at_once(networks):
    (networks / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="manifest"):
        e.Explorer(SMALL)


def test_networks_that_are_not_shipped_are_a_sentence_at_once(networks):
    with pytest.raises(CheckpointError, match="no shipped network belongs to 'nano, faces'. Known: tiny, shapes."):
        explore(family="nano, faces")


@pytest.mark.parametrize(("name", "content", "words"), [
    ("letter.png", b"Dear Sir,", "no picture"), ("empty.png", b"", "no picture"), ("cut.png", png(400)[:-200], "no picture"),
    ("large.png", bytes(UPLOAD_BYTES + 1), "at most 8 MB"), ("huge.png", png(7_000, "1"), "more than 40,000,000 pixels")],
    ids=lambda value: value if isinstance(value, str) and value.endswith("png") else "")
def test_an_upload_that_cannot_be_used_is_a_sentence_and_the_last_strip_stays(page, name, content, words):
    choose(page.first, name, content)
    assert words in alarm(page) and name in page._said.value
    send(page.skip.box, value=12)  # the rest of the page goes on with the last good end, and the sentence stays
    shows(page, replace(SMALL, skip=12))
    assert words in alarm(page)
    choose(page.first, "good.png", shape_png(5))
    works_again(page, replace(SMALL, skip=12, first=upload("good.png", shape_png(5))))


def test_a_picture_holds_an_end_until_another_seed_is_typed_and_the_file_button_is_new_then(page):
    """A seed out of range changes nothing. No state of the page asks for a picture without having one."""
    choose(page.second, "shape.png", shape_png(5))
    works_again(page, replace(SMALL, second=upload("shape.png", shape_png(5))))
    button = page.second.file
    send(page.second.seed, value=-4)
    assert "The seed of an end must be an integer in 0..2147483647, not -4" in alarm(page) and page.second.seed.value == 1
    shows(page, replace(SMALL, second=upload("shape.png", shape_png(5))))
    send(page.second.seed, value=6)
    works_again(page, replace(SMALL, second=6))
    assert page.second.file is not button and button.comm is None


def test_a_sampler_that_diverges_is_a_sentence(page, monkeypatch):
    for scale, words in ((-1e3, "diverged"), (float("nan"), "finite")):
        with monkeypatch.context() as patch:
            patch.setattr(strips, "network", lambda name, scale=scale: lambda x, t: scale * x)
            strips._finished.__init__()
            send(page.skip.box, value=20)
            assert words in alarm(page)
        strips._finished.__init__()
        send(page.skip.box, value=21)
        works_again(page, replace(SMALL, skip=21))


@pytest.mark.parametrize(("error", "words"), [
    (MemoryError(), "The memory is full"), (torch.OutOfMemoryError("CUDA out of memory."), "The memory is full"),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), "The memory is full"),
    (ZeroDivisionError("division by zero"), "could not be drawn (ZeroDivisionError")])
def test_a_full_memory_or_anything_else_is_a_sentence(page, monkeypatch, error, words):
    def failing(setting):
        raise error
        yield

    with monkeypatch.context() as patch:
        patch.setattr(e, "views", failing)
        send(page.skip.box, value=11)
        assert words in alarm(page)
    send(page.skip.box, value=12)
    works_again(page, replace(SMALL, skip=12))


# -------------------------------------------------------------------------------- what other front ends need of it

def tree(widget: widgets.Widget, hidden: bool = True) -> list[widgets.Widget]:
    """The widget and all that hangs on it: children, layouts, styles. hidden: those too that the browser leaves out."""
    found, waiting = {}, [widget]
    while waiting:
        it = waiting.pop()
        if it.model_id not in found and (hidden or getattr(getattr(it, "layout", None), "display", None) != "none"):
            found[it.model_id] = it
            values = [getattr(it, key) for key in it.keys]
            waiting += [v for value in values for v in (value if isinstance(value, (tuple, list)) else [value])
                        if isinstance(v, widgets.Widget)]
    return list(found.values())


def test_all_widgets_are_core_ones_and_no_script_is_on_the_page(page):
    """Colab, Notebook 7 and Voilà bring the code of these modules themselves; any other would have to be installed there."""
    for widget in tree(page):
        for part in (widget._model_module, widget._view_module):
            assert part in {"@jupyter-widgets/base", "@jupyter-widgets/controls", "@jupyter-widgets/output", None}, type(widget)
        if isinstance(widget, widgets.HTML):
            assert not re.search(r"<script|\son\w+=|javascript:", widget.value)


def test_where_nobody_watches_the_finished_strip_is_stored_and_where_somebody_does_the_page_shows_at_once(networks, monkeypatch):
    page = explore(family=SMALL.family, frames=3, steps=3, hide=["map", "toy"])
    bundle = page._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.jupyter.widget-view+json", "text/plain", "image/png"}
    *_, view = views(SMALL)
    assert base64.b64decode(bundle["image/png"]) == draw(view)

    class Kernel:
        def get_parent(self, channel):
            return {"content": {"allow_stdin": True}}

    monkeypatch.setattr(e, "get_ipython", lambda: type("Shell", (), {"kernel": Kernel()}))
    monkeypatch.setattr(e.Explorer, "wait", lambda *_: pytest.fail("it waited"))
    assert "image/png" not in page._repr_mimebundle_()
    monkeypatch.undo()
    page.close()


def contrast(colour: str) -> float:
    """With white, as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5))]
    return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)


def test_words_and_edges_stand_out_from_the_page():
    look = (e.FOLDER / "look.css").read_text(encoding="utf-8") + (e.FOLDER / "widget.css").read_text(encoding="utf-8")
    colours = {name: "#" + "".join(2 * c for c in value) if len(value) == 3 else f"#{value}"
               for name, value in re.findall(r"--(ink|quiet|blue|line): #(\w+);", look)}
    assert contrast("#767676") == pytest.approx(4.54, abs=0.01), "the formula"
    assert all(contrast(colours[name]) >= 4.5 for name in ("ink", "quiet")) and all(contrast(colour) >= 4.5 for colour in WORDS)
    assert all(contrast(colours[name]) >= 3 for name in ("blue", "line")) and "outline: 3px solid var(--blue)" in look
    assert "border: 1px solid var(--line)" in look


def test_a_move_sends_at_most_200_kilobytes(monkeypatch):
    """Skip, frame and seed with the network of 32 × 32 pixels; a new seed draws everything anew, the map too."""
    page, sent = e.Explorer(Setting(steps=4)), []
    assert page.wait(300)
    monkeypatch.setattr(widgets.Widget, "_send", lambda self, message, buffers=None: sent.append(len(json.dumps(message))))
    for widget, state in ((page.skip.box, 74), (page.frame.box, 2), (page.first.seed, 5)):
        sent.clear()
        send(widget, value=state)
        assert page.wait(300) and 1_000 < sum(sent) <= 200_000, f"{sum(sent):,} bytes"
    page.close()


MEMORY = """
import resource, sys
from s2dm_mini import explore
page = explore(frames=12, steps=2)
assert page.wait(300) and "role=status" in page._said.value, page._said.value
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "linux" else 2**30))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not count this way")
def test_the_process_that_draws_stays_within_1_5_gib():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, env=os.environ)
    assert float(done.stdout) < 1.5
