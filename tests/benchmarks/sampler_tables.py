"""Prints how well the samplers agree with diffusers' and how fast their error falls: python tests/benchmarks/sampler_tables.py

The tests hold the same rows to limits. Everything is in float64 with exact denoisers, so that no network hides an error.
"""
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DEISMultistepScheduler, DPMSolverMultistepScheduler, PNDMScheduler
from diffusers.schedulers import (
    scheduling_ddim,
    scheduling_ddpm,
    scheduling_deis_multistep,
    scheduling_dpmsolver_multistep,
    scheduling_pndm,
)
from torch import Tensor

from s2dm_mini import SAMPLERS, MixtureDenoiser, NoiseSchedule, sample
from s2dm_mini.data.points import RING_STD, ring_means
from s2dm_mini.samplers.common import NoisePredictor
from s2dm_mini.samplers.deis import gauss_legendre, lagrange

SCHEDULE = NoiseSchedule.linear()
RING = MixtureDenoiser(ring_means(), RING_STD, SCHEDULE)


def noise(n: int = 32) -> Tensor:
    return torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


# ------------------------------------------------------------------------------------------- diffusers, in float64

class _Doubled:
    """A module whose float32 is float64: diffusers names float32 for its tables and, in DPM-Solver, for its states."""

    def __init__(self, module):
        self.module = module

    def __getattr__(self, name):
        return getattr(self.module, "float64" if name == "float32" else name)


@contextmanager
def in_float64() -> Iterator[None]:
    """Within it, diffusers' own code runs in double precision."""
    modules = (scheduling_ddim, scheduling_ddpm, scheduling_deis_multistep, scheduling_dpmsolver_multistep, scheduling_pndm)
    patches = [mock.patch.object(module, name, _Doubled(library))
               for module in modules for name, library in (("torch", torch), ("np", np)) if hasattr(module, name)]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def diffusers_sample(make: Callable, x: Tensor, denoiser=RING, steps: int | None = None, timesteps: list[int] | None = None,
                     before_step: Callable = lambda scheduler, eps: eps, **step_arguments) -> Tensor:
    """diffusers' sampling loop. make() → scheduler; x (B, 2); before_step may change the scheduler or ε at each step."""
    with in_float64():
        scheduler = make()
        if timesteps is None:
            scheduler.set_timesteps(steps)
        else:
            scheduler.set_timesteps(timesteps=timesteps)
        for t in scheduler.timesteps:
            eps = before_step(scheduler, denoiser(x, t.long().expand(len(x))))
            x = scheduler.step(eps, t, x, **step_arguments).prev_sample
    assert x.dtype == torch.float64
    return x


def two_predictions(scheduler: PNDMScheduler, eps: Tensor) -> Tensor:
    """Makes diffusers' PLMS forget all but the last ε: S-PNDM, after the improved Euler step that it starts with anyway."""
    scheduler.ets = scheduler.ets[-1:]
    return eps


def no_improved_euler(scheduler: PNDMScheduler, eps: Tensor) -> Tensor:
    """Makes the second half of diffusers' improved Euler step repeat the first: Adams-Bashforth from 1 up, as `plms` starts."""
    return scheduler.ets[-1] if scheduler.counter == 1 else eps


def log_rho_deis(x: Tensor, grid: list[int], points: int) -> Tensor:
    """DEIS with Lagrange polynomials in log ρ, down to the last timestep of the grid (not to ᾱ = 1, where log ρ has no value)."""
    alpha_bar = SCHEDULE.alpha_bar.numpy()
    rho = np.sqrt((1 - alpha_bar) / alpha_bar)
    known = []
    for i, (t, s) in enumerate(zip(grid, grid[1:], strict=False)):
        known = [RING(x, torch.full((len(x),), t)), *known[:points - 1]]
        nodes = np.log(rho[[grid[i - j] for j in range(len(known))]])
        at, d_rho = gauss_legendre(np.geomspace(rho[t], rho[s], 9), 32)
        C = (lagrange(nodes, np.log(at)) * d_rho).sum(axis=(1, 2))
        x = (x / alpha_bar[t] ** 0.5 + sum(c * eps for c, eps in zip(C, known, strict=True))) * alpha_bar[s] ** 0.5
    return x


