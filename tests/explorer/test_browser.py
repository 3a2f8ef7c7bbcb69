"""The explorer in JupyterLab, Notebook 7 and Voilà, and as a page without a kernel, moved as a user moves it in headless Chromium: what
is on the page is, to the byte, what the pure functions draw for the setting that was asked for.
"""
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch
from browser import CHROMIUM, FLAGS, PATHS, PATIENCE, ROOT, accessibility, expect, notebook, open_explorer, serving, serving_pages

from s2dm_mini import shapes
from s2dm_mini.explorer.ends import upload
from s2dm_mini.explorer.page import FRAMES, LIMIT, MIDDLE, ROWS, TIMES, page, stops
from s2dm_mini.explorer.pictures import difference, draw, gain_of, row_png
from s2dm_mini.explorer.plane import SKIPS, TAUS
from s2dm_mini.explorer.setting import Setting, grid, to_query
from s2dm_mini.explorer.strips import verdict, views

pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here: on Debian `apt-get install chromium` brings one, and these tests run")]
SMALL = Setting(family="tiny, shapes", steps=5, frames=6)
START = f"from s2dm_mini import explore\nexplore(family={SMALL.family!r}, steps={SMALL.steps}, frames={SMALL.frames})"
WIDTHS = {"1280": (1280, 900), "800": (800, 1100), "phone": (390, 1640)}  # tall enough for the whole page
AT_ZOOM_200 = (640, 450)  # what 1280 × 900 is at 200 %


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def rows(setting: Setting) -> dict[str, bytes]:
    """The rows of the finished strip by the names of their variables."""
    *_, view = views(setting)
    change = difference(view.l0.pixels, view.s2dm.pixels, gain_of(view))
    return {"l0": row_png(view.l0.pixels, setting.frames), "s2dm": row_png(view.s2dm.pixels, setting.frames),
            "change": row_png(change, setting.frames)}


def type_in(page, name: str, text: str) -> None:
    page.click(f".s2dm-at-{name} input")
    page.keyboard.press("Control+a")
    page.keyboard.type(text)
    page.keyboard.press("Enter")


def drag(page, name: str, dots: int) -> None:
    """Pull a slider's handle by so many dots, in small moves, as a hand does."""
    handle = page.locator(f".s2dm-at-{name} .noUi-touch-area").bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for i in range(1, 9):
        page.mouse.move(x + dots * i / 8, y)
    page.mouse.up()


def until(page, condition: str) -> None:
    page.wait_for_function(condition, timeout=PATIENCE)


def offer(page, name: str, content: bytes) -> None:
    """Choose a file for the first end."""
    with page.expect_file_chooser() as chooser:
        page.click(".s2dm-at-first button")
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory):
    """(folder, address) of a server of the notebooks in the folder."""
    folder = tmp_path_factory.mktemp("jupyter")
    with serving(folder) as address:
        yield folder, address


@pytest.fixture(scope="module")
def voila(tmp_path_factory):
    """What `make explorer` serves, with its options but seconds in place of minutes, and a notebook that prints a word."""
    folder = tmp_path_factory.mktemp("voila")
    shutil.copy(ROOT / "notebooks" / "explorer" / "latent_explorer.ipynb", folder)
    notebook(folder / "word.ipynb", "print('here')")
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    options = re.findall(r"--MappingKernelManager\.\w+=\d+", make[make.index("\nexplorer:"):])
    assert len(options) == 2, "kernels that nobody looks at are never ended"
    with serving_pages(folder, *(re.sub(r"=\d+", "=2" if "timeout" in o else "=1", o) for o in options)) as server:
        yield server


@contextmanager
def opened(chromium, url: str, **size):
    """(page, its errors) of an explorer at an address. window.previewed: the first thing said of a preview."""
    page = chromium.new_page(viewport={"width": 1400, "height": 1500} | size)
    page.add_init_script("""new MutationObserver(() => {
        const said = document.querySelector('.s2dm-said')?.innerText ?? '';
        if (said.includes('Drawing, step')) window.previewed ??= said;
    }).observe(document, {subtree: true, childList: true, characterData: true});""")
    yield page, open_explorer(page, url)
    page.close()


