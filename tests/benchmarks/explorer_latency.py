"""Prints how fast the explorer answers, what it sends and what it keeps: python tests/benchmarks/explorer_latency.py [--minutes 10]

Times run from a move to the first new pictures (coarse: the foreseen ones) and to the finished strip. `kernel`: in the process that draws;
`browser`: in JupyterLab in headless Chromium, from the key press to the new pictures on the page (needs Chromium and playwright), with
the bytes that came over the wire until the page was at rest. `page`: the page without a kernel, from the key press to the next paint.
8 frames, 10 steps of DDIM, `nano`; medians over the moves. With --minutes, random moves for so long, and the memory of the process
that draws: the slope of a straight line through the second half.
"""
import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import linear_regression, median

import torch

from s2dm_mini import explore
from s2dm_mini.explorer.page import page as page_of
from s2dm_mini.explorer.setting import Setting
from s2dm_mini.support.machine import device_name

MOVES = {"skip": [("skip", value) for value in (10, 14, 20, 27, 33)], "new end": [("first", value) for value in (11, 12, 13, 14, 15)],
         "back": [("skip", value) for value in (27, 20, 27, 20, 27)], "frame": [("frame", value) for value in (1, 2, 3, 4, 5)]}
SOURCE = "from s2dm_mini import explore\nexplore(skip=9, tau=0.99, steps=10, frames=8)"
WATCH = """() => {
    const root = document.querySelector(".s2dm"), style = getComputedStyle(root);
    let before = style.getPropertyValue("--s2dm");
    const look = () => {
        const now = style.getPropertyValue("--s2dm");
        if (now !== before) { window.seen.push(performance.now()); before = now; }
        requestAnimationFrame(look);
    };
    window.seen = [];
    document.addEventListener("keydown", () => { window.pressed = performance.now(); window.seen = []; }, true);
    look();
}"""


def kernel_times() -> dict[str, list[tuple[float, float]]]:
    """kind of move → (first, final) in milliseconds for each move. The map is left out: it follows when the strip is finished."""
    explorer, seen, found = explore(skip=9, tau=0.99, steps=10, frames=8, hide=["map"]), [], {}
    explorer.wait(600)
    for style in (explorer._s2dm, explorer._captions):
        style.observe(lambda _: seen.append(time.perf_counter()), names="value")
    for kind, moves in MOVES.items():
        if kind == "back":  # so that both places are known
            for _, value in moves[:2]:
                explorer.skip.value = value
                explorer.wait(600)
        for name, value in moves:
            time.sleep(0.5)
            seen.clear()
            start = time.perf_counter()
            getattr(explorer, name).value = value
            explorer.wait(600)
            found.setdefault(kind, []).append((1e3 * (seen[0] - start), 1e3 * (seen[-1] - start)))
    explorer.close()
    return found


def browser_times(chromium) -> tuple[dict[str, list[tuple[float, float]]], dict[str, list[int]]]:
    """(first, final) in milliseconds, and bytes received, for moves in JupyterLab."""
    from browser import open_explorer, serving

    times, traffic = {}, {}
    with tempfile.TemporaryDirectory() as folder, serving("lab", SOURCE, Path(folder), threads=torch.get_num_threads()) as server:
        page, received = chromium.new_page(viewport={"width": 1400, "height": 1500}), []
        page.on("websocket", lambda socket: socket.on("framereceived", lambda payload: received.append(len(payload))))
        open_explorer(page, "lab", server.url)
        rest(page, received)
        page.evaluate(WATCH)
        keys = {"skip": ("skip", "ArrowUp"), "τ": ("tau", "ArrowDown"), "frame": ("frame", "ArrowUp"), "new end": ("first", "ArrowUp")}
        page.click("text=more settings")
        for kind, (name, key) in keys.items():
            for _ in range(4):
                received.clear()
                page.focus(f".s2dm-at-{name} input")
                page.keyboard.press(key)
                rest(page, received)
                pressed, seen = page.evaluate("[window.pressed, window.seen]")
                traffic.setdefault(kind, []).append(sum(received))
                if kind != "frame":  # whose pictures are there already
                    times.setdefault(kind, []).append((seen[0] - pressed, seen[-1] - pressed))
        page.close()
    return {kind: found[1:] for kind, found in times.items()}, traffic  # the first warms up


