"""Latents: the noise x_T as coordinates of a picture. Ways between two of them, and the way back from a picture to its noise."""
import torch
from torch import Tensor

from .denoisers import Denoiser
from .samplers.common import CLEAN, AlphaBar
from .samplers.ddim import transfer
from .schedule import NoiseSchedule, per_image
from .support.checks import check_denoiser, check_eps, check_finite, check_floating, check_integer, check_kind, check_name, shown

REFINEMENTS = 3  # of the inversion: brings the round trip of 10 steps from about 34 grey levels to 2


def lerp(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """(1−w)·a + w·b, the straight line. a, b: (...) of one shape; weight: (N,). Returns (N, ...).

    Halfway between two independent noises the result has half their variance: it is no noise any more.
    """
    weight = _checked(a, b, weight)
    return (1 - weight) * a + weight * b


def slerp(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """The great circle from a to b at even speed: [sin((1−w)Ω)·a + sin(wΩ)·b]/sin Ω, Ω the angle between them (Shoemake, 1985).

    a, b: (...) of one shape; weight: (N,). Returns (N, ...). Independent noises are nearly orthogonal, and every point
    between them is as long as they are: noise like any other. Raises ValueError where there is no such circle: for a zero
    vector, and for opposite ones, between which there are many.
    """
    weight = _checked(a, b, weight)
    u, v = a.double().flatten(), b.double().flatten()
    if not u.norm() > 0 or not v.norm() > 0:
        raise ValueError("slerp needs two vectors that are not zero: a zero vector has no direction.")
    u, v = u / u.norm(), v / v.norm()
    # The angle from the chord, which keeps its digits where the cosine is flat: near 0 and near π.
    angle = 2 * torch.atan2((u - v).norm(), (u + v).norm())
    if angle.sin() < 1e-6:
        if angle > 1:
            raise ValueError("slerp has no single way between opposite vectors; take another second end, or lerp.")
        return (1 - weight) * a + weight * b  # one direction: the circle and the line are the same
    left, right = ((1 - weight) * angle).sin() / angle.sin(), (weight * angle).sin() / angle.sin()
    return left * a + right * b


WAYS = {"slerp": slerp, "lerp": lerp}
MAX_FRAMES = 10_000
MAX_REFINEMENTS = 1_000  # an iteration that has not closed in by then never will


def interpolate(a: Tensor, b: Tensor, frames: int = 8, way: str = "slerp") -> Tensor:
    """`frames` evenly spaced points from a to b, both included. a, b: (...) of one shape. Returns (frames, ...)."""
    frames = check_integer("frames", frames, 2, MAX_FRAMES)  # the two ends at least
    check_name("way", way, WAYS)
    check_floating("a", a, "(...)")
    return WAYS[way](a, b, torch.linspace(0, 1, frames, dtype=a.dtype, device=a.device))


@torch.inference_mode()
def invert(denoiser: Denoiser, x0: Tensor, schedule: NoiseSchedule, steps: int = 50, spacing: str = "uniform",
           refinements: int = 0) -> Tensor:
    """The noise from which DDIM (η = 0) on the same grid draws the pictures x0 (DDIM, section 5.4: the ODE run backwards).

    x0: (B, ...) in −1..1. Returns (B, ...), the state at the grid's first timestep. One step up, from s to t, must undo

        x_s = √(ᾱ_s/ᾱ_t)·x_t + (√(1−ᾱ_s) − √(ᾱ_s/ᾱ_t)·√(1−ᾱ_t))·ε(x_t, t),

    an equation for x_t with x_t on both sides. Plain inversion puts x_s into ε, one evaluation a step; each refinement puts
    the last x_t into it once more, and where ε changes slowly the iteration closes in on the exact inverse.
    Raises ValueError if x0 or a result is not finite.
    """
    check_denoiser(denoiser)
    check_floating("x0", x0)
    check_finite("x0", x0)
    check_kind("schedule", schedule, NoiseSchedule)
    refinements = check_integer("refinements", refinements, 0, MAX_REFINEMENTS)
    alpha_bar, x, s = AlphaBar(schedule), x0, CLEAN
    for t in reversed(schedule.timesteps(steps, spacing).tolist()):
        a_s, a_t = alpha_bar(s), alpha_bar(t)
        guess = x
        for _ in range(1 + refinements):
            eps = check_eps(denoiser(guess, torch.full((len(x),), t, device=x.device)), x, f"at t = {t}, ")
            guess = transfer(x, eps, a_s, a_t)
        x, s = guess, t
        if not bool(x.isfinite().all()):
            raise ValueError(f"the inversion left the finite numbers at t = {t}; take more steps or fewer refinements.")
    return x


def _checked(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """The weights, ready to be multiplied with a and b: (N, 1, ..., 1)."""
    check_floating("a", a, "(...)")
    check_floating("b", b, "(...)")
    check_floating("weight", weight, "(N,)")
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(f"a and b must be of one shape and type, not {shown(a)} and {shown(b)}.")
    check_finite("a, b and weight", a, b, weight)
    return per_image(weight, a[None])
