"""Signals with known parameters: heartbeat-like `waves` and `spirals` in the plane, and the parameters that fit a sample best.

    signals = waves(5_000, seed=0)     # signals.pixels (5000, 1, 64) float32, signals.factors: the parameters of each
    fit = fit_waves(x)                 # fit.factors: the parameters nearest to each x (N, 1, 64); fit.residual (N,)

The data have no noise: any residual of a sample is due to the sampler or the network.
"""
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .images import Images

# Factor → smallest and largest value; all are drawn uniformly and independently.
WAVE_FACTORS = {
    "rate": (1.0, 2.0),  # beats in the window
    "phase": (0.0, 1.0),  # start of the window within its beat, in beats
    "width": (0.8, 1.25),  # of all bumps
    "p": (0.10, 0.25), "r": (0.6, 1.0), "t": (0.15, 0.40),  # heights of the three upward waves
}
# The five waves of a heartbeat: place and standard deviation in beats, and height as a multiple of p, r or t.
BUMPS = {"P": (0.20, 0.035, "p", 1.0), "Q": (0.345, 0.020, "r", -0.15), "R": (0.40, 0.028, "r", 1.0), "S": (0.46, 0.022, "r", -0.25),
         "T": (0.68, 0.060, "t", 1.0)}
SPIRAL_FACTORS = {
    "radius": (0.5, 1.0),  # at the start
    "angle": (0.0, 1.0),  # of the start, in turns
    "turns": (1.0, 2.5),  # in the window, anticlockwise or clockwise (negative) with equal probability
    "decay": (0.5, 2.0),  # the radius falls by e^−decay over the window
}
Draw = Callable[[dict[str, Tensor], int], Tensor]  # draw(factors, length)