@dataclass(frozen=True)
class Parity:
    """Our sampler against diffusers', on one grid."""

    sampler: str
    peer: str
    grid: str
    steps: int
    nfe: int
    difference: float  # largest over all numbers of all samples


def parity_rows() -> Iterator[Parity]:
    """Every sampler that diffusers has, set up as diffusers gets it right."""
    x = noise()

    def row(sampler: str, peer: str, spacing: str, steps: int, ours: Tensor, theirs: Tensor) -> Parity:
        nfe = SAMPLERS[sampler].nfe(steps) if sampler in SAMPLERS else steps
        return Parity(sampler, peer, spacing, steps, nfe, (ours - theirs).abs().max().item())

    for steps in (1, 10, 50, 250):
        for eta in (0.0, 0.5, 1.0):
            def make():
                return DDIMScheduler(clip_sample=False)
            ours = sample(RING, x, SCHEDULE, "ddim", steps, eta=eta, generator=torch.Generator().manual_seed(1))
            theirs = diffusers_sample(make, x, steps=steps, eta=eta, generator=torch.Generator().manual_seed(1))
            yield row("ddim", f"DDIM, eta {eta}", "uniform", steps, ours, theirs)
    for name, variance_type in (("ddpm", "fixed_small"), ("ddpm-large", "fixed_large")):
        for steps in (10, 100):
            def make(variance_type=variance_type):
                return DDPMScheduler(variance_type=variance_type, clip_sample=False)
            ours = sample(RING, x, SCHEDULE, name, steps, generator=torch.Generator().manual_seed(1))
            theirs = diffusers_sample(make, x, steps=steps, generator=torch.Generator().manual_seed(1))
            yield row(name, f"DDPM, {variance_type}", "uniform", steps, ours, theirs)
    for name, peer, change in (("f-pndm", "PNDM", lambda scheduler, eps: eps),
                               ("s-pndm", "PNDM, two ε kept", two_predictions),
                               ("plms", "PNDM, Euler start", no_improved_euler)):
        for steps in (4, 10, 50, 125):
            def make(skip=name != "f-pndm"):
                return PNDMScheduler(skip_prk_steps=skip, set_alpha_to_one=True)
            theirs = diffusers_sample(make, x, steps=steps, before_step=change)
            yield row(name, peer, "uniform", steps, sample(RING, x, SCHEDULE, name, steps), theirs)
    for spacing in ("uniform", "quadratic", "trailing", "logsnr"):
        for steps in (1, 2, 10, 30):
            grid = SCHEDULE.timesteps(steps, spacing).tolist()
            theirs = diffusers_sample(DPMSolverMultistepScheduler, x, timesteps=grid)
            yield row("dpm-solver++", "DPMSolver++ 2M", spacing, steps, sample(RING, x, SCHEDULE, "dpm-solver++", steps, spacing), theirs)
    for points in (1, 2, 3):
        for steps in (4, 9, 49):
            def make(points=points):
                return DEISMultistepScheduler(solver_order=points, timestep_spacing="leading", lower_order_final=False)
            grid = SCHEDULE.timesteps(steps + 1).tolist()  # diffusers takes no step from t = 0 to ᾱ = 1
            yield row("log-ρ DEIS", f"DEIS, {points} point{'s' * (points > 1)}", "uniform to t = 0", steps,
                      log_rho_deis(x, grid, points), diffusers_sample(make, x, steps=steps))


# ------------------------------------------------------------------------------------------- order of convergence

