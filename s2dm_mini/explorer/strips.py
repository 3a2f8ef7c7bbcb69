"""Strips: two rows of pictures from the same latents, drawn by L_0 and by S²-DM, step by step; a pure function of a `Setting`.

    for view in views(Setting(skip=49)): ...  # coarse to fine, one view per sampler step; pictures.py draws them
"""
import math
import threading
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
from .setting import SCHEDULE, Setting, Trained, family, grid, network, s2dm

KEPT_BYTES = 64 << 20  # of finished rows: some 180 of 8 images and 10 steps
DIVERGED = 4.0  # |x| beyond this is not a picture: those lie in −1..1


@dataclass(frozen=True)
class Row:
    """Pictures drawn side by side, after `step` of `steps` steps of the sampler."""

    step: int
    steps: int
    pixels: Tensor  # (frames, 3, S, S) uint8: x̂_0 at this step, or x_0 at the end
    states: tuple[Tensor, ...]  # the walk so far, from x_T: step + 1 times (frames, 3, S, S) uint8
    times: tuple[float, ...]  # timesteps of the network evaluations so far
    eps_rms: tuple[float, ...]  # root mean square of ε predicted there; 1 for pure noise
    largest: float  # |x|: shows whether the sampler diverged
    first_eps: Tensor | None = None  # ε predicted from x_T, (frames, 3, S, S)

    @property
    def done(self) -> bool:
        return self.step == self.steps

    @property
    def bytes(self) -> int:
        """Of memory, nearly."""
        return sum(tensor.nbytes for tensor in (*self.states, self.first_eps))


@dataclass(frozen=True)
class View:
    """Both rows at one moment."""

    setting: Setting
    l0: Row
    s2dm: Row
    drawn_by: Trained  # the S²-DM row: its network with the skip and τ of its factor s_t

    @property
    def slower(self) -> Row:
        """The row with fewer steps made; finished rows stay whole while the other catches up."""
        return min(self.l0, self.s2dm, key=lambda row: row.step)

    @property
    def change(self) -> float:
        """Mean |S²-DM − L₀| over frames, pixels and colours, in grey levels of 255."""
        return (self.s2dm.pixels.float() - self.l0.pixels.float()).abs().mean().item()


class Listener:
    """A denoiser that records its first prediction, and the timesteps and the size of all."""

    def __init__(self, denoiser: Denoiser):
        self.denoiser, self.first, self.times, self.rms = denoiser, None, [], []

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        eps = self.denoiser(x, t)
        self.first = eps if self.first is None else self.first
        self.times.append(float(t[0]))
        self.rms.append(eps.square().mean().sqrt().item())
        return eps


class Started:
    """A denoiser whose first answer is known: every strip from the same noises begins with the same question to L_0."""

    def __init__(self, denoiser: Denoiser, answer: Tensor):
        self.denoiser, self.known = denoiser, [answer]

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.known.pop() if self.known else self.denoiser(x, t)


def views(setting: Setting) -> Iterator[View]:
    """The strip coarse to fine, one view per sampler step. A row finished before is whole from the first view on.

    Raises CheckpointError for a missing or damaged network, ValueError if the sampler leaves the finite numbers.
    """
    network_l0, key = network(family(setting)[0].name), l0_key(setting)
    l0_run = run(key, network_l0, latents, setting)
    l0 = next(l0_run)
    denoiser, drawn_by = s2dm(setting, Started(network_l0, l0.first_eps))
    s2dm_run = run((setting.how, drawn_by, key), denoiser, latents, setting)
    row = next(s2dm_run)
    yield View(setting, l0, row, drawn_by)
    while not (l0.done and row.done):
        l0, row = next(l0_run, l0), next(s2dm_run, row)
        yield View(setting, l0, row, drawn_by)


def l0_key(setting: Setting) -> Setting:
    """The setting without the fields that L_0 does not depend on."""
    return replace(setting, skip=1, tau=1.0, how="trained")