@pytest.fixture(scope="module")
def lab(chromium, jupyter):
    """(page, errors) of one explorer in JupyterLab with a slow first strip, below the number of its process; the tests share it."""
    folder, address = jupyter
    notebook(folder / "lab.ipynb", f"import os\nprint('process', os.getpid())\n{START.replace('steps=5', 'steps=100')}")
    with opened(chromium, address + PATHS["lab"].format("lab.ipynb")) as found:
        yield found


def at_start(page) -> None:
    """Bring the page to SMALL."""
    type_in(page, "steps", str(SMALL.steps))
    page.click("text=where it shows")
    expect(page, rows(SMALL))


def test_the_first_preview_shows_long_before_the_strip_is_finished(lab):
    """In front of a person the cell ends at once; 100 steps take their time."""
    page, _ = lab
    expect(page, rows(replace(SMALL, steps=100)))
    assert "Drawing, step" in (page.evaluate("window.previewed") or ""), "the first thing seen was the finished strip"


def test_a_user_moves_everything(lab):
    page, errors = lab
    at_start(page)
    now = moved(page, SMALL)
    type_in(page, "tau", "0.965")
    now = replace(now, tau=0.965)
    expect(page, rows(now))
    for typed in ("1.3", "0,97"):  # Chromium drops the comma: 097
        type_in(page, "tau", typed)
        until(page, "document.querySelector('.s2dm-said [role=alert]')?.innerText.includes('between 0.5 and 1, with a point')")
        until(page, "document.querySelector('.s2dm-at-tau input').value == 0.965")
        type_in(page, "tau", "0.99")
        until(page, "!document.querySelector('.s2dm-said [role=alert]')")
        type_in(page, "tau", "0.965")
    expect(page, rows(now))
    page.check(".s2dm-unfold")
    page.select_option(".s2dm-at-sampler select", label="DPM-Solver++(2M)")
    expect(page, rows(replace(now, sampler="dpm-solver++")))
    page.select_option(".s2dm-at-sampler select", label="DDIM")
    at_start(page)
    assert not errors and not page.query_selector(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']")


def test_wrong_files_and_the_death_of_the_kernel_are_survived(lab):
    """The last one on this page."""
    from playwright.sync_api import TimeoutError as TimedOut

    (page, errors), own = lab, row_png(shapes(1, 32, seed=5).pixels, 1)
    at_start(page)
    page.check(".s2dm-unfold")
    offer(page, "letter.png", b"Dear Sir,")
    until(page, "document.querySelector('.s2dm-said').innerText.includes('letter.png is no picture')")
    offer(page, "house.png", bytes(20_000_000))  # beyond what a Jupyter server lets through: it drops the connection, which comes back
    for seed in range(2, 14):  # what is said while the connection is down is lost
        button = page.query_selector(".s2dm-at-first button")
        type_in(page, "first", str(seed))
        try:
            page.wait_for_function("button => !button.isConnected", arg=button, timeout=10_000)
            break
        except TimedOut:
            pass
    expect(page, rows(replace(SMALL, first=seed)))
    offer(page, "shape.png", own)
    now = replace(SMALL, first=upload("shape.png", own))
    expect(page, rows(now))
    until(page, "document.querySelector('.s2dm-said [role=status]') && !document.querySelector('.s2dm-said [role=alert]')")

    page.click("text=make PNG")
    with page.expect_download() as download:
        page.click("a[download$='.png']")
    *_, view = views(now)
    assert Path(download.value.path()).read_bytes() == draw(view)
    assert not errors

    says = "getComputedStyle(document.querySelector('.s2dm'), '::before').content"
    assert page.evaluate(says) == "none"
    os.kill(int(re.search(r"process (\d+)", page.inner_text(".jp-OutputArea"))[1]), 9)
    until(page, f"{says}.includes('The kernel has stopped')")
    assert page.evaluate("""[...document.querySelectorAll('.s2dm .jupyter-widgets-disconnected')].filter(
        element => getComputedStyle(element, '::before').display !== 'none' && element.offsetParent).length""") == 0, "broken icons"
    assert page.evaluate("getComputedStyle(document.querySelector('.s2dm-said')).visibility") == "hidden", "a stale sentence"
    expect(page, rows(now))


def moved(page, now: Setting) -> Setting:
    """Move skip by key and mouse, choose a cell of the map, walk and blink; returns the setting then."""
    expect(page, rows(now))
    page.focus(".s2dm-at-skip input")
    page.keyboard.press("ArrowUp")  # in a box even Notebook 7, which keeps these keys for its cells, lets them through
    expect(page, rows(replace(now, skip=50)))
    drag(page, "skip", 40)
    until(page, "document.querySelector('.s2dm-at-skip input').value > 55")
    page.wait_for_timeout(300)  # for the last of the moves
    expect(page, rows(replace(now, skip=int(page.input_value(".s2dm-at-skip input")))))
    row, column = 3, 2  # not the nearest, which is chosen already
    page.locator(".s2dm-map input").nth(row * len(SKIPS) + column).click()
    now = replace(now, skip=SKIPS[column], tau=TAUS[row])
    expect(page, rows(now))
    until(page, f"document.querySelectorAll('.s2dm-map input')[{row * len(SKIPS) + column}].checked")
    assert page.input_value(".s2dm-at-skip input") == str(SKIPS[column])
    place, over = (f"getComputedStyle(document.querySelector('{part}')).{what}"
                   for part, what in ((".s2dm-picture", "backgroundPositionX"), (".s2dm-over", "opacity")))
    for name, seen in (("walk", place), ("blink", over)):  # the browser's own
        still = page.evaluate(seen)
        page.check(f".s2dm-{name}")
        until(page, f"{seen} !== '{still}'")
        page.uncheck(f".s2dm-{name}")
        until(page, f"{seen} === '{still}'")
    return now


def test_the_same_in_notebook_7(chromium, jupyter):
    folder, address = jupyter
    notebook(folder / "seven.ipynb", START)
    with opened(chromium, address + PATHS["notebook"].format("seven.ipynb")) as (page, errors):
        moved(page, SMALL)
        assert not errors


def test_reloading_make_explorer_leaves_no_kernel_behind(chromium, voila):
    def kernels() -> int:
        children = Path(f"/proc/{voila.process.pid}/task/{voila.process.pid}/children").read_text(encoding="utf-8").split()
        return sum(b"ipykernel" in Path(f"/proc/{child}/cmdline").read_bytes() for child in children if Path(f"/proc/{child}").exists())

    page = chromium.new_page()
    page.set_default_timeout(PATIENCE)
    met: list = []  # what kernels said to the page
    page.on("websocket", lambda socket: socket.on("framereceived", lambda said: met.append(said)))
    for _ in range(3):
        met.clear()
        page.goto(f"{voila.url}word.ipynb")
        page.wait_for_selector("text=here")
        while not met:  # a page that is left before it has met its kernel cannot end it
            page.wait_for_timeout(100)
    end = time.monotonic() + PATIENCE / 1000
    while (found := kernels()) != 1 and time.monotonic() < end:  # the list may lack one while another ends
        time.sleep(0.5)
    assert found == 1, "one kernel for the page that is open"
    page.close()


def test_a_screen_reader_finds_names_values_and_states(chromium, voila):
    with opened(chromium, f"{voila.url}latent_explorer.ipynb?{to_query(SMALL)}", width=1280, height=900) as (page, errors):
        moved(page, SMALL)
        page.click("text=where it shows")
        expect(page, rows(SMALL))
        page.check(".s2dm-unfold")
        page.check(".s2dm-walk")
        found = accessibility(page)
        (ROOT / "build").mkdir(exist_ok=True)
        (ROOT / "build" / "accessibility.txt").write_text("\n".join(found) + "\n", encoding="utf-8")
        for name, value in {"skip": 49, "τ": 0.99, "steps": 5, "frame": 3, "time, %": 100, "from seed": 0}.items():
            assert any(line.startswith(f'spinbutton "{name}" {value}') for line in found), name
        assert not any(line.startswith("slider") for line in found), "a slider has no name; its box serves"
        assert 'radio "skip 49, τ 0.99"  checked' in found and sum(line.startswith("radio") for line in found) == 49
        assert 'checkbox "walk from end to end"  checked' in found and 'checkbox "blink L₀ / S²-DM"' in found
        controls = [line for line in found if re.match(r"(button|spinbutton|combobox|textbox|radio|slider|checkbox|image|img)", line)]
        assert all(re.match(r'\w+ "[^"]*\w', line) for line in controls), [line for line in controls if not re.match(r'\w+ "[^"]*\w', line)]
        names = [line.split('"')[1] for line in controls if not line.startswith(("radio", "image"))]
        assert len(set(names)) == len(names), f"two controls share a name: {sorted(names)}"
        assert not errors


def fits(page) -> None:
    """No part sticks out to the right."""
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), "it is wider than the window"