# Eight times finer than the usual schedule, so that there are timesteps enough for small strides.
FINE = NoiseSchedule.linear(8000, 1e-4 / 8, 0.02 / 8)
TOP, END = 7992, 312  # 7680 = 2⁹·15 timesteps apart; near t = 0 the ODE is not smooth in t
SLOPE_STEPS = (60, 120, 240, 480, 960)


def ring_eps(y: Tensor, rho: float) -> Tensor:
    """E[ε | x_0 + ρ·ε = y] for the ring of Gaussians: `MixtureDenoiser` written a second time, in y = x/√ᾱ. y (B, 2)."""
    spread = RING_STD**2 + rho**2
    residual = y[:, None] - ring_means()  # (B, 8, 2)
    responsibility = torch.softmax(-residual.square().sum(2) / (2 * spread), dim=1)
    return rho / spread * torch.einsum("bk,bkd->bd", responsibility, residual)


def reference(x: Tensor, schedule: NoiseSchedule, t: int, s: int, steps: int = 2500) -> Tensor:
    """x_s from x_t along dy = ε dρ, by the classical Runge-Kutta method in asinh ρ: 4·steps evaluations, error about 1e-10.

    The samplers' ODE is the same whatever the schedule between timesteps: log ᾱ(t) only says where on ρ a timestep lies.
    """
    a_t, a_s = schedule.alpha_bar[t].item(), schedule.alpha_bar[s].item()
    v = np.linspace(*(math.asinh(math.sqrt((1 - a) / a)) for a in (a_t, a_s)), steps + 1).tolist()

    def slope(y, v):
        return math.cosh(v) * ring_eps(y, math.sinh(v))

    y = x / a_t**0.5
    for v0, v1 in zip(v, v[1:], strict=False):
        h = v1 - v0
        k1 = slope(y, v0)
        k2 = slope(y + h / 2 * k1, v0 + h / 2)
        k3 = slope(y + h / 2 * k2, v0 + h / 2)
        k4 = slope(y + h * k3, v1)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y * a_s**0.5


def slope_rows() -> Iterator[tuple[str, list[float], list[float]]]:
    """(sampler, errors at SLOPE_STEPS, slopes between them) on the ring from t = TOP to END in equal strides; root mean square."""
    denoiser, x = MixtureDenoiser(ring_means(), RING_STD, FINE), noise(16)
    exact = reference(x, FINE, TOP, END)
    for name, sampler in SAMPLERS.items():
        if not sampler.deterministic:
            continue
        errors = []
        for steps in SLOPE_STEPS:
            grid = list(range(TOP, END - 1, -(TOP - END) // steps))
            predict = NoisePredictor(denoiser, x, len(grid), check_each_call=True)
            with torch.inference_mode():
                reached = next(step.x for step in sampler.run(predict, x, grid, FINE) if step.t == END)
            errors.append((reached - exact).square().mean().sqrt().item())
        yield name, errors, [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]


def main() -> None:
    warnings.filterwarnings("ignore", "the quadratic grid of 30 steps repeats")  # it takes 29, and so does diffusers
    print("Largest difference from diffusers, float64, exact denoiser of a ring of 8 Gaussians, T = 1000")
    print(f"{'sampler':14}{'peer':22}{'grid':18}{'steps':>6}{'NFE':>6}{'difference':>12}")
    for row in parity_rows():
        print(f"{row.sampler:14}{row.peer:22}{row.grid:18}{row.steps:6}{row.nfe:6}{row.difference:12.1e}")
    print(f"\nError and slope, same denoiser, T = {FINE.T}, from t = {TOP} to {END} in equal strides")
    print(f"{'sampler':14}{'order':>6}  " + "".join(f"{f'{n} steps':>11}" for n in SLOPE_STEPS) + "   slopes")
    for name, errors, slopes in slope_rows():
        print(f"{name:14}{SAMPLERS[name].order:6}  " + "".join(f"{e:11.2e}" for e in errors) + "   " + " ".join(f"{s:.2f}" for s in slopes))


if __name__ == "__main__":
    main()
