"""The explorer in JupyterLab, Notebook 7 and Voilà, moved like a user moves it in headless Chromium: what is on the page is, to the byte,
what the pure functions draw for the setting that was asked for.
"""
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from s2dm_mini.explorer.ends import shape_picture, upload
from s2dm_mini.explorer.pictures import draw_plane, strip
from s2dm_mini.explorer.plane import SKIPS, TAUS, plane
from s2dm_mini.explorer.setting import Setting

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here: on Debian `apt-get install chromium` brings one, and these tests run")]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
SMALL = Setting(family="tiny, shapes", steps=5, frames=6)
BYTES = """async selector => {
    const image = document.querySelector(selector);
    if (!image || !image.src) return "";
    const content = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
    return btoa(Array.from(content, byte => String.fromCharCode(byte)).join(""));
}"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def notebook(path: Path, source: str) -> None:
    cell = {"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": [], "source": source}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    path.write_text(json.dumps({"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}))


class Server:
    """A Jupyter server or Voilà on a port of its own, all its folders temporary."""

    def __init__(self, arguments: list[str], folder: Path, port: int, path: str, threads: int = 1):
        folders = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
        settings = folder / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
        environment = os.environ | folders | {"IPYTHONDIR": str(folder / "ipython"), "OMP_NUM_THREADS": str(threads)}
        self.log, self.url = folder / "log.txt", f"http://127.0.0.1:{port}{path}"
        self.process = subprocess.Popen([sys.executable, "-m", *arguments], env=environment, cwd=folder,
                                        stdout=self.log.open("w"), stderr=subprocess.STDOUT)

    def wait(self, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.url, timeout=seconds).read()
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"the server did not answer: {self.log.read_text()[-2000:]}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(params=["lab", "notebook", "voila"])
def explorer(request, chromium, tmp_path):
    """A page with the explorer on it, its first strip finished; its errors are collected and must be none at the end."""
    port, source = free_port(), ("from s2dm_mini import explore\n"
                                 f"explore(family={SMALL.family!r}, steps={SMALL.steps}, frames={SMALL.frames})")
    notebook(tmp_path / "nb.ipynb", source)
    if request.param == "voila":
        server = Server(["voila", "nb.ipynb", "--no-browser", f"--port={port}", "--show_tracebacks=True"], tmp_path, port, "/")
    else:
        module, place = {"lab": ("jupyterlab", "/lab/tree/nb.ipynb?reset"), "notebook": ("notebook", "/notebooks/nb.ipynb")}[request.param]
        server = Server([module, "--no-browser", "--allow-root", "--expose-app-in-browser", "--ServerApp.ip=127.0.0.1",
                         f"--ServerApp.port={port}", "--IdentityProvider.token="], tmp_path, port, place)
    try:
        server.wait()
        page, errors = chromium.new_page(viewport={"width": 1400, "height": 1500}), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.url)
        if request.param != "voila":
            wait_for_kernel(page)
            errors.clear()  # Notebook 7.6 stumbles once while it loads, over any notebook
            run_all(page)
        page.wait_for_selector(".s2dm-strip", timeout=60_000)
        page.app = request.param
        yield page
        assert not errors, errors
        assert not page.query_selector(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']"), "something on stderr"
        page.close()
    finally:
        server.stop()


def wait_for_kernel(page) -> None:
    page.wait_for_function("""() => {
        const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
        return kernel && kernel.connectionStatus === "connected" && kernel.status === "idle";
    }""", timeout=60_000)


def run_all(page) -> None:
    wait_for_kernel(page)
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function("window.jupyterapp.shell.currentWidget.content.widgets[0].model.executionCount > 0", timeout=60_000)


def expect(page, content: bytes, selector: str = ".s2dm-strip", seconds: float = 40) -> None:
    """Wait until the picture on the page is this one, to the byte."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = base64.b64decode(page.evaluate(BYTES, selector))
        if found == content:
            return
        time.sleep(0.05)
    raise AssertionError(f"the picture on the page ({len(found):,} bytes) is not the one of the setting ({len(content):,} bytes); "
                         f"the page says: {message(page)}")


def drag(page, slider: str, dots: int) -> None:
    """Pull a slider's handle by so many dots, in small moves, as a hand does."""
    handle = page.locator(f"{slider} .noUi-handle").bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for i in range(1, 9):
        page.mouse.move(x + dots * i / 8, y)
    page.mouse.up()
    time.sleep(0.3)  # for the last of the moves


def offer(page, name: str, content: bytes) -> None:
    """Choose a file for the first end."""
    with page.expect_file_chooser() as chooser:
        page.click(".s2dm-first button")
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


def message(page) -> str:
    return page.inner_text(".s2dm-message")


def tau_of(page) -> float:
    return float(page.input_value(".s2dm-tau input"))


