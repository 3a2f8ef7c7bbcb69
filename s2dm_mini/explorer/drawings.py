"""Small drawings as SVG text, for the explorer's page: the factor s_t, the size of the predicted noise, and a toy in the plane."""
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..data.points import RING_STD, ring_means
from ..denoisers import MixtureDenoiser, Shrunk
from ..losses import shrinkage
from ..plots import BLUE, GREY, VERMILION
from ..samplers import trajectory
from .setting import SCHEDULE, Setting, Trained
from .strips import View

WORDS = (BLUE, "#B04A00")  # colours of the two lines' names: vermilion is too pale for letters on white
CLOUD, WALKS = 80, 10  # points of the toy; of them with their path
SCALE = 46  # dots of the toy's picture for a length of 1; the ring has radius 1

Line = tuple[Sequence[float], Sequence[float]]  # x and y of its points


def factor(by: Trained) -> str:
    """The factor s_t on the predicted noise over the timesteps, beside the 1 of L_0."""
    t = range(0, SCHEDULE.T, 27)
    s_t = shrinkage(SCHEDULE, by.skip, by.tau)[::27].tolist()
    return lines(f"factor s_t on the noise: {min(s_t):.3f} to 1", "timestep t",
                 {"L₀": (t, [1.0] * len(t)), f"skip {by.skip}, τ {by.tau:g}": (t, s_t)}, low=min(0.9, *s_t))


def sizes(view: View) -> str:
    """The root mean square of the predicted noise at each network evaluation of both rows."""
    return lines("size of the predicted noise", "t, drawing runs leftwards",
                 {"L₀": (view.l0.times, view.l0.eps_rms), "S²-DM": (view.s2dm.times, view.s2dm.eps_rms)})


def lines(title: str, x_label: str, series: Mapping[str, Line], low: float | None = None) -> str:
    """Two lines, the first blue and the second orange, with the range of their values as ticks. low: the lowest tick."""
    xs, ys = ([v for line in series.values() for v in line[i]] for i in (0, 1))
    bottom = min(ys) if low is None else low
    top, left, right = max(*ys, bottom + 1e-9), min(xs), max(*xs, min(xs) + 1)

    def place(x: float, y: float) -> str:
        return f"{34 + 200 * (x - left) / (right - left):.1f},{98 - 74 * (y - bottom) / (top - bottom):.1f}"

    drawn = [_text(0, 12, title), _text(134, 117, x_label, "middle"), f'<path d="M34,22V98H234" fill="none" stroke="{GREY}"/>',
             _text(30, 28, f"{top:.3g}", "end"), _text(30, 101, f"{bottom:.3g}", "end"),
             _text(34, 117, f"{left:g}"), _text(234, 117, f"{right:g}", "end")]
    for i, ((name, (x, y)), colour) in enumerate(zip(series.items(), (BLUE, VERMILION), strict=True)):
        points = " ".join(map(place, x, y))
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn.append(_text(40 + 30 * i, 92, name, colour=WORDS[i]))
    return _svg(236, 120, f"{title}, {x_label}: {' and '.join(series)}", drawn)


def toy(setting: Setting, by: Trained) -> str:
    """Eight Gaussians on a ring, sampled from the same noises with the exact prediction and with s_t times it; both follow by formula."""
    exact = MixtureDenoiser(ring_means(), RING_STD, SCHEDULE)
    x_T = torch.randn(CLOUD, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = [f'<circle cx="{_at(x)}" cy="{_at(-y)}" r="{2 * SCALE * RING_STD:.1f}" fill="{GREY}" opacity=".45"/>'
             for x, y in ring_means().tolist()]
    spread = []
    for denoiser, colour in ((exact, BLUE), (Shrunk(exact, shrinkage(SCHEDULE, by.skip, by.tau)), VERMILION)):
        noise = torch.Generator().manual_seed(0)
        walk = trajectory(denoiser, x_T, SCHEDULE, setting.sampler, setting.steps, setting.spacing, setting.eta, noise)
        path = [x_T, *(step.x for step in walk)]
        for way in torch.stack(path)[:, :WALKS].transpose(0, 1).tolist():
            points = " ".join(f"{_at(x)},{_at(-y)}" for x, y in way)
            drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" opacity=".6"/>')
        drawn += [f'<circle cx="{_at(x)}" cy="{_at(-y)}" r="1.5" fill="{colour}"/>' for x, y in path[-1].tolist()]
        spread.append(spread_of(path[-1]))
    title = f"spread about the centres: data {RING_STD:.3f}, L₀ {spread[0]:.3f}, S²-DM {spread[1]:.3f}"
    drawn = ['<svg width="140" height="140">', *drawn, "</svg>"]  # cuts off points outside
    drawn += [_text(70, 155, f"data {RING_STD:.3f}", "middle"), _text(35, 170, f"L₀ {spread[0]:.3f}", "middle", WORDS[0]),
              _text(100, 170, f"S²-DM {spread[1]:.3f}", "middle", WORDS[1])]
    return _svg(140, 178, f"Eight Gaussians on a ring, sampled with and without s_t; {title}", drawn)


def spread_of(x: Tensor) -> float:
    """Standard deviation of points x (N, 2) about the nearest centre of the ring."""
    return ((x[:, None] - ring_means()).square().sum(-1).min(dim=1).values.mean() / 2).sqrt().item()


def _at(value: float) -> str:
    """A coordinate of the toy's plane in dots."""
    return f"{70 + SCALE * value:.1f}"


def _text(x: int, y: int, words: str, anchor: str = "start", colour: str = "#222222") -> str:
    return f'<text x="{x}" y="{y}" font-size="11" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def _svg(width: int, height: int, label: str, drawn: list[str]) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}" font-family="sans-serif">{"".join(drawn)}</svg>'
