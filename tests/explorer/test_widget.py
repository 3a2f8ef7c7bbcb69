"""The explorer's widgets without a browser: what a front end would send is sent, and the picture is, to the byte, what the pure
functions draw for the setting that was asked for; whatever goes wrong is a sentence, and the next move works again.
"""
import base64
import io
import re
import subprocess
import sys
import threading
from dataclasses import replace

import ipywidgets as widgets
import pytest
import torch
from PIL import Image

from s2dm_mini import checkpoints, explore, load_pretrained
from s2dm_mini.explorer import strips
from s2dm_mini.explorer import widget as e
from s2dm_mini.explorer.ends import UPLOAD_BYTES, shape_picture, upload
from s2dm_mini.explorer.pictures import draw_curves, draw_plane, strip
from s2dm_mini.explorer.plane import SKIPS, TAUS, plane
from s2dm_mini.explorer.setting import Setting
from s2dm_mini.explorer.strips import views
from s2dm_mini.samplers import SAMPLERS
from s2dm_mini.schedule import SPACINGS
from s2dm_mini.study.zoo import add_to_zoo

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


def choose(end: e.End, name: str, content: bytes) -> None:
    send(end.kind, index=3)  # own picture
    send(end.file, value=[{"name": name, "type": "image/png", "size": len(content), "last_modified": 0, "content": content}])


def drawn_anew(setting: Setting) -> bytes:
    """The strip of the pure function, nothing kept from what the explorer has drawn."""
    strips.forget()
    return strip(setting)


def shows(page: e.Explorer, setting: Setting) -> None:
    assert page.wait(), "nothing was drawn in a minute"
    assert page.strip.value == drawn_anew(setting), f"the picture is not the one of {setting}; the page says: {page.message.value}"


def alarm(page: e.Explorer) -> str:
    """The sentence of an alarm; the page must show one."""
    assert page.wait(), "nothing came of it in a minute"
    found = re.fullmatch(r"<p role='alert'[^>]*>(.*)</p>", page.message.value)
    assert found, f"no alarm, but {page.message.value}"
    assert found[1].endswith(".") and "Traceback" not in found[1], f"no sentence: {found[1]}"
    return found[1]


def works_again(page: e.Explorer, setting: Setting) -> None:
    shows(page, setting)
    assert "role='status'" in page.message.value, page.message.value


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
def page(networks, monkeypatch):
    monkeypatch.setattr(e, "draw_curves", lambda view: b"")  # they take longer than all the rest; the test of them draws them
    found = e.Explorer(SMALL)
    assert found.wait()
    return found


def test_every_control_moves_what_it_says(page):
    now = SMALL
    for name, state, change in (
            ("skip", {"value": 49}, {"skip": 49}), ("tau", {"value": 0.965}, {"tau": 0.965}),
            ("tau_slider", {"index": e.TAU_STOPS.index(0.9)}, {"tau": 0.9}), ("how", {"index": 1}, {"how": "trained"}),
            ("how", {"index": 0}, {"how": "closed form"}), ("steps", {"value": 4}, {"steps": 4}),
            ("spacing", {"index": list(SPACINGS).index("uniform")}, {"spacing": "uniform"}), ("eta", {"value": 0.6}, {"eta": 0.6}),
            ("sampler", {"index": list(SAMPLERS).index("dpm-solver++")}, {"sampler": "dpm-solver++", "eta": 0.0}),
            ("way", {"index": 1}, {"way": "lerp"}), ("frames", {"value": 5}, {"frames": 5}), ("amplify", {"index": 0}, {"amplify": 1})):
        send(getattr(page, name), **state)
        now = replace(now, **change)
        shows(page, now)
    send(page.first.number, value=7)
    send(page.second.kind, index=1)  # a drawn shape
    send(page.second.number, value=3)
    shows(page, replace(now, first=7, second=shape_picture(3)))
    assert page.tau.value == 0.9 and page.eta.disabled


def test_the_slider_of_tau_follows_what_is_typed_and_leaves_it_as_it_is(page):
    send(page.tau, value=0.9637)
    shows(page, replace(SMALL, tau=0.9637))
    assert (page.tau.value, page.tau_slider.value) == (0.9637, 0.96)