def test_a_user_moves_everything(explorer):
    page, now = explorer, SMALL
    expect(page, strip(now))

    page.focus(".s2dm-skip .noUi-handle")
    # Notebook 7 keeps the arrow keys to move between cells, over any slider.
    page.keyboard.press("PageUp" if page.app == "notebook" else "ArrowRight")
    now = replace(now, skip=14 if page.app == "notebook" else 10)
    expect(page, strip(now))

    drag(page, ".s2dm-skip", 80)
    page.wait_for_function("Number(document.querySelector('.s2dm-skip .widget-readout').innerText) > 30")
    now = replace(now, skip=int(page.inner_text(".s2dm-skip .widget-readout")))
    expect(page, strip(now))

    drag(page, ".s2dm-tau-slider", -64)
    page.wait_for_function("Number(document.querySelector('.s2dm-tau input').value) < 0.99")
    now = replace(now, tau=tau_of(page))
    expect(page, strip(now))

    page.fill(".s2dm-tau input", "0.965")
    page.keyboard.press("Enter")
    now = replace(now, tau=0.965)
    expect(page, strip(now))
    assert tau_of(page) == 0.965, "the slider, which has no stop there, must not change what was typed"

    page.click(".s2dm-skip .widget-readout")
    page.keyboard.press("Control+a")
    page.keyboard.type("60")
    page.keyboard.press("Enter")
    now = replace(now, skip=60)
    expect(page, strip(now))

    page.select_option(".s2dm-sampler select", label="DPM-Solver++(2M)")
    now = replace(now, sampler="dpm-solver++")
    expect(page, strip(now))

    page.focus(".s2dm-tau input")
    for _ in range(30):
        page.keyboard.press("ArrowUp")
    now = replace(now, tau=0.995)
    expect(page, strip(now))

    if page.app != "notebook":
        page.focus(".s2dm-skip .noUi-handle")
        for _ in range(30):
            page.keyboard.press("ArrowLeft")
        now = replace(now, skip=30)
        expect(page, strip(now))
    assert "alert" not in page.inner_html(".s2dm-message"), message(page)


def test_the_map_is_clicked_and_a_wrong_file_is_survived(explorer):
    from playwright.sync_api import TimeoutError as TimedOut

    page, now = explorer, SMALL
    expect(page, strip(now))
    page.click("text=map of skip and τ")
    *_, finished = plane(now)
    expect(page, draw_plane(now, finished), ".s2dm-map")
    row, column = 3, 4
    page.locator(".s2dm-map ~ button").nth(row * len(SKIPS) + column).click()
    page.click(".lm-TabBar-tabLabel:has-text('strip')")
    now = replace(now, skip=SKIPS[column], tau=TAUS[row])
    expect(page, strip(now))

    page.select_option(".s2dm-first select", label="own picture")
    offer(page, "letter.png", b"Dear Sir,")
    page.wait_for_selector(".s2dm-message [role=alert]")
    assert "letter.png is no picture" in message(page)
    offer(page, "wall.png", bytes(9_000_000))
    page.wait_for_function("document.querySelector('.s2dm-message').innerText.includes('wall.png has 9 MB')", timeout=30_000)
    offer(page, "house.png", bytes(20_000_000))  # beyond what a Jupyter server lets through: it drops the connection, which comes back
    assert "drop larger files" in page.inner_text(".s2dm-first")
    for _ in range(12):  # what is said while the connection is down is lost
        page.select_option(".s2dm-first select", label="a drawn shape")
        with suppress(TimedOut):
            page.wait_for_selector(".s2dm-first input[type=number]", timeout=5_000)
            break
        page.select_option(".s2dm-first select", label="own picture")
    expect(page, strip(replace(now, first=shape_picture(0))))
    page.select_option(".s2dm-first select", label="own picture")
    own = shape_picture(5)
    offer(page, "shape.png", own)
    expect(page, strip(replace(now, first=upload("shape.png", own))))

    page.select_option(".s2dm-first select", label="random noise")
    page.fill(".s2dm-first input[type=number]", "7")
    page.keyboard.press("Enter")
    now = replace(now, first=7)
    expect(page, strip(now))
    page.wait_for_selector(".s2dm-message [role=status]")

    page.wait_for_selector("a[download$='.gif']")
    with page.expect_download() as download:
        page.click("a[download$='.png']")
    assert Path(download.value.path()).read_bytes() == strip(now)


def test_the_page_of_its_own(chromium, tmp_path):
    """What `make explorer` serves, with the shipped CIFAR-10 network; its screenshot goes to build/."""
    port = free_port()
    server = Server(["voila", str(ROOT / "notebooks" / "explorer" / "latent_explorer.ipynb"), "--no-browser", f"--port={port}"],
                    tmp_path, port, "/")
    try:
        server.wait()
        page = chromium.new_page(viewport={"width": 980, "height": 1000})
        page.goto(server.url)
        page.wait_for_selector(".s2dm-strip", timeout=60_000)
        expect(page, strip(Setting()))
        page.fill(".s2dm-tau input", "0.97")
        page.keyboard.press("Enter")
        expect(page, strip(Setting(tau=0.97)))
        page.wait_for_selector("a[download$='.gif']")
        (ROOT / "build").mkdir(exist_ok=True)
        page.screenshot(path=ROOT / "build" / "explorer.png")
    finally:
        server.stop()