def test_the_page_of_its_own_at_three_widths(chromium, voila):
    """With the shipped CIFAR-10 network; screenshots go to build/."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    errors = open_explorer(page, f"{voila.url}latent_explorer.ipynb?skip=49&tau=0.99&frames=8&steps=8")
    expect(page, rows(Setting(steps=8)))
    until(page, "getComputedStyle(document.querySelector('.s2dm')).getPropertyValue('--map').length > 99")
    (ROOT / "build").mkdir(exist_ok=True)
    for name, (width, height) in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": height})
        fits(page)
        page.screenshot(path=ROOT / "build" / f"explorer-{name}.png")
    page.set_viewport_size(dict(zip(("width", "height"), WIDTHS["1280"], strict=True)))
    for part in (".s2dm-three", ".s2dm-film .rows", ".s2dm-map", ".s2dm-at-skip", ".s2dm-said"):
        box = page.locator(part).bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 900, f"{part} is not seen without scrolling at 1280 × 900"
    page.set_viewport_size(dict(zip(("width", "height"), AT_ZOOM_200, strict=True)))
    fits(page)
    assert page.locator(".s2dm-three").bounding_box()["y"] < 300, "at 200 % a picture is seen without scrolling"
    assert not errors
    page.close()


# ------------------------------------------------------------------------------------------------ without a kernel

@pytest.fixture(scope="module")
def without_kernel(tmp_path_factory) -> Path:
    """The page with two small films."""
    films = {"shapes, seeds 0 to 1": Setting("tiny, shapes"), "shapes, seeds 2 to 3": Setting("tiny, shapes", first=2, second=3)}
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    path.write_text(page(films, (4, 2)), encoding="utf-8")
    return path


CANVASES = """ids => Object.fromEntries(ids.map(id => {
    const canvas = document.getElementById(id);
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return [id, btoa(Array.from(data, byte => String.fromCharCode(byte)).join(""))];
}))"""


def drawn(page, *state, time: int = TIMES) -> None:
    until(page, f"document.getElementById('page').dataset.drawn === '{','.join(map(str, (*state, time)))}'")


def same_pixels(page, kind: str, l0: torch.Tensor, s2dm: torch.Tensor, gain: int) -> None:
    names = [f"{name}{kind}" for name in ("l0", "s2dm", "change")]
    for (name, found), expected in zip(page.evaluate(CANVASES, names).items(), (l0, s2dm, difference(l0, s2dm, gain)), strict=True):
        shown = bytearray(base64.b64decode(found))
        del shown[3::4]
        assert bytes(shown) == expected.permute(2, 0, 3, 1).numpy().tobytes(), f"{name} at {page.url}"


def test_every_strip_of_the_page_without_a_kernel_is_that_of_python(without_kernel, chromium):
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    for film, steps, cells in ((0, 4, [(skip, tau) for skip in SKIPS for tau in ROWS]), (1, 2, [(1, 1.0), (49, 0.99), (99, 0.9)])):
        for skip, tau in cells:
            page.goto(f"{without_kernel.as_uri()}#skip={skip}&tau={tau:g}&steps={steps}&pictures={film + 1}&frame=2")
            drawn(page, skip, f"{tau:g}", steps, film, 1)
            setting = Setting("tiny, shapes", frames=FRAMES, skip=skip, tau=tau, steps=steps, first=2 * film, second=2 * film + 1)
            *_, view = views(setting)
            same_pixels(page, "-film", view.l0.pixels, view.s2dm.pixels, gain_of(view))
            assert page.inner_text("#said") == verdict(view)
            if skip == 49:
                for time, stop in enumerate(stops(steps)):
                    page.focus("#time")
                    page.keyboard.press("Home" if time == 0 else "ArrowRight")
                    drawn(page, skip, f"{tau:g}", steps, film, MIDDLE, time=time)
                    walk = [row.states[stop][MIDDLE:MIDDLE + 1] for row in (view.l0, view.s2dm)]
                    same_pixels(page, "", *walk, gain_of(view))
                    assert f"x_t at t = {grid(setting)[stop]}" in page.inner_text("#which")
                page.keyboard.press("End")
                drawn(page, skip, f"{tau:g}", steps, film, MIDDLE)
    assert not errors
    page.close()


def test_the_page_without_a_kernel_is_moved_shared_and_quick(without_kernel, chromium):
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(without_kernel.as_uri())
    drawn(page, 49, 0.99, 4, 0, 3)
    page.focus("#skip")
    page.keyboard.press("ArrowRight")
    drawn(page, 74, 0.99, 4, 0, 3)
    assert "#skip=74&tau=0.99&steps=4&pictures=1&frame=4" in page.url
    page.focus("#time")
    page.keyboard.press("Home")
    drawn(page, 74, 0.99, 4, 0, 3, time=0)
    page.focus("#frame")
    page.keyboard.press("ArrowLeft")  # only the middle frame has a walk
    drawn(page, 74, 0.99, 4, 0, 2)
    page.keyboard.press("ArrowRight")
    page.locator(".s2dm-cells input").nth(0).check()
    drawn(page, 1, 1, 4, 0, 3)
    page.keyboard.press("ArrowRight")  # from cell to cell
    drawn(page, 4, 1, 4, 0, 3)
    page.click("text=too much")
    drawn(page, 49, 0.9, 4, 0, 3)
    page.select_option("#pictures", label="shapes, seeds 2 to 3")
    page.select_option("#steps", "2")
    drawn(page, 49, 0.9, 2, 1, 3)
    page.click("text=sweep τ")
    drawn(page, 49, 0.97, 2, 1, 3)
    page.click("text=sweep τ")
    assert page.get_attribute("#sweep", "aria-pressed") == "false"
    code = page.inner_text("#code")
    assert re.search(r'explore\(skip=49, tau=[\d.]+, steps=2, frames=6, first=2, second=3, family="tiny, shapes"\)', code)
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked), "it asked the network for something"
    found = accessibility(page)
    assert 'slider "skip"' in " ".join(found) and 'radiogroup "Map' in " ".join(found)
    assert not [line for line in found if line.startswith('image ""')]
    for width, height in (*WIDTHS.values(), AT_ZOOM_200):
        page.set_viewport_size({"width": width, "height": height})
        fits(page)
        if (width, height) == WIDTHS["1280"]:
            box = page.locator(".rows").bounding_box()
            assert box["y"] + box["height"] <= 900, "the film is not seen without scrolling at 1280 × 900"
    page.close()


@pytest.fixture(scope="module")
def alone(without_kernel, chromium):
    """(page, errors) of the page without a kernel; the tests share it, and each begins with `at`."""
    page, errors = chromium.new_page(viewport={"width": 1280, "height": 900}), []
    page.set_default_timeout(PATIENCE)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(without_kernel.as_uri())
    yield page, errors
    page.close()


def at(alone, skip: int = 49, tau: float = 0.99, steps: int = 4, pictures: int = 0, time: int = TIMES) -> None:
    """Load the shared page afresh at a setting, with the middle frame large."""
    page, errors = alone
    errors.clear()
    page.evaluate("address => history.replaceState(null, '', address)",
                  f"#skip={skip}&tau={tau:g}&steps={steps}&pictures={pictures + 1}&frame={MIDDLE + 1}&time={time}")
    page.reload()
    drawn(page, skip, f"{tau:g}", steps, pictures, MIDDLE, time=time)


def test_copy_says_what_it_did_and_selects_the_line_where_a_page_may_not_copy(without_kernel, chromium):
    context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.route("http://**", lambda route: route.fulfill(path=without_kernel))
    for address, words in (("http://localhost/", "copied"), ("http://explorer.test/", "selected; Ctrl-C copies it")):
        page.goto(address)
        drawn(page, 49, 0.99, 4, 0, 3)
        assert page.evaluate("Boolean(navigator.clipboard)") == (words == "copied")
        page.evaluate("document.addEventListener('copy', () => { window.taken = getSelection().toString(); })")
        page.click("#copy")
        until(page, f"document.querySelector('[role=status]#copied').textContent === '{words}'")
        page.click("text=blink")  # which draws again, and must leave the selection
        page.wait_for_selector("#what:has-text('blinking')")
        if words != "copied":
            page.keyboard.press("Control+c")
        code = page.inner_text("#code")
        assert code == page.evaluate("navigator.clipboard?.readText() ?? window.taken")
        assert "tau=0.99" in code
        page.click("text=too much")
        drawn(page, 49, 0.9, 4, 0, 3)
        assert page.inner_text("#copied") == "", "another line has not been copied"
    context.close()


def test_a_choice_while_strips_unpack_is_drawn_when_they_are_there(alone):
    page, errors = alone
    at(alone)
    page.evaluate("""() => {
        const whole = Response.prototype.arrayBuffer, held = new Promise(done => { window.release = done; });
        Response.prototype.arrayBuffer = async function () { await held; return whole.call(this); };
    }""")
    page.click("text=blink")
    page.wait_for_selector("#what:has-text('blinking')")
    for name in ("steps", "pictures"):
        page.focus(f"#{name}")
        page.keyboard.press("ArrowDown")
    assert [page.input_value(f"#{name}") for name in ("steps", "pictures")] == ["2", "1"]
    page.wait_for_timeout(500)  # one more blink
    page.click("text=blink")
    assert not errors
    drawn(page, 49, 0.99, 4, 0, 3)
    page.evaluate("window.release()")
    drawn(page, 49, 0.99, 2, 1, 3)
    *_, view = views(Setting("tiny, shapes", frames=FRAMES, steps=2, first=2, second=3))
    same_pixels(page, "-film", view.l0.pixels, view.s2dm.pixels, gain_of(view))
    assert not errors


def test_the_slider_of_tau_ends_at_1_on_the_right(alone):
    page, errors = alone
    at(alone)
    page.focus("#tau")
    for key, tau in (("ArrowRight", "0.999"), ("ArrowUp", "1"), ("ArrowLeft", "0.999"), ("Home", f"{ROWS[-1]:g}"), ("End", "1")):
        page.keyboard.press(key)
        drawn(page, 49, tau, 4, 0, 3)
        assert page.get_attribute("#tau", "aria-valuetext") == tau and f"&tau={tau}&" in page.url
    assert not errors


def test_a_choice_ends_the_movement_that_would_overwrite_it(alone):
    page, errors = alone
    at(alone)
    own, other = (page.locator(".s2dm-cells input").nth(2 * len(SKIPS) + column) for column in (4, 1))
    choices = {"the cell that is chosen already": own.click, "skip": lambda: page.press("#skip", "ArrowRight"),
               "τ": lambda: page.press("#tau", "Home"), "steps": lambda: page.select_option("#steps", "2"),
               "an address": lambda: page.evaluate("() => new Promise(done => { onhashchange = done; location.hash = '#tau=0.97'; })"),
               "a preset": lambda: page.click("text=too much")}
    for name, choose in choices.items():
        page.click("text=sweep τ")
        assert page.get_attribute("#sweep", "aria-pressed") == "true"
        choose()
        assert page.get_attribute("#sweep", "aria-pressed") == "false", name
    page.wait_for_timeout(600)  # longer than a tick
    assert page.get_attribute("#page", "data-drawn") == f"49,0.9,2,0,3,{TIMES}"
    page.click("text=blink")
    other.click()
    assert page.get_attribute("#blink", "aria-pressed") == "true", "it overwrites nothing"
    page.click("text=walk from")
    other.click()
    assert page.get_attribute("#walk", "aria-pressed") == "true", "it overwrites nothing"
    page.press("#frame", "End")
    assert page.get_attribute("#walk", "aria-pressed") == "false"
    drawn(page, 4, 0.99, 2, 0, FRAMES - 1)
    assert not errors


def test_what_is_empty_or_no_number_in_the_address_is_ignored(alone):
    page, errors = alone
    at(alone, 24, 0.97, 2, 1, time=2)
    whole = page.url
    for value in ("", "%20", "x", "2x", "-1"):
        page.evaluate("hash => { location.hash = hash; }", "&".join(f"{name}={value}" for name in
                                                                    ("skip", "tau", "steps", "pictures", "frame", "time")))
        until(page, f"location.href === '{whole}'")
        drawn(page, 24, 0.97, 2, 1, MIDDLE, time=2)
    page.evaluate("history.replaceState(null, '', '#time=')")
    page.reload()
    drawn(page, 49, 0.99, 4, 0, MIDDLE)
    assert not errors


def test_words_and_map_are_about_the_picture_also_on_the_way_to_it(alone):
    page, errors = alone
    at(alone)
    words, shown = page.inner_text("#said"), page.evaluate("document.getElementById('page').style.getPropertyValue('--map')")
    assert "mean change" in words and "at x₀" not in words
    page.press("#time", "Home")
    drawn(page, 49, 0.99, 4, 0, MIDDLE, time=0)
    assert page.inner_text("#said") == f"{words} That is at x₀."
    assert page.evaluate("document.getElementById('page').style.getPropertyValue('--map')") == shown
    assert "The map shows x₀ of this frame" in page.inner_text(".s2dm-right") and "Map: x₀ of this frame" in " ".join(accessibility(page))
    page.click("text=τ = 1: L₀")
    drawn(page, 49, 1, 4, 0, MIDDLE, time=0)
    assert page.inner_text("#said") == "τ = 1 is L₀ itself: nothing changes."
    assert not errors


def test_the_page_for_the_book_would_be_small_enough_and_a_larger_one_is_refused(without_kernel, monkeypatch):
    content = without_kernel.read_text(encoding="utf-8")
    assert len(content) < LIMIT and not re.search(r'(src|href)="', content)
    data = json.loads(re.search(r"const DATA = (.*);\n", content)[1])
    assert [film["title"] for film in data["films"]] == ["shapes, seeds 0 to 1", "shapes, seeds 2 to 3"]
    monkeypatch.setattr("s2dm_mini.explorer.page.LIMIT", 10_000)
    with pytest.raises(ValueError, match="take fewer films"):
        page({"one": Setting("tiny, shapes")}, (1,))


def test_the_book_shows_the_page_where_the_notebook_has_the_explorer(tmp_path, chromium, without_kernel):
    """A book of one notebook, with the page beside it."""
    folder = tmp_path / "source" / "notebooks"
    (folder / "book").mkdir(parents=True)
    (folder / "book" / "index.md").write_text("# Small\n\n```{toctree}\n../06_latent_explorer\n```\n", encoding="utf-8")
    cell = nbformat.v4.new_code_cell("explore()", metadata={"tags": ["explorer"]}, execution_count=1)
    cell.outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "The explorer.", "image/png": base64.b64encode(
        row_png(shapes(1).pixels, 1)).decode()}, execution_count=1)]
    cells = [nbformat.v4.new_markdown_cell("# One"), cell, nbformat.v4.new_code_cell("1 + 1")]
    metadata = {"language_info": {"name": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / "06_latent_explorer.ipynb")
    done = subprocess.run([sys.executable, "-m", "sphinx", "-W", "-q", "-c", ROOT / "notebooks" / "book",
                           "-D", f"html_extra_path={without_kernel}", folder.parent, tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.goto((tmp_path / "out" / "notebooks" / "06_latent_explorer.html").as_uri())
    page.locator("iframe.explorer").scroll_into_view_if_needed()
    page.frame_locator("iframe.explorer").locator("#page[data-drawn='49,0.99,4,0,3,5']").wait_for()
    assert page.locator("iframe").count() == 1 and page.locator("details img").count() == 1
    page.close()
