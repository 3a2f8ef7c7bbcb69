"""Strips: what the latent explorer shows, as pure functions of a `Setting`. The widgets on top are in explorer.py.

    for view in views(Setting(skip=49)): ...  # coarse to fine, one view a sampler step; strip_pictures.py draws it

A strip has three rows: L_0, S²-DM with the same latents, and what S²-DM changes. Networks and finished rows are kept, so
that a setting seen before is there at once.
"""
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.images import to_pixels
from ..denoisers import Denoiser
from ..samplers import SAMPLERS, trajectory
from ..samplers.common import CLEAN
from .ends import _encoded, latents
from .setting import SCHEDULE, Setting, family, grid, network, s2dm

ROWS_KEPT = 400  # of at most 12 images of 32×32: 15 MB
DIVERGED = 4.0  # pictures live in −1..1; values beyond this are none any more


@dataclass(frozen=True)
class Row:
    """One network's strip, at some step of the sampler."""

    pixels: Tensor  # (frames, 3, S, S) uint8, x̂_0 of the step, or x_0 at the end
    times: tuple[float, ...]  # timesteps at which the network was asked
    eps_rms: tuple[float, ...]  # root mean square of its answers ε there; 1 for pure noise
    largest: float  # |x|, to see whether the sampler diverged


@dataclass(frozen=True)
class View:
    """What is seen at one moment: both rows, and how far they are."""

    setting: Setting
    step: int
    steps: int
    l0: Row
    s2dm: Row
    source: str  # where the S²-DM row comes from: the formula, or the network's name
    comparable: bool  # both rows are at the same step, so that their difference means something

    @property
    def done(self) -> bool:
        return self.step == self.steps


class Listener:
    """A denoiser that notes how large its answers are."""

    def __init__(self, denoiser: Denoiser):
        self.denoiser, self.times, self.rms = denoiser, [], []

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        eps = self.denoiser(x, t)
        self.times.append(float(t[0]))
        self.rms.append(eps.square().mean().sqrt().item())
        return eps


_rows: OrderedDict[tuple, Row] = OrderedDict()  # finished ones, the latest used last


def forget() -> None:
    """Empty the store of finished rows, encoded pictures and loaded networks."""
    _rows.clear()
    _encoded.cache_clear()
    network.cache_clear()


def views(setting: Setting) -> Iterator[View]:
    """The strip coarse to fine, one view a sampler step. Rows seen before are there at once, whole.

    Raises CheckpointError (a network is missing or damaged) and ValueError (the sampler left the finite numbers).
    """
    l0 = network(family(setting)[0].name)
    denoiser, source = s2dm(setting)
    key = replace(setting, skip=1, tau=1.0, how="trained", amplify=1)  # what L_0's row depends on, and no more
    s2dm_key = (source, key) if setting.how == "trained" else (setting.skip, setting.tau, key)
    both_wait = key not in _rows and s2dm_key not in _rows
    steps, l0_row, s2dm_row = len(grid(setting)), None, None
    l0_run, s2dm_run = _run(key, l0, setting), _run(s2dm_key, denoiser, setting)
    for step in range(steps if key in _rows and s2dm_key in _rows else 1, steps + 1):
        l0_row, s2dm_row = next(l0_run, l0_row), next(s2dm_run, s2dm_row)
        yield View(setting, step, steps, l0_row, s2dm_row, source, comparable=both_wait or step == steps)


def _run(key: tuple | Setting, denoiser: Denoiser, setting: Setting) -> Iterator[Row]:
    """A row, step by step, kept when it is whole; or at once the one that was kept."""
    if key in _rows:
        _rows.move_to_end(key)
        yield _rows[key]
        return
    x_T, heard = latents(setting), Listener(denoiser)
    # All frames hear the same noise, so that what differs between neighbours is their place on the way.
    noise = [torch.Generator(x_T.device).manual_seed(0) for _ in x_T]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        walk = trajectory(heard, x_T, SCHEDULE, setting.sampler, setting.steps, setting.spacing, setting.eta, noise)
    for step in walk:
        done = step.t == CLEAN
        x = step.x if done else step.x0
        row = Row(to_pixels(x).cpu(), tuple(heard.times), tuple(heard.rms), x.abs().max().item())
        if done:
            _rows[key] = row
            while len(_rows) > ROWS_KEPT:
                _rows.popitem(last=False)
        yield row


def smoothness(row: Row) -> Tensor:
    """How far neighbouring frames are apart, in grey levels of 255: root mean square over pixels, (frames − 1,)."""
    return row.pixels.float().diff(dim=0).square().flatten(1).mean(dim=1).sqrt()


def complaint(view: View) -> str:
    """A sentence if what came out are no pictures, else nothing."""
    largest = max(view.l0.largest, view.s2dm.largest)
    if not view.done or largest <= DIVERGED:
        return ""
    s, reach = view.setting, f"values reach {largest:.3g}, pictures lie in −1 to 1"
    if view.l0.largest > DIVERGED:
        return f"{SAMPLERS[s.sampler].title} with {s.steps} steps diverged: {reach}; take more steps, another spacing or another sampler."
    return (f"At skip {s.skip} and τ = {s.tau:g} S²-DM predicts so little of the noise that {s.steps} steps leave most of it in: {reach}; "
            f"take τ nearer to 1, or a smaller skip.")
