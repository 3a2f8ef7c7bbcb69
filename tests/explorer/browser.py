"""Chromium and Jupyter servers for the explorer's tests and its benchmark."""
import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
PATIENCE = 120_000  # milliseconds: a machine under load is slow, and no test measures time
JUPYTER = ["--no-browser", "--allow-root", "--expose-app-in-browser", "--JupyterNotebookApp.expose_app_in_browser=True",
           "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token="]
PATHS = {"lab": "/lab/tree/{}?reset", "notebook": "/notebooks/{}"}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def notebook(path: Path, source: str) -> None:
    cell = {"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": [], "source": source}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    path.write_text(json.dumps({"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")


class Server:
    """A Jupyter server or Voilà on a port of its own, all its folders temporary."""

    def __init__(self, arguments: list[str], folder: Path, port: int, path: str, threads: int = 1):
        folders = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
        settings = folder / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}', encoding="utf-8")
        environment = os.environ | folders | {"IPYTHONDIR": str(folder / "ipython"), "OMP_NUM_THREADS": str(threads)}
        self.log, self.url = folder / "log.txt", f"http://127.0.0.1:{port}{path}"
        self.process = subprocess.Popen([sys.executable, "-m", *arguments], env=environment, cwd=folder,
                                        stdout=self.log.open("w", encoding="utf-8"), stderr=subprocess.STDOUT)

    def wait(self, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.url, timeout=seconds).read()
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"the server did not answer: {self.log.read_text(encoding='utf-8')[-2000:]}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


@contextmanager
def serving(folder: Path, threads: int = 1):
    """A Jupyter server of the notebooks in a folder, with JupyterLab and Notebook 7."""
    port = free_port()
    server = Server(["jupyterlab", *JUPYTER, f"--ServerApp.port={port}"], folder, port, "/lab", threads)
    try:
        server.wait()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()


@contextmanager
def serving_pages(folder: Path, *options: str):
    """Voilà over the notebooks in a folder; yields the server, whose address each of them follows."""
    port = free_port()
    arguments = ["voila", str(folder), "--no-browser", f"--port={port}", "--show_tracebacks=True", *options]
    server = Server(arguments, folder, port, "/voila/render/")
    try:
        server.wait()
        yield server
    finally:
        server.stop()


def run_all(page) -> None:
    """Run the notebook of an open JupyterLab or Notebook 7 once its kernel is there."""
    page.wait_for_function("""() => {
        const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
        return kernel && kernel.connectionStatus === "connected" && kernel.status === "idle";
    }""", timeout=PATIENCE)
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")


def open_explorer(page, url: str) -> list[str]:
    """Open a notebook or Voilà's page and wait for the explorer; returns the list of the page's errors from then on."""
    errors = []
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    if "voila" not in url:
        run_all(page)
    page.wait_for_selector(".s2dm-three")
    page.on("pageerror", lambda error: errors.append(str(error)))
    return errors


def shown(page, name: str) -> bytes:
    """The bytes of the picture behind the variable --name of the page's style, empty until there is one."""
    value = page.evaluate(f"getComputedStyle(document.querySelector('.s2dm')).getPropertyValue('--{name}')")
    found = re.search(r"base64,([^)]*)", value)
    return base64.b64decode(found[1]) if found else b""


def expect(page, contents: dict[str, bytes], seconds: float = PATIENCE / 1000) -> None:
    """Wait until the pictures on the page are these, to the byte."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        wrong = [name for name, content in contents.items() if shown(page, name) != content]
        if not wrong:
            return
        time.sleep(0.1)
    raise AssertionError(f"the pictures {wrong} on the page are not those of the setting; the page says: {page.inner_text('.s2dm-said')}")


def accessibility(page) -> list[str]:
    """Lines such as `spinbutton "skip" 49` for everything with a role that a screen reader tells, in the order of the page."""
    quiet = {"InlineTextBox", "StaticText", "generic", "none", "LineBreak", "MenuListPopup", "option", "paragraph", "emphasis", "strong",
             "superscript", "ListMarker", "LayoutTable", "LabelText", "RootWebArea", "SvgRoot", "code"}
    found = []
    for node in page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]:
        role = node.get("role", {}).get("value")
        if not node.get("ignored") and role not in quiet:
            states = {item["name"]: item["value"].get("value") for item in node.get("properties", [])}
            marks = [name for name in ("checked", "pressed", "disabled", "expanded") if states.get(name) in (True, "true")]
            value = node.get("value", {}).get("value", "")
            found.append(" ".join(map(str, [role, f'"{node.get("name", {}).get("value", "")}"', value, *marks])).strip())
    return found