def test_numbers_beyond_the_limits_are_brought_back_to_them(page):
    for name, sent, taken in (("skip", 500, 99), ("skip", -3, 1), ("tau", 7.0, 1.0), ("tau", 0.1, 0.5)):
        send(getattr(page, name), value=sent)
        assert page.wait() and getattr(page.setting(), name) == taken
    shows(page, replace(SMALL, skip=1, tau=0.5))


def test_a_click_on_the_map_takes_its_skip_and_tau(page):
    send(page.tabs, selected_index=1)
    assert page.wait()
    strips.forget()
    *_, whole = plane(SMALL)
    assert page.map.value == draw_plane(SMALL, whole)
    row, column = 3, 4
    click(page.cells[row * len(SKIPS) + column])
    send(page.tabs, selected_index=0)
    shows(page, replace(SMALL, skip=SKIPS[column], tau=TAUS[row]))


def test_curves_and_files_belong_to_the_strip(networks):
    page = e.Explorer(SMALL)
    send(page.skip, value=30)
    now = replace(SMALL, skip=30)
    shows(page, now)
    *_, view = views(now)
    assert page.curves.value == draw_curves(view)
    kept = base64.b64decode(re.search(r'download="s2dm-skip30-tau0.99.png" href="data:image/png;base64,([^"]*)"', page.files.value)[1])
    assert kept == page.strip.value
    assert "Setting(family=&#x27;tiny, shapes&#x27;, frames=3, skip=30, steps=3)" in page.files.value


def test_thirty_rapid_moves_leave_the_picture_of_the_last(page):
    for skip in range(10, 40):
        send(page.skip, value=skip)
    shows(page, replace(SMALL, skip=39))
    assert "skip30" not in page.files.value and "skip39" in page.files.value


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
    send(page.skip, value=70)
    assert at_step.wait(60)
    for skip in range(10, 40):
        send(page.skip, value=skip)
    assert "drawing" in page.message.value and not page.wait(0), "what is being drawn must not count as done"
    go_on.set()
    shows(page, replace(SMALL, skip=39))
    assert steps == [(70, 1), (39, 1), (39, 2), (39, 3)]


# ------------------------------------------------------------------------------------------------- what goes wrong

@pytest.mark.parametrize(("damage", "words"), [(lambda path: path.unlink(), "cannot be read"),
                                               (lambda path: path.write_bytes(path.read_bytes()[:-9]), "not the file that was shipped")])
def test_a_missing_or_damaged_checkpoint_is_a_sentence(page, networks, damage, words):
    path = networks / "c-s2dm50.safetensors"
    whole = path.read_bytes()
    damage(path)
    send(page.skip, value=49)
    send(page.how, index=1)
    assert words in alarm(page) and "c-s2dm50" in page.message.value
    send(page.how, index=0)
    works_again(page, replace(SMALL, skip=49))
    path.write_bytes(whole)
    send(page.how, index=1)
    works_again(page, replace(SMALL, skip=49, how="trained"))


def test_a_damaged_manifest_is_a_sentence_at_the_first_strip(networks):
    path = networks / "manifest.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    page = e.Explorer(SMALL)
    assert "manifest" in alarm(page)
    path.write_bytes(whole)
    send(page.skip, value=8)
    works_again(page, replace(SMALL, skip=8))


@pytest.mark.parametrize(("name", "content", "words"), [
    ("letter.png", b"Dear Sir,", "no picture"), ("empty.png", b"", "no picture"), ("cut.png", png(400)[:-200], "no picture"),
    ("large.png", bytes(UPLOAD_BYTES + 1), "at most 8 MB"), ("huge.png", png(7_000, "1"), "more than 40,000,000 pixels")],
    ids=lambda value: value if isinstance(value, str) and value.endswith("png") else "")
