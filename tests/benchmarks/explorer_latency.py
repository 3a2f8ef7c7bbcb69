"""Prints how fast the explorer answers, what it sends and what it keeps: python tests/benchmarks/explorer_latency.py [--minutes 65]

Times run from a move to the first new pictures (coarse: the foreseen ones) and to the finished strip. `kernel`: in the process that draws;
beside them stand one evaluation of all frames and the strip's bare multiplications, which are those of its evaluations at the rate of a
large matmul. Both rows share their first evaluation, so a strip of 10 steps takes 19, and 9 where only skip or τ moved. `browser`: in
JupyterLab in headless Chromium, from the key press to the new pictures on the page (needs Chromium and playwright), with the bytes that
came over the wire until the page was at rest. `page`: the page without a kernel, from the key press to the next paint. 8 frames, 10
steps of DDIM; medians over the moves. With --minutes, a random move every two seconds for so long, and the memory of the process that
draws, once a minute. Run it on an idle machine: the load is printed.
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
from speed import matmul_rate
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from s2dm_mini import explore
from s2dm_mini.explorer import strips
from s2dm_mini.explorer.ends import latents
from s2dm_mini.explorer.page import page as page_of
from s2dm_mini.explorer.setting import Setting, family, network
from s2dm_mini.support.machine import device_name

STEPS, FRAMES = 10, 8
EVALUATIONS = {"skip": STEPS - 1, "new end": 2 * STEPS - 1}  # that a move waits for
LATE, SLOW = 60, 1.3  # goals: the first picture's milliseconds after one evaluation; the strip over its bare multiplications
MOVES = {"skip": [("skip", value) for value in (10, 14, 20, 27, 33)], "new end": [("first", value) for value in (11, 12, 13, 14, 15)],
         "back": [("skip", value) for value in (27, 20, 27, 20, 27)], "frame": [("frame", value) for value in (1, 2, 3, 4, 5)]}
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


def evaluation(family_name: str) -> tuple[float, float]:
    """Milliseconds of one evaluation of all frames, the best of ten, and of its multiplications at the rate of a large matmul."""
    setting = Setting(family=family_name, frames=FRAMES)
    l0, x, t = network(family(setting)[0].name), latents(setting), torch.full((FRAMES,), 500)
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # the CPU's fused attention is not counted
            l0(x, t)
        best = float("inf")
        for _ in range(10):
            start = time.perf_counter()
            l0(x, t)
            best = min(best, time.perf_counter() - start)
    return 1e3 * best, 1e3 * counter.get_total_flops() / matmul_rate("cpu", 2048)


def kernel_times(family_name: str) -> dict[str, list[tuple[float, float]]]:
    """kind of move → (first, final) in milliseconds for each move. The map is left out: it follows when the strip is finished."""
    explorer, seen, found = explore(family=family_name, skip=9, steps=STEPS, frames=FRAMES, hide=["map"]), [], {}
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


def browser_times(chromium, family_name: str) -> tuple[dict[str, list[tuple[float, float]]], dict[str, list[int]]]:
    """(first, final) in milliseconds, and bytes received, for moves in JupyterLab."""
    from browser import notebook, open_explorer, serving

    times, traffic = {}, {}
    source = f"from s2dm_mini import explore\nexplore(family={family_name!r}, skip=9, steps={STEPS}, frames={FRAMES})"
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), threads=torch.get_num_threads()) as address:
        notebook(Path(folder) / "nb.ipynb", source)
        page, received = chromium.new_page(viewport={"width": 1400, "height": 1500}), []
        page.on("websocket", lambda socket: socket.on("framereceived", lambda payload: received.append(len(payload))))
        open_explorer(page, f"{address}/lab/tree/nb.ipynb?reset")
        rest(page, received)
        page.evaluate(WATCH)
        keys = {"skip": ("skip", "ArrowUp"), "τ": ("tau", "ArrowDown"), "frame": ("frame", "ArrowUp"), "new end": ("first", "ArrowUp")}
        page.check(".s2dm-unfold")
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


def page_times(chromium, family_name: str) -> list[float]:
    """Milliseconds from a key press on the page without a kernel to the paint after it."""
    films = {"one": Setting(family_name)}
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


def memory(minutes: float, family_name: str) -> list[tuple[float, int, float, float]]:
    """Random moves: (minutes, moves, MiB of the process, MiB of finished rows that it keeps) once a minute."""
    explorer, draw, moves, found, start = explore(family=family_name), random.Random(0), 0, [], time.monotonic()
    while (now := (time.monotonic() - start) / 60) < minutes or len(found) < 4:
        name = draw.choice(["skip", "skip", "tau", "tau", "steps", "frame", "time", "first", "second"])
        low, high = {"skip": (1, 99), "steps": (2, 12), "frame": (1, 8), "time": (0, 100)}.get(name, (0, 500))
        getattr(explorer, name).value = draw.randint(500, 1000) / 1000 if name == "tau" else draw.randint(low, high)
        moves += 1
        time.sleep(2)
        if now > len(found) or now > minutes:
            resident = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGESIZE")
            found.append((now, moves, resident / 2**20, strips._finished.bytes / 2**20))
            print("{:.0f} min, {} moves: {:.0f} MiB, of them {:.1f} of kept rows".format(*found[-1]), flush=True)
    explorer.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-browser", action="store_true", help="only the kernel's side")
    parser.add_argument("--minutes", type=float, default=0, help="of random moves, for the memory")
    parser.add_argument("--family", default=Setting.family, help="networks; small ones make more moves a minute")
    arguments = parser.parse_args()
    name = arguments.family
    one, bare = evaluation(name)
    print(f"{device_name(torch.device('cpu'))}; torch {torch.__version__}; {FRAMES} frames, {STEPS} steps, {name}; "
          f"load {os.getloadavg()[0]:.1f}. One evaluation: {one:.0f} ms, its bare multiplications: {bare:.0f} ms.\n")
    print("| move, in the kernel | first picture, ms | after one evaluation | finished strip, ms | over its bare multiplications |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for kind, times in kernel_times(name).items():
        first, final = (median(column) for column in zip(*times, strict=True))
        late = over = ""
        if kind in EVALUATIONS:
            late, slow = f"{first - one:+.0f} (goal {LATE})", final / (EVALUATIONS[kind] * bare)
            over = f"{slow:.2f} (goal {SLOW})"
        print(f"| {kind} | {first:.0f} | {late} | {final:.0f} | {over} |")
    if not arguments.no_browser:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "explorer"))
        from browser import CHROMIUM, FLAGS
        from playwright.sync_api import sync_playwright

        with sync_playwright() as play:
            chromium = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            times, traffic = browser_times(chromium, name)
            painted = page_times(chromium, name)
            chromium.close()
        print("\n| move, in JupyterLab | first picture, ms | finished strip, ms | kB over the wire, median | largest |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for kind, sizes in traffic.items():
            first, final = (f"{median(column):.0f}" for column in zip(*times[kind], strict=True)) if kind in times else ("", "")
            print(f"| {kind} | {first} | {final} | {median(sizes) / 1e3:.0f} | {max(sizes) / 1e3:.0f} |")
        print(f"\nThe page without a kernel: {median(painted):.0f} ms from key press to paint, {max(painted):.0f} at most.")
    if arguments.minutes:
        found = memory(arguments.minutes, name)
        late = found[len(found) // 2:]
        slope = linear_regression([row[0] for row in late], [row[2] for row in late]).slope
        print(f"{found[-1][1]} random moves of {name}: {late[0][2]:.0f} MiB half-way, {late[-1][2]:.0f} at the end, "
              f"{slope:+.2f} MiB a minute in the second half.")


if __name__ == "__main__":
    main()
