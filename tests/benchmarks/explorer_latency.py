"""Prints how fast the explorer answers: python tests/benchmarks/explorer_latency.py

Times run from a move to the first new strip (coarse: the foreseen pictures) and to the finished one. `kernel`: in the process that draws;
`browser`: in JupyterLab in headless Chromium, from the key press to the new picture on the page (needs Chromium and playwright).
8 frames, 10 steps of DDIM, `nano`. Three kinds of moves: skip (the L₀ row is remembered), a new first end (both rows are drawn), and
back to where one was (everything is remembered). Medians over the moves.
"""
import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from s2dm_mini import explore
from s2dm_mini.support.machine import device_name

MOVES = {"skip": [("skip", value) for value in (10, 14, 20, 27, 33)], "new end": [("first", value) for value in (11, 12, 13, 14, 15)],
         "back": [("skip", value) for value in (27, 20, 27, 20, 27)]}
SOURCE = "from s2dm_mini import explore\nexplore(skip=9, tau=0.99, steps=10, frames=8)"
WATCH = """selector => {
    window.seen = [];
    new MutationObserver(() => window.seen.push(performance.now())).observe(document.querySelector(selector),
                                                                            {attributes: true, attributeFilter: ["src"]});
    document.addEventListener("keydown", () => { window.pressed = performance.now(); window.seen = []; }, true);
}"""


def kernel_times() -> dict[str, list[tuple[float, float]]]:
    """kind of move → (first, final) in milliseconds for each move."""
    explorer, seen, found = explore(skip=9, tau=0.99, steps=10, frames=8), [], {}
    explorer.wait()
    explorer.strip.observe(lambda _: seen.append(time.perf_counter()), names="value")
    for kind, moves in MOVES.items():
        if kind == "back":  # so that both places are known
            for _, value in MOVES["back"][:2]:
                explorer.skip.value = value
                explorer.wait()
        for name, value in moves:
            control = explorer.first.number if name == "first" else explorer.skip
            time.sleep(0.5)
            seen.clear()
            start = time.perf_counter()
            control.value = value
            explorer.wait()
            found.setdefault(kind, []).append((1e3 * (seen[0] - start), 1e3 * (seen[-1] - start)))
    return found


def browser_times() -> list[tuple[float, float]]:
    """(first, final) in milliseconds for key presses on the slider of skip, each one stride further."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "explorer"))
    from playwright.sync_api import sync_playwright
    from test_browser import CHROMIUM, FLAGS, Server, free_port, notebook, run_all

    found = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        port, folder = free_port(), Path(folder)
        notebook(folder / "nb.ipynb", SOURCE)
        server = Server(["jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser", "--ServerApp.ip=127.0.0.1",
                         f"--ServerApp.port={port}", "--IdentityProvider.token="], folder, port, "/lab/tree/nb.ipynb?reset",
                        threads=torch.get_num_threads())
        try:
            server.wait()
            browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": 1400, "height": 1500})
            page.goto(server.url)
            run_all(page)
            page.wait_for_selector(".s2dm-strip", timeout=60_000)
            page.wait_for_timeout(5_000)
            page.evaluate(WATCH, ".s2dm-strip")
            for _ in range(6):
                page.focus(".s2dm-skip .noUi-handle")
                page.keyboard.press("ArrowRight")
                page.wait_for_timeout(4_000)
                pressed, seen = page.evaluate("[window.pressed, window.seen]")
                found.append((seen[0] - pressed, seen[-1] - pressed))
            browser.close()
        finally:
            server.stop()
    return found[1:]  # the first warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-browser", action="store_true", help="only the kernel's side")
    arguments = parser.parse_args()
    rows = {f"kernel, {kind}": times for kind, times in kernel_times().items()}
    if not arguments.no_browser:
        rows["browser, skip"] = browser_times()
    print(f"{device_name(torch.device('cpu'))}; torch {torch.__version__}; 8 frames, 10 steps, nano\n")
    print("| move | first picture, ms | finished strip, ms |\n| --- | ---: | ---: |")
    for name, times in rows.items():
        print(f"| {name} | {median(first for first, _ in times):.0f} | {median(final for _, final in times):.0f} |")


if __name__ == "__main__":
    main()
