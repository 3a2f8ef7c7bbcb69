"""Latents, the noise x_T as coordinates of a picture: paths between two of them, and inversion, from a picture to its noise."""
import torch
from torch import Tensor

from .denoisers import Denoiser
from .samplers.common import strides
from .samplers.ddim import transfer
from .schedule import NoiseSchedule, per_image
from .support.checks import check_ends, check_eps, check_floating, check_integer, check_inversion, check_name, require

REFINEMENTS = 3  # of the inversion: the round trip of 10 steps then errs by about 2 grey levels, without any by 34


def lerp(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """(1−w)·a + w·b, the straight line. a, b: (...) of one shape; weight: (N,). Returns (N, ...).

    Halfway between two independent noises the result has half their variance, so it is not standard normal.
    """
    check_ends(a, b, weight)
    weight = per_image(weight, a[None])  # (N, 1, ...)
    return (1 - weight) * a + weight * b


def slerp(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """The great circle from a to b at even speed: [sin((1−w)Ω)·a + sin(wΩ)·b]/sin Ω, Ω the angle between them (Shoemake, 1985).

    a, b: (...) of one shape; weight: (N,). Returns (N, ...). Independent noises are nearly orthogonal, so the points between
    them have nearly their length. Raises ValueError for a zero vector, and for opposite vectors, which many circles join.
    """
    check_ends(a, b, weight, directions=True)
    weight = per_image(weight, a[None])  # (N, 1, ...)
    u, v = a.double().flatten(), b.double().flatten()
    u, v = u / u.norm(), v / v.norm()
    # The angle from the chord keeps its digits near 0 and near π, where the cosine is flat.
    angle = 2 * torch.atan2((u - v).norm(), (u + v).norm())
    if angle.sin() < 1e-6:
        if angle > 1:
            raise ValueError("slerp has no single way between opposite vectors; take another second end, or lerp.")
        return (1 - weight) * a + weight * b  # one direction: the circle and the line are the same
    left, right = ((1 - weight) * angle).sin() / angle.sin(), (weight * angle).sin() / angle.sin()
    return left * a + right * b


WAYS = {"slerp": slerp, "lerp": lerp}


def interpolate(a: Tensor, b: Tensor, frames: int = 8, way: str = "slerp") -> Tensor:
    """`frames` evenly spaced points from a to b, both included. a, b: (...) of one shape. Returns (frames, ...)."""
    check_name("way", way, WAYS)
    check_floating("a", a, "(...)")
    frames = check_integer("frames", frames, 2, 10_000)
    return WAYS[way](a, b, torch.linspace(0, 1, frames, dtype=a.dtype, device=a.device))


@torch.no_grad()
def invert(denoiser: Denoiser, x0: Tensor, schedule: NoiseSchedule, steps: int = 50, spacing: str = "uniform",
           refinements: int = 0) -> Tensor:
    """The noise from which DDIM (η = 0) on the same grid draws the pictures x0 (DDIM, section 5.4: the ODE run backwards).

    x0: (B, ...) in −1..1. Returns (B, ...), the state at the grid's first timestep. One step up, from s to t, must undo

        x_s = √(ᾱ_s/ᾱ_t)·x_t + (√(1−ᾱ_s) − √(ᾱ_s/ᾱ_t)·√(1−ᾱ_t))·ε(x_t, t),

    an equation for x_t with x_t on both sides. Plain inversion puts x_s into ε, one network call a step; each refinement puts the
    last x_t into it once more, which converges to the exact inverse where ε changes slowly.
    Raises ValueError if x0 or a result is not finite.
    """
    check_inversion(denoiser, x0, schedule, refinements)
    x, grid = x0, schedule.timesteps(steps, spacing).tolist()
    for t, _, a_t, a_s in reversed(list(strides(grid, schedule))):
        guess = x
        for _ in range(1 + refinements):
            eps = check_eps(denoiser(guess, torch.full((len(x),), t, device=x.device)), x, f"at t = {t}, ")
            guess = transfer(x, eps, a_s, a_t)
        x = guess
        if x.device.type == "cpu" or t == grid[0]:  # to ask a GPU is to wait for it: once is enough, infinite values stay
            require(x.isfinite().all(), f"the inversion left the finite numbers at t = {t}; take more steps or fewer refinements")
    return x
