"""The picture of the package's rooms: which room imports which, read off the code. `python notebooks/book/rooms.py house.svg` writes it.

A room is a folder or a file directly in s2dm_mini/. Rooms stand on a diagonal, in the layers of [tool.importlinter] in pyproject.toml.
A line leaves each room to the right; from each dot on it an arrow runs down to a room that it imports.
"""
import ast
import io
import sys
import tomllib
from itertools import chain
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).resolve().parents[2]
CORE = ("latents", "guidance", "losses", "unet", "samplers", "denoisers", "schedule")
WIDTH, HEIGHT, RIGHT, DOWN = 1.1, 0.3, 0.62, 0.42  # of a box, and from one to the next, in inches
INK, LINE, TINT, BAND = "#1f2933", "#7b8794", "#cfe3f7", "#f4f5f7"
ARROW = {"arrowstyle": "-|>", "color": LINE, "linewidth": 1, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
LEGEND = """A room imports the rooms below the dots on its line.
Rooms in one band do not import each other.
Blue: the core, which a student reads."""


def layers() -> list[list[str]]:
    """The rooms, layer by layer from the top."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    return next([layer.split(" | ") for layer in contract["layers"]] for contract in contracts if contract["type"] == "layers")


def arrows() -> set[tuple[str, str]]:
    """(room, room it imports), for all imports in the package, those inside functions included."""
    package = ROOT / "s2dm_mini"
    found = set()
    for path in package.rglob("*.py"):
        folders = path.relative_to(ROOT).parent.parts
        room = folders[1] if len(folders) > 1 else path.stem
        imports = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.ImportFrom) and node.level]
        for node in imports:
            base = [*folders[:len(folders) - node.level + 1], *(node.module.split(".") if node.module else ())]
            found |= {(room, [*base, alias.name][1]) for alias in node.names}
    return {(room, other) for room, other in found if room not in ("__init__", other)}  # __init__ is the door, not a room


def picture() -> str:
    """The picture as SVG. Boxes have the ids room-NAME, dots NAME-imports-NAME."""
    rooms, found = list(chain(*layers())), arrows()
    x = {room: i * RIGHT for i, room in enumerate(rooms)}  # left edges of the boxes
    y = {room: -i * DOWN for i, room in enumerate(rooms)}  # their middles
    figure = Figure(figsize=(x[rooms[-1]] + WIDTH + 0.2, HEIGHT - y[rooms[-1]] + 0.2), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-0.1, x[rooms[-1]] + WIDTH + 0.1), ylim=(y[rooms[-1]] - HEIGHT / 2 - 0.1, HEIGHT / 2 + 0.1))
    axes.axis("off")
    for layer in layers()[::2]:
        axes.axhspan(y[layer[0]] + DOWN / 2, y[layer[-1]] - DOWN / 2, color=BAND, linewidth=0, zorder=0)
    for room in rooms:
        axes.add_patch(FancyBboxPatch((x[room], y[room] - HEIGHT / 2), WIDTH, HEIGHT, "round,pad=0,rounding_size=0.07", linewidth=1.2,
                                      facecolor=TINT if room in CORE else "white", edgecolor=INK, zorder=3, gid=f"room-{room}"))
        axes.text(x[room] + WIDTH / 2, y[room], room, ha="center", va="center_baseline", size=10, color=INK, zorder=4)
        if imported := [x[other] for importer, other in found if importer == room]:
            axes.plot([x[room] + WIDTH, max(imported) + WIDTH / 2], [y[room]] * 2, color=LINE, linewidth=1, zorder=1)
        if importers := [y[importer] for importer, other in found if other == room]:
            middle = x[room] + WIDTH / 2
            axes.annotate("", (middle, y[room] + HEIGHT / 2), (middle, max(importers)), arrowprops=ARROW, zorder=2)
    for room, other in sorted(found):
        axes.plot(x[other] + WIDTH / 2, y[room], "o", color=INK, markersize=4.5, zorder=3, gid=f"{room}-imports-{other}")
    axes.text(0.1, y[rooms[-1]] + 1.5 * DOWN, LEGEND, size=10, color=INK, va="center", linespacing=1.7)
    svg = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "rooms"}):
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return svg.getvalue()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture(), encoding="utf-8")