def test_an_upload_that_cannot_be_used_is_a_sentence_and_the_last_strip_stays(page, name, content, words):
    choose(page.first, name, content)
    assert words in alarm(page) and name in page.message.value
    assert page.strip.value == drawn_anew(SMALL)
    send(page.skip, value=12)  # the rest of the page goes on with the last good end, and the sentence stays
    shows(page, replace(SMALL, skip=12))
    assert words in alarm(page)
    choose(page.first, "good.png", shape_picture(5))
    works_again(page, replace(SMALL, skip=12, first=upload("good.png", shape_picture(5))))


def test_cifar10_that_is_not_there_is_a_sentence(page, monkeypatch, tmp_path):
    monkeypatch.setenv("S2DM_DATA", str(tmp_path / "nowhere"))
    e._test_images.cache_clear()
    send(page.first.kind, index=2)
    assert "CIFAR-10" in alarm(page)
    send(page.first.kind, index=0)
    works_again(page, SMALL)


def test_a_sampler_that_diverges_is_a_sentence(page, monkeypatch):
    for scale, words in ((-1e3, "diverged"), (float("nan"), "finite")):
        with monkeypatch.context() as patch:
            patch.setattr(strips, "network", lambda name, scale=scale: lambda x, t: scale * x)
            strips._finished.clear()
            send(page.skip, value=20)
            assert words in alarm(page)
        strips._finished.clear()
        send(page.skip, value=21)
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
        send(page.skip, value=11)
        assert words in alarm(page)
    send(page.skip, value=12)
    works_again(page, replace(SMALL, skip=12))


def test_a_memory_that_is_full_while_an_upload_is_read_is_a_sentence(page, monkeypatch):
    def full(name, content):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(e, "upload", full)
        choose(page.first, "good.png", shape_picture(5))
        assert "memory" in alarm(page)
    send(page.first.kind, index=0)
    works_again(page, SMALL)


# -------------------------------------------------------------------------------- what other front ends need of it

def tree(widget: widgets.Widget) -> list[widgets.Widget]:
    """The widget and all that hangs on it: children, layouts, styles."""
    found, waiting = {}, [widget]
    while waiting:
        it = waiting.pop()
        if it.model_id not in found:
            found[it.model_id] = it
            values = [getattr(it, key) for key in it.keys]
            waiting += [v for value in values for v in (value if isinstance(value, (tuple, list)) else [value])
                        if isinstance(v, widgets.Widget)]
    return list(found.values())


def test_all_widgets_are_core_ones_and_no_script_is_on_the_page(page):
    """Colab, Notebook 7 and Voilà bring the code of these modules themselves; any other would have to be installed there."""
    everything = tree(page)
    assert len(everything) > 100 and page.strip in everything and page.cells[-1].style in everything
    for widget in everything:
        for part in (widget._model_module, widget._view_module):
            assert part in {"@jupyter-widgets/base", "@jupyter-widgets/controls", "@jupyter-widgets/output", None}, type(widget)
        if isinstance(widget, widgets.HTML):
            assert not re.search(r"<script|\son\w+=|javascript:", widget.value)


def test_every_control_has_a_tooltip(page):
    for widget in tree(page):
        if isinstance(widget, (widgets.Dropdown, widgets.IntSlider, widgets.FloatSlider, widgets.SelectionSlider, widgets.Button,
                               widgets.BoundedIntText, widgets.BoundedFloatText, widgets.FileUpload)):
            assert widget.tooltip, f"{type(widget).__name__} {widget.description!r} has no tooltip"
        if isinstance(widget, widgets.ToggleButtons):
            assert len(widget.tooltips) == len(widget.options)


def test_without_a_kernel_the_finished_strip_shows(networks):
    bundle = explore(family=SMALL.family, frames=3, steps=3, skip=49)._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.jupyter.widget-view+json", "text/plain", "image/png"}
    assert base64.b64decode(bundle["image/png"]) == drawn_anew(replace(SMALL, skip=49))


MEMORY = """
import resource, sys
from s2dm_mini import explore
page = explore(frames=12, steps=3)
assert page.wait()
page.tabs.selected_index = 1
assert page.wait() and "role='status'" in page.message.value, page.message.value
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "linux" else 2**30))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not count this way")
def test_the_process_that_draws_stays_within_1_5_gib():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.5