@dataclass
class Signals(Images):
    """A data set of signals, with pixels (N, C, L) float32 within −1..1; `train` takes it like `Images`."""

    def augment(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """The signals unchanged: they are in range, and a mirrored heartbeat is not a heartbeat."""
        return pixels


@dataclass
class Fit:
    """The parameters of the generator that come nearest to each of N signals."""

    factors: dict[str, Tensor]  # name → (N,) float64
    residual: Tensor  # (N,) root mean square of signal minus fit


def waves(n: int = 5_000, length: int = 64, seed: int = 0) -> Signals:
    """Heartbeats (n, 1, length) with factors in WAVE_FACTORS: periodic sums of five Gaussian bumps, named as in an electrocardiogram.

    The same (n, length, seed) gives the same signals.
    """
    return _signals("waves", length, draw_waves, _factors(n, WAVE_FACTORS, seed))


def draw_waves(factors: dict[str, Tensor], length: int = 64) -> Tensor:
    """One signal per row of factors, (n,) each. Returns (n, 1, length) in their dtype."""
    column = {name: value[:, None] for name, value in factors.items()}  # (n, 1)
    beat = column["phase"] + column["rate"] * torch.arange(length, dtype=column["rate"].dtype) / length  # (n, length)
    x = torch.zeros_like(beat)
    for place, deviation, height, multiple in BUMPS.values():
        away = (beat - place + 0.5) % 1 - 0.5  # distance to the nearest bump of this kind, in beats
        x = x + multiple * column[height] * torch.exp(-(away / (deviation * column["width"])).square() / 2)
    return x[:, None]


def spirals(n: int = 5_000, length: int = 64, seed: int = 0) -> Signals:
    """Inward paths (n, 2, length) with factors in SPIRAL_FACTORS: radius·e^(−decay·u + 2πi(angle + turns·u)), u from 0 to 1.

    The same (n, length, seed) gives the same paths.
    """
    factors = _factors(n, SPIRAL_FACTORS | {"sense": (0.0, 1.0)}, seed)
    factors["turns"] = torch.where(factors.pop("sense") < 0.5, -factors["turns"], factors["turns"])
    return _signals("spirals", length, draw_spirals, factors)


def draw_spirals(factors: dict[str, Tensor], length: int = 64) -> Tensor:
    """One path per row of factors, (n,) each. Returns (n, 2, length) in their dtype."""
    column = {name: value[:, None] for name, value in factors.items()}  # (n, 1)
    u = torch.linspace(0, 1, length, dtype=column["turns"].dtype)
    radius = column["radius"] * torch.exp(-column["decay"] * u)  # (n, length)
    angle = 2 * math.pi * (column["angle"] + column["turns"] * u)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


def fit_waves(x: Tensor) -> Fit:
    """The waves nearest to each x (N, 1, L) in least squares.

    Start: the best rate and phase of a grid, where the three heights are a linear problem. Then `_refined` fits all six factors.
    """
    x, length = x.double(), x.shape[2]
    rates, phases = torch.linspace(*WAVE_FACTORS["rate"], 31, dtype=torch.float64), torch.arange(48, dtype=torch.float64) / 48
    rate, phase = (grid.flatten() for grid in torch.meshgrid(rates, phases, indexing="ij"))  # (G,)
    phase = phase - rate / 2  # a grid of the phase at the middle of the window, where errors of the rate matter least
    one, none = torch.ones_like(rate), torch.zeros_like(rate)
    templates = torch.cat([draw_waves({"rate": rate, "phase": phase, "width": one, **dict.fromkeys("prt", none), height: one}, length)
                           for height in "prt"], dim=1)  # (G, 3, L)
    basis = torch.linalg.qr(templates.transpose(1, 2)).Q  # (G, L, 3): the templates explain the part of x in its span
    best = torch.cat([torch.einsum("gld,nl->ngd", basis, some).square().sum(2).argmax(1) for some in x[:, 0].split(256)])  # (N,)
    p, r, t = torch.linalg.lstsq(templates[best].transpose(1, 2), x.transpose(1, 2)).solution[..., 0].T  # (N,) each
    return _refined(draw_waves, x, {"rate": rate[best], "phase": phase[best], "width": one[best], "p": p, "r": r, "t": t}, around="phase")


def fit_spirals(x: Tensor) -> Fit:
    """The spirals nearest to each x (N, 2, L) in least squares.

    As complex numbers, each point of a spiral is the one before times q = e^((−decay + 2πi·turns)/(L−1)). Start: q in least squares (Prony,
    1795), then radius and angle likewise. Then `_refined` fits all four factors.
    """
    x, length = x.double(), x.shape[2]
    z = torch.complex(x[:, 0], x[:, 1])  # (N, L)
    log_q = ((z[:, 1:] * z[:, :-1].conj()).sum(1) / z[:, :-1].abs().square().sum(1)).log() * (length - 1)  # (N,)
    unit = torch.exp(log_q[:, None] * torch.linspace(0, 1, length, dtype=torch.float64))
    z0 = (unit.conj() * z).sum(1) / unit.abs().square().sum(1)
    start = {"radius": z0.abs(), "angle": z0.angle() / (2 * math.pi), "turns": log_q.imag / (2 * math.pi), "decay": -log_q.real}
    return _refined(draw_spirals, x, start, around="angle")


def _factors(n: int, ranges: dict[str, tuple[float, float]], seed: int) -> dict[str, Tensor]:
    u = torch.rand(n, len(ranges), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {name: low + (high - low) * u[:, i] for i, (name, (low, high)) in enumerate(ranges.items())}


def _signals(kind: str, length: int, draw: Draw, factors: dict[str, Tensor]) -> Signals:
    x, name = draw(factors, length).float(), f"{kind}{length}"
    return Signals(name, x, torch.zeros(len(x), dtype=torch.int64), (name,), factors)


def _refined(draw: Draw, x: Tensor, start: dict[str, Tensor], around: str, rounds: int = 25) -> Fit:
    """Least squares by the Levenberg–Marquardt method (Marquardt, 1963) from `start`, for all x (N, C, L) at once.

    around: the cyclic factor, of period 1.
    """
    names, length = list(start), x.shape[2]

    def draw_flat(theta: Tensor) -> Tensor:  # (N, P) → (N, C·L)
        return draw(dict(zip(names, theta.T, strict=True)), length).flatten(1)

    slope_of = torch.func.vmap(torch.func.jacfwd(lambda one: draw_flat(one[None])[0]))
    theta = torch.stack(list(start.values()), dim=1)  # (N, P)
    left, damping = x.flatten(1) - draw_flat(theta), torch.full((len(x), 1), 1e-3, dtype=torch.float64)
    for _ in range(rounds):
        slope = slope_of(theta)  # (N, C·L, P)
        normal = slope.transpose(1, 2) @ slope  # (N, P, P)
        ridge = torch.diag_embed(damping * normal.diagonal(dim1=1, dim2=2) + 1e-12)
        trial = theta + torch.linalg.solve(normal + ridge, torch.einsum("ndp,nd->np", slope, left))
        trial_left = x.flatten(1) - draw_flat(trial)
        better = trial_left.square().sum(1, keepdim=True) < left.square().sum(1, keepdim=True)  # (N, 1)
        theta, left, damping = (torch.where(better, a, b) for a, b in ((trial, theta), (trial_left, left), (damping / 4, damping * 4)))
    factors = dict(zip(names, theta.T, strict=True))
    factors[around] = factors[around] % 1
    return Fit(factors, left.square().mean(1).sqrt())
