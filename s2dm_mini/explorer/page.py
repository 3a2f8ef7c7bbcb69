"""The explorer as one file of HTML that needs no kernel, no library and no network: python -m s2dm_mini.explorer.page build/explorer.html

It holds every strip of a table of skip and τ, for two pairs of noises and for shapes, to the last bit, and the walk of the middle frame
from noise. The strips are put in the order of their shrinkage and stored as differences from strip to strip, which compress to about half.
"""
import base64
import gzip
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from ..losses import shrinkage
from ..support.checks import check_integer
from ..support.files import write_whole
from ..support.progress import bar
from .pictures import factor, gain_of, toy
from .plane import PRESETS, SKIPS, TAUS
from .setting import SCHEDULE, Setting, Trained, grid
from .strips import verdict, views

ROWS = TAUS[:-2]  # in the last two hardly anything is seen but noise, which no compression makes smaller
FRAMES, STEPS = 6, (10, 5)
MIDDLE, TIMES = FRAMES // 2, 5  # the frame with a walk, and its stops, from x_T on and evenly spaced, before x_0
FILMS = {"CIFAR-10, seeds 0 to 1": Setting(), "CIFAR-10, seeds 2 to 3": Setting(first=2, second=3),
         "shapes, seeds 0 to 1": Setting("tiny, shapes")}
LIMIT = 2_500_000  # bytes of the page
FOLDER = Path(__file__).parent


def strength(skip: int, tau: float) -> float:
    """How far s_t goes away from 1, 0 for L_0."""
    return (1 - shrinkage(SCHEDULE, skip, tau)).max().item()


ORDER = sorted({(1 if tau == 1 else skip, tau) for skip in SKIPS for tau in ROWS}, key=lambda cell: strength(*cell))


def page(films: dict[str, Setting] = FILMS, steps: tuple[int, ...] = STEPS) -> str:
    """The page with these films by their titles; of a setting only the noises and networks count. Raises ValueError above LIMIT."""
    data = {"skips": SKIPS, "taus": ROWS, "frames": FRAMES, "steps": steps, "presets": PRESETS,
            "times": {count: grid(Setting(steps=count))[stops(count)].tolist() for count in steps},
            "cells": [[ORDER.index((1 if tau == 1 else skip, tau)) for skip in SKIPS] for tau in ROWS],
            "films": []}
    cells = [Trained("closed form", skip, tau, 0) for skip, tau in ORDER]
    drawings = {"curves": [*map(factor, cells)], "toys": {count: [toy(Setting(steps=count), cell) for cell in cells] for count in steps}}
    data["drawings"] = packed(json.dumps(drawings).encode())
    with bar("strips", len(films) * len(steps) * len(ORDER), unit="strip") as progress:
        for title, start in films.items():
            film = {"title": title, "strips": {}, "said": {}, "code": f"frames={FRAMES}, first={start.first}, second={start.second}"}
            if start.family != Setting.family:
                film["code"] += f', family="{start.family}"'
            for count in steps:
                drawn, film["said"][count] = [], []
                for skip, tau in ORDER:
                    *_, view = views(replace(start, skip=skip, tau=tau, steps=count, frames=FRAMES))
                    walk = [view.s2dm.states[stop][MIDDLE] for stop in stops(count)]
                    drawn.append(torch.cat([view.s2dm.pixels, torch.stack(walk)]))  # (FRAMES + TIMES, 3, S, S)
                    film["said"][count].append((verdict(view), gain_of(view)))
                    progress.update()
                strips = torch.stack(drawn)  # differences of bytes, modulo 256: from strip to strip, and along each walk
                strips[1:] = strips[1:] - strips[:-1]
                strips[:, FRAMES + 1:] = strips[:, FRAMES + 1:] - strips[:, FRAMES:-1]
                film["strips"][count] = packed(strips.numpy().tobytes())
            data["films"].append(film | {"side": drawn[0].shape[-1]})
    template, look = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.html", "look.css"))
    html = template.replace("/*LOOK*/", look).replace("/*DATA*/", json.dumps(data, ensure_ascii=False).replace("</", "<\\/"))
    check_integer("the page's size in bytes", len(html.encode()), 0, LIMIT, why="; take fewer films or numbers of steps")
    return html


def stops(steps: int) -> list[int]:
    """How many steps the walk has made at each of its stops."""
    return [stop * steps // TIMES for stop in range(TIMES)]


def packed(content: bytes) -> str:
    """Base64 of gzip."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


if __name__ == "__main__":
    write_whole(Path(sys.argv[1]), page().encode())
