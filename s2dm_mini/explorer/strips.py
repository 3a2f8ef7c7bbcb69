"""Strips: two rows of pictures from the same latents, drawn by L_0 and by S²-DM, step by step; a pure function of a `Setting`.

    for view in views(Setting(skip=49)): ...  # coarse to fine, one view per sampler step; pictures.py draws them
"""
import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.images import to_pixels
from ..denoisers import Denoiser
from ..samplers import SAMPLERS, trajectory
from ..samplers.common import CLEAN, signal_left
from .ends import encoded, latents
from .setting import SCHEDULE, Setting, family, grid, network, s2dm

ROWS_KEPT = 400  # at 12 images of 32×32 each: 15 MB
DIVERGED = 4.0  # |x| beyond this is not a picture: those lie in −1..1


@dataclass(frozen=True)
class Row:
    """Pictures drawn side by side, after `step` of `steps` steps of the sampler."""

    step: int
    steps: int
    pixels: Tensor  # (frames, 3, S, S) uint8: x̂_0 at this step, or x_0 at the end
    times: tuple[float, ...]  # timesteps of the network evaluations so far
    eps_rms: tuple[float, ...]  # root mean square of ε predicted there; 1 for pure noise
    largest: float  # |x|: shows whether the sampler diverged

    @property
    def done(self) -> bool:
        return self.step == self.steps


@dataclass(frozen=True)
class View:
    """Both rows at one moment."""

    setting: Setting
    l0: Row
    s2dm: Row
    source: str  # of the S²-DM row: the closed form, or the network's name

    @property
    def slower(self) -> Row:
        """The row with fewer steps made; finished rows stay whole while the other catches up."""
        return min(self.l0, self.s2dm, key=lambda row: row.step)

    @property
    def comparable(self) -> bool:
        """Both rows are at the same step, so that their difference has a meaning."""
        return self.l0.step == self.s2dm.step


class Listener:
    """A denoiser that records the timesteps and the size of its predictions."""

    def __init__(self, denoiser: Denoiser):
        self.denoiser, self.times, self.rms = denoiser, [], []

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        eps = self.denoiser(x, t)
        self.times.append(float(t[0]))
        self.rms.append(eps.square().mean().sqrt().item())
        return eps


def views(setting: Setting) -> Iterator[View]:
    """The strip coarse to fine, one view per sampler step. A row finished before is whole from the first view on.

    Raises CheckpointError for a missing or damaged network, ValueError if the sampler leaves the finite numbers.
    """
    l0 = network(family(setting)[0].name)
    denoiser, source = s2dm(setting)
    key = l0_key(setting)
    s2dm_key = (source, key) if setting.how == "trained" else (setting.skip, setting.tau, key)
    runs = [run(key, l0, latents, setting), run(s2dm_key, denoiser, latents, setting)]
    rows: list[Row | None] = [None, None]
    while not all(row and row.done for row in rows):
        rows = [next(one, row) for one, row in zip(runs, rows, strict=True)]
        yield View(setting, *rows, source)


def l0_key(setting: Setting) -> Setting:
    """The setting without the fields that L_0 does not depend on."""
    return replace(setting, skip=1, tau=1.0, how="trained", amplify=1)


_finished: OrderedDict[Hashable, Row] = OrderedDict()  # by key, the last used at the end


def run(key: Hashable, denoiser: Denoiser, start: Callable[[Setting], Tensor], setting: Setting) -> Iterator[Row]:
    """Sample from x_T = start(setting), one `Row` per step; or yield at once the finished row kept under `key`.

    Every frame gets the same noise of the sampler, so that neighbours differ by their latents only.
    """
    if key in _finished:
        _finished.move_to_end(key)
        yield _finished[key]
        return
    x_T, listener = start(setting), Listener(denoiser)
    noise, steps = [torch.Generator(x_T.device).manual_seed(0) for _ in x_T], len(grid(setting))
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of repeated timesteps, as in `grid`
        walk = trajectory(listener, x_T, SCHEDULE, setting.sampler, setting.steps, setting.spacing, setting.eta, noise)
    for number, step in enumerate(walk, 1):
        x = step.x if step.t == CLEAN else step.x0
        row = Row(number, steps, to_pixels(x).cpu(), tuple(listener.times), tuple(listener.rms), x.abs().max().item())
        if step.t != CLEAN and math.isfinite(row.largest):  # else the walk raises ValueError, on a GPU at its end
            yield row
    _finished[key] = row
    if len(_finished) > ROWS_KEPT:
        _finished.popitem(last=False)
    yield row


def forget() -> None:
    """Drop finished rows, encoded pictures and loaded networks."""
    _finished.clear()
    encoded.cache_clear()
    network.cache_clear()


def smoothness(row: Row) -> Tensor:
    """Distance between neighbouring frames in grey levels of 255, (frames − 1,): root mean square over pixels."""
    return row.pixels.float().diff(dim=0).square().flatten(1).mean(dim=1).sqrt()


def complaint(view: View) -> str:
    """A sentence if the finished strip is not made of pictures, or starts with signal left, else an empty string."""
    largest = max(view.l0.largest, view.s2dm.largest)
    if not view.slower.done:
        return ""
    if largest <= DIVERGED:
        return signal_left(grid(view.setting).tolist(), SCHEDULE)
    s, reach = view.setting, f"values reach {largest:.3g}, pictures lie in −1 to 1"
    if view.l0.largest > DIVERGED:
        return f"{SAMPLERS[s.sampler].title} with {s.steps} steps diverged: {reach}; take more steps, another spacing or another sampler."
    return (f"At skip {s.skip} and τ = {s.tau:g} S²-DM predicts so little of the noise that {s.steps} steps leave most of it in: {reach}; "
            f"take τ nearer to 1, or a smaller skip.")