def rest(page, received: list[int]) -> None:
    """Wait until nothing has come for eight seconds, in which even a slow map is drawn, and something has before."""
    quiet, before = 0, -1
    while quiet < 80:
        page.wait_for_timeout(100)
        quiet, before = (quiet + 1 if len(received) == before and received else 0), len(received)


def page_times(chromium) -> list[float]:
    """Milliseconds from a key press on the page without a kernel to the paint after it; 32 × 32 pixels."""
    films = {"one": Setting()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "explorer.html"
        path.write_text(page_of(films, (2,)), encoding="utf-8")
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.goto(path.as_uri())
        page.wait_for_selector("#page[data-drawn]")
        page.evaluate("""() => document.addEventListener("keydown", () => {
            const pressed = performance.now();
            requestAnimationFrame(() => requestAnimationFrame(() => { window.took = performance.now() - pressed; }));
        }, true)""")
        found = []
        for key in ["ArrowLeft", "ArrowRight"] * 6:
            page.evaluate("window.took = 0")
            page.focus("#skip")
            page.keyboard.press(key)
            page.wait_for_function("window.took")
            found.append(page.evaluate("window.took"))
        page.close()
    return found


def memory(minutes: float, family: str) -> tuple[int, list[float], list[float]]:
    """Random moves: their number, and minutes and MiB of the process, five times a minute."""
    explorer, draw, moves, when, kept = explore(family=family), random.Random(0), 0, [], []
    start = time.monotonic()
    while (now := (time.monotonic() - start) / 60) < minutes:
        name = draw.choice(["skip", "skip", "tau", "tau", "steps", "frame", "time", "first", "second"])
        low, high = {"skip": (1, 99), "steps": (2, 12), "frame": (1, 8), "time": (0, 100)}.get(name, (0, 500))
        getattr(explorer, name).value = draw.randint(500, 1000) / 1000 if name == "tau" else draw.randint(low, high)
        explorer.wait(draw.choice([0.02, 0.2, 60]))
        moves += 1
        if not when or now - when[-1] > 0.2:
            when.append(now)
            kept.append(int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20)
    explorer.close()
    return moves, when, kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-browser", action="store_true", help="only the kernel's side")
    parser.add_argument("--minutes", type=float, default=0, help="of random moves, for the memory")
    parser.add_argument("--family", default=Setting.family, help="networks of the random moves; small ones make more moves a minute")
    arguments = parser.parse_args()
    rows, traffic, painted = {f"kernel, {kind}": times for kind, times in kernel_times().items()}, {}, []
    if not arguments.no_browser:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "explorer"))
        from browser import CHROMIUM, FLAGS
        from playwright.sync_api import sync_playwright

        with sync_playwright() as play:
            chromium = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            times, traffic = browser_times(chromium)
            painted = page_times(chromium)
            chromium.close()
        rows |= {f"browser, {kind}": found for kind, found in times.items()}
    print(f"{device_name(torch.device('cpu'))}; torch {torch.__version__}; 8 frames, 10 steps, nano; load {os.getloadavg()[0]:.1f}\n")
    print("| move | first picture, ms | finished strip, ms |\n| --- | ---: | ---: |")
    for name, times in rows.items():
        print(f"| {name} | {median(first for first, _ in times):.0f} | {median(final for _, final in times):.0f} |")
    if traffic:
        print("\n| move | kB over the wire, median | largest |\n| --- | ---: | ---: |")
        for name, sizes in traffic.items():
            print(f"| {name} | {median(sizes) / 1e3:.0f} | {max(sizes) / 1e3:.0f} |")
        print(f"\nThe page without a kernel: {median(painted):.0f} ms from key press to paint, {max(painted):.0f} at most.")
    if arguments.minutes:
        moves, when, kept = memory(arguments.minutes, arguments.family)
        half = len(when) // 2
        slope = linear_regression(when[half:], kept[half:]).slope
        print(f"\n{moves} random moves of {arguments.family} in {arguments.minutes:g} minutes: {kept[half]:.0f} MiB half-way, "
              f"{kept[-1]:.0f} at the end, {slope:+.2f} MiB a minute in the second half.")


if __name__ == "__main__":
    main()
