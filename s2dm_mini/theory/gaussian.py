"""The Gaussian prediction: how far a sampler's samples are from the data, exactly, if the data are Gaussian with a known covariance.

For Gaussian data E[ε | x_t] is linear in x_t, so a deterministic sampler multiplies each principal direction of the data by one number.
A single run, with all directions side by side, gives these numbers and with them the distance of the samples from the data, for DDIM,
PNDM, DEIS and DPM-Solver++, with L_0 or any shrinkage s_t.

    v = cifar10_eigenvalues()                                             # (3072,), shipped
    gaussian_distance(v, schedule, "ddim", steps=10)                      # L_0
    gaussian_distance(v, schedule, "ddim", steps=10, scale=shrinkage(schedule, skip=9, tau=0.99))

Pictures are not Gaussian and networks are not exact: this predicts measurements and does not replace them.
"""
import torch
from torch import Tensor

from .. import checkpoints
from ..denoisers import GaussianDenoiser, Shrunk
from ..samplers import SAMPLERS, sample
from ..schedule import NoiseSchedule
from ..support.checks import check_kind, check_name, check_numbers, check_timesteps, require


def cifar10_eigenvalues() -> Tensor:
    """Eigenvalues of the covariance of CIFAR-10's 50,000 training images, pixels in −1..1: (3072,) float64, falling. Shipped."""
    return checkpoints.read_tensors(checkpoints.pretrained_file("cifar10-train.eigenvalues"))[0]["eigenvalues"].double()


def gaussian_variance(eigenvalues: Tensor, schedule: NoiseSchedule, sampler: str = "ddim", steps: int = 10, spacing: str = "uniform",
                      scale: Tensor | float = 1.0) -> Tensor:
    """Variance of the samples along each principal direction, (D,) float64, drawn with the exact ε times `scale`.

    eigenvalues: (D,) variances of the data. scale: one number, or (T,) as `losses.shrinkage` gives it. Raises ValueError for a sampler
    that adds noise.
    """
    v = check_numbers("eigenvalues", eigenvalues, low=0)
    require(v.ndim == 1 and len(v), f"eigenvalues must be a vector (D,), D at least 1, not of shape {tuple(v.shape)}")
    check_deterministic(sampler)
    denoiser = Shrunk(GaussianDenoiser(torch.zeros_like(v), v, schedule), scale)
    x_T = torch.ones(1, len(v), dtype=torch.float64)  # one standard deviation of x_T in each direction
    return sample(denoiser, x_T, schedule, sampler, steps, spacing)[0].square()


def gaussian_distance(eigenvalues: Tensor, schedule: NoiseSchedule, sampler: str = "ddim", steps: int = 10, spacing: str = "uniform",
                      scale: Tensor | float = 1.0) -> float:
    """Squared 2-Wasserstein distance of these samples from the data, Σ(√v_out − √v)². Arguments as in `gaussian_variance`.

    This is the Fréchet distance in pixels instead of features, without its term for the means, which samplers get right.
    """
    v_out = gaussian_variance(eigenvalues, schedule, sampler, steps, spacing, scale)
    return float((v_out.sqrt() - torch.as_tensor(eigenvalues, dtype=torch.float64).sqrt()).square().sum())


def best_scale(eigenvalues: Tensor, schedule: NoiseSchedule, sampler: str = "ddim", steps: int = 10, spacing: str = "uniform") -> float:
    """The constant λ in 0.9..1.3 by which to divide ε (Epsilon Scaling, Ning et al., ICLR 2024), to three digits after the point."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(lambda lam: gaussian_distance(eigenvalues, schedule, sampler, steps, spacing, 1 / lam),
                            bounds=(0.9, 1.3), options={"xatol": 1e-4})
    return round(float(found.x), 4)


def gaussian_ddim_variance(v: float | Tensor, schedule: NoiseSchedule, grid: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Variance of DDIM's samples (η = 0) for data N(0, v), as a closed form on any grid, without running a sampler.

    With ε = g·x, g = s_t·√(1−ᾱ_t)/(ᾱ_t·v + 1 − ᾱ_t), the step from t to s multiplies x by √(ᾱ_s/ᾱ_t)·(1 − √(1−ᾱ_t)·g) + √(1−ᾱ_s)·g.
    v: any shape; grid: (S,) falling timesteps; scale: one number or (T,). Returns the shape of v, float64.
    """
    check_kind("schedule", schedule, NoiseSchedule)
    v, scale = check_numbers("v", v, low=0), check_numbers("scale", scale)
    require(scale.shape in ((), (schedule.T,)),
            f"scale must be one number or {schedule.T} of them, one a timestep, not of shape {tuple(scale.shape)}")
    check_timesteps(grid, schedule.T, whole=True, name="grid")
    require(len(grid) and (grid.diff() < 0).all(), "grid must hold timesteps that fall strictly, as schedule.timesteps returns them")
    t = grid.cpu().long()
    now = schedule.alpha_bar.cpu()[t]  # ᾱ_t, (S,)
    then = torch.cat([now[1:], torch.ones(1)])  # ᾱ_s; 1 at the clean end
    g = scale.expand(schedule.T)[t] * (1 - now).sqrt() / (now * v[..., None] + 1 - now)  # (..., S)
    factor = (then / now).sqrt() * (1 - (1 - now).sqrt() * g) + (1 - then).sqrt() * g
    return factor.prod(-1).square()


def check_deterministic(sampler: str) -> None:
    """Raise ValueError for an unknown sampler and for one that adds noise."""
    check_name("sampler", sampler, SAMPLERS)
    require(SAMPLERS[sampler].deterministic, f"{sampler} adds noise; an exact distance needs a deterministic sampler, such as ddim")