class Kept:
    """Finished rows by key, at most KEPT_BYTES of them, the last used at the end; all explorers of a process share them."""

    def __init__(self):
        self.rows: OrderedDict[Hashable, Row] = OrderedDict()
        self.bytes, self.lock = 0, threading.Lock()

    def get(self, key: Hashable) -> Row | None:
        with self.lock:
            if key in self.rows:
                self.rows.move_to_end(key)
            return self.rows.get(key)

    def put(self, key: Hashable, row: Row) -> None:
        with self.lock:
            if key not in self.rows:  # else another explorer drew the same
                self.rows[key] = row
                self.bytes += row.bytes
            while self.bytes > KEPT_BYTES and len(self.rows) > 1:
                self.bytes -= self.rows.popitem(last=False)[1].bytes


_finished = Kept()


def run(key: Hashable, denoiser: Denoiser, start: Callable[[Setting], Tensor], setting: Setting) -> Iterator[Row]:
    """Sample from x_T = start(setting), one `Row` per step; or yield at once the finished row kept under `key`.

    Every frame gets the same noise of the sampler, so that neighbours differ by their latents only.
    """
    if (kept := _finished.get(key)) is not None:
        yield kept
        return
    x_T, listener = start(setting), Listener(denoiser)
    noise, steps = [torch.Generator(x_T.device).manual_seed(0) for _ in x_T], len(grid(setting))
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of repeated timesteps, as in `grid`
        walk = trajectory(listener, x_T, SCHEDULE, setting.sampler, setting.steps, setting.spacing, setting.eta, noise)
    states = [to_pixels(x_T).cpu()]
    for number, step in enumerate(walk, 1):
        states.append(to_pixels(step.x).cpu())
        pixels = states[-1] if step.t == CLEAN else to_pixels(step.x0).cpu()
        largest = (step.x if step.t == CLEAN else step.x0).abs().max().item()
        row = Row(number, steps, pixels, tuple(states), tuple(listener.times), tuple(listener.rms), largest, listener.first)
        if step.t != CLEAN and math.isfinite(largest):  # else the walk raises ValueError, on a GPU at its end
            yield row
    _finished.put(key, row)
    yield row


def forget() -> None:
    """Drop finished rows, encoded pictures and loaded networks."""
    _finished.__init__()
    encoded.cache_clear()
    network.cache_clear()


def complaint(view: View) -> str:
    """A sentence if the finished strip is not made of pictures, or starts with signal left, else an empty string."""
    largest = max(view.l0.largest, view.s2dm.largest)
    if not view.slower.done:
        return ""
    if largest <= DIVERGED:
        return signal_left(grid(view.setting).tolist(), SCHEDULE)
    by, steps, reach = view.drawn_by, view.setting.steps, f"values reach {largest:.3g}, pictures lie in −1 to 1"
    if view.l0.largest > DIVERGED:
        title = SAMPLERS[view.setting.sampler].title
        return f"{title} with {steps} step{'s' * (steps != 1)} diverged: {reach}; take more steps, another spacing or another sampler."
    return (f"At skip {by.skip} and τ = {by.tau:g} S²-DM predicts so little of the noise that {steps} steps leave most of it in: {reach}; "
            f"take τ nearer to 1, or a smaller skip.")


def verdict(view: View) -> str:
    """What S²-DM changed, in a sentence with the number; for a trained network also its name."""
    by, asked = view.drawn_by, view.setting
    words = ((1.5, "too little to see without amplification"), (8, "a little grain"), (30, "clearly grainy"),
             (256, "more noise than picture"))
    change = view.change
    found = f"The mean change is {change:.1f} of 255 grey levels: {next(word for limit, word in words if change < limit)}."
    if by.tau == 1:
        found = "τ = 1 is L₀ itself: nothing changes." if asked.tau == 1 else "L₀ itself comes nearest: nothing changes."
    return found if asked.how == "closed form" else f"{found} Drawn by {by.name}, skip {by.skip}, τ {by.tau:g}."
