"""The explorer as one file of HTML that needs no kernel, no library and no network: python -m s2dm_mini.explorer.page build/explorer.html

It holds every strip of a table of skip and τ, for several pairs of noises and for shapes, to the last bit. The strips are put in the
order of their shrinkage and stored as differences from strip to strip, which compress to about half.
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
from .drawings import factor, toy
from .pictures import gain_of
from .plane import PRESETS, SKIPS, TAUS
from .setting import SCHEDULE, Setting, Trained
from .strips import verdict, views

ROWS = TAUS[:-2]  # in the last two hardly anything is seen but noise, which no compression makes smaller
FRAMES, STEPS = 6, (10, 5)
FILMS = {"CIFAR-10, seeds 0 to 1": Setting(frames=FRAMES),
         "CIFAR-10, seeds 2 to 3": Setting(frames=FRAMES, first=2, second=3),
         "CIFAR-10, seeds 4 to 5": Setting(frames=FRAMES, first=4, second=5),
         "shapes, seeds 0 to 1": Setting("tiny, shapes", frames=FRAMES)}
LIMIT = 2_500_000  # bytes of the page
FOLDER = Path(__file__).parent


def strength(skip: int, tau: float) -> float:
    """How far s_t goes away from 1, 0 for L_0."""
    return (1 - shrinkage(SCHEDULE, skip, tau)).max().item()


ORDER = sorted({(1 if tau == 1 else skip, tau) for skip in SKIPS for tau in ROWS}, key=lambda cell: strength(*cell))


def page(films: dict[str, Setting] = FILMS, steps: tuple[int, ...] = STEPS) -> str:
    """The page with these films, each by its title; skip, τ and steps of the settings are left aside. Raises ValueError above LIMIT."""
    data = {"skips": SKIPS, "taus": ROWS, "frames": next(iter(films.values())).frames, "steps": steps, "presets": PRESETS,
            "cells": [[ORDER.index((1 if tau == 1 else skip, tau)) for skip in SKIPS] for tau in ROWS],
            "films": []}
    cells = [Trained("closed form", skip, tau, 0) for skip, tau in ORDER]
    drawings = {"curves": [*map(factor, cells)], "toys": {count: [toy(Setting(steps=count), cell) for cell in cells] for count in steps}}
    data["drawings"] = packed(json.dumps(drawings).encode())
    with bar("strips", len(films) * len(steps) * len(ORDER), unit="strip") as progress:
        for title, start in films.items():
            film = {"title": title, "strips": {}, "said": {}, "code": f"frames={start.frames}, first={start.first}, second={start.second}"}
            if start.family != Setting.family:
                film["code"] += f', family="{start.family}"'
            for count in steps:
                drawn, film["said"][count] = [], []
                for skip, tau in ORDER:
                    *_, view = views(replace(start, skip=skip, tau=tau, steps=count))
                    drawn.append(view.s2dm.pixels)
                    film["said"][count].append((verdict(view), gain_of(view)))
                    progress.update()
                strips = torch.stack(drawn)
                film["strips"][count] = packed(torch.cat([strips[:1], strips[1:] - strips[:-1]]).numpy().tobytes())  # modulo 256
            data["films"].append(film | {"side": drawn[0].shape[-1]})
    template, look = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.html", "look.css"))
    html = template.replace("/*LOOK*/", look).replace("/*DATA*/", json.dumps(data, ensure_ascii=False).replace("</", "<\\/"))
    check_integer("the page's size in bytes", len(html.encode()), 0, LIMIT, why="; take fewer films, frames or numbers of steps")
    return html


def packed(content: bytes) -> str:
    """Base64 of gzip."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


if __name__ == "__main__":
    write_whole(Path(sys.argv[1]), page().encode())
