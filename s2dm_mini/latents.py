"""Latents: the noise x_T as coordinates of a picture. Ways between two of them, and the way back from a picture to its noise."""
import torch
from torch import Tensor

from .losses import Denoiser
from .samplers.common import CLEAN, AlphaBar
from .samplers.ddim import transfer
from .schedule import NoiseSchedule, per_image


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


def interpolate(a: Tensor, b: Tensor, frames: int = 8, way: str = "slerp") -> Tensor:
    """`frames` evenly spaced points from a to b, both included. a, b: (...) of one shape. Returns (frames, ...)."""
    if not isinstance(frames, int) or frames < 2:
        raise ValueError(f"frames must be an integer of at least 2, the two ends, not {frames!r}.")
    if way not in WAYS:
        raise ValueError(f"way must be one of {', '.join(WAYS)}, not {way!r}.")
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
    if not x0.is_floating_point() or not bool(x0.isfinite().all()):
        raise ValueError(f"x0 must be floating and finite, in −1..1; found {x0.dtype}, "
                         f"{int((~x0.isfinite()).sum())} values that are not finite.")
    if isinstance(refinements, bool) or not isinstance(refinements, int) or refinements < 0:
        raise ValueError(f"refinements must be an integer of at least 0, not {refinements!r}.")
    alpha_bar, x, s = AlphaBar(schedule), x0, CLEAN
    for t in reversed(schedule.timesteps(steps, spacing).tolist()):
        a_s, a_t = alpha_bar(s), alpha_bar(t)
        guess = x
        for _ in range(1 + refinements):
            eps = denoiser(guess, torch.full((len(x),), t, device=x.device))
            guess = transfer(x, eps, a_s, a_t)
        x, s = guess, t
        if not bool(x.isfinite().all()):
            raise ValueError(f"the inversion left the finite numbers at t = {t}; take more steps or fewer refinements.")
    return x


def _checked(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """The weights, ready to be multiplied with a and b: (N, 1, ..., 1)."""
    if a.shape != b.shape or not a.is_floating_point() or a.dtype != b.dtype:
        raise ValueError(f"a and b must be floating tensors of one shape and type, not {a.dtype} {tuple(a.shape)} "
                         f"and {b.dtype} {tuple(b.shape)}.")
    if weight.ndim != 1:
        raise ValueError(f"weight must be a vector (N,), not {tuple(weight.shape)}.")
    return per_image(weight, a[None])
