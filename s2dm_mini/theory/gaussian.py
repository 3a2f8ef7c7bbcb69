"""What theory foresees for a data set, nothing fitted: replace its pictures by the Gaussian with their mean and covariance.

For Gaussian data E[ε | x_t] is known exactly and is linear in x_t, so every deterministic sampler multiplies each principal direction of
the data by a number of its own. Running the sampler once, on all directions side by side, gives those numbers, and with them the exact
distance of its samples from the data: for DDIM, PNDM, DEIS and DPM-Solver++ alike, for L_0 and for any shrinkage s_t.

    v = cifar10_eigenvalues()                                             # (3072,), shipped
    gaussian_distance(v, schedule, "ddim", steps=10)                      # L_0
    gaussian_distance(v, schedule, "ddim", steps=10, scale=shrinkage(schedule, skip=9, tau=0.99))

Real pictures are not Gaussian and networks are not exact: this is a prediction to hold measurements against, not a result.
"""
import math
from pathlib import Path

import torch
from torch import Tensor

from .. import checkpoints
from ..data.images import Images
from ..denoisers import GaussianDenoiser, Shrunk
from ..samplers import SAMPLERS, sample
from ..schedule import NoiseSchedule
from ..support.checks import check_kind, check_name, check_numbers, check_timesteps

EIGENVALUES = "cifar10-train.eigenvalues"


def cifar10_eigenvalues() -> Tensor:
    """Eigenvalues of the covariance of CIFAR-10's 50,000 training images, pixels in −1..1: (3072,) float64, falling."""
    return checkpoints.read_tensors(checkpoints.pretrained_file(EIGENVALUES))[0]["eigenvalues"].double()


def save_eigenvalues(path: Path | str, images: Images) -> Tensor:
    """Work the eigenvalues of a data set out, write them to `path`, and return them: (C·H·W,) float64, falling."""
    values = GaussianDenoiser.fit(images.pixels, NoiseSchedule.linear()).eigenvalues.flip(0)
    checkpoints.write_tensors(path, {"eigenvalues": values.float()}, {"eigenvalues": {"data": images.name, "n": len(images)}})
    return values


def gaussian_variance(eigenvalues: Tensor, schedule: NoiseSchedule, sampler: str = "ddim", steps: int = 10, spacing: str = "uniform",
                      scale: Tensor | float = 1.0) -> Tensor:
    """Variance of the samples along each principal direction, for Gaussian data with these variances and the exact ε times `scale`.

    eigenvalues: (D,). scale: one number, or (T,) as `losses.shrinkage` gives it. Returns (D,) float64. Raises ValueError for samplers
    that add noise.
    """
    check_name("sampler", sampler, SAMPLERS)
    check_kind("schedule", schedule, NoiseSchedule)
    if not SAMPLERS[sampler].deterministic:
        raise ValueError(f"{sampler} adds noise on its way; the prediction is for deterministic samplers, such as ddim.")
    v = check_numbers("eigenvalues", eigenvalues, low=0)
    if v.ndim != 1 or not len(v):
        raise ValueError(f"eigenvalues must be a vector (D,), D at least 1, not of shape {tuple(v.shape)}.")
    denoiser = Shrunk(GaussianDenoiser(torch.zeros_like(v), v, schedule), scale)
    x_T = torch.ones(1, len(v), dtype=torch.float64)  # what becomes of 1 is what x_T, which has variance 1, is multiplied by
    factor = sample(denoiser, x_T, schedule, sampler, steps, spacing)[0]
    return factor.square()


def gaussian_distance(eigenvalues: Tensor, schedule: NoiseSchedule, sampler: str = "ddim", steps: int = 10, spacing: str = "uniform",
                      scale: Tensor | float = 1.0) -> float:
    """Squared 2-Wasserstein distance of those samples from the data, Σ(√v_out − √v)². Arguments as in `gaussian_variance`.

    It is the Fréchet distance, in pixels instead of features, with the means left aside: samplers get the mean right.
    """
    v_out = gaussian_variance(eigenvalues, schedule, sampler, steps, spacing, scale)
    return float((v_out.sqrt() - torch.as_tensor(eigenvalues, dtype=torch.float64).sqrt()).square().sum())


def best_scale(eigenvalues: Tensor, schedule: NoiseSchedule, sampler: str = "ddim", steps: int = 10, spacing: str = "uniform") -> float:
    """The constant λ by which ε is best divided (Epsilon Scaling, Ning et al., ICLR 2024), to three digits after the point.

    It is looked for between 0.9 and 1.3, on ever finer grids around the best so far.
    """
    low, high, best = 0.9, 1.3, 1.0
    for _ in range(3):
        candidates = torch.linspace(low, high, 21, dtype=torch.float64).tolist()
        best = min(candidates, key=lambda lam: gaussian_distance(eigenvalues, schedule, sampler, steps, spacing, 1 / lam))
        width = (high - low) / 20
        low, high = best - width, best + width
    return best


def gaussian_ddim_variance(v: float | Tensor, schedule: NoiseSchedule, grid: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Variance of DDIM's samples (η = 0) for data N(0, v), with the exact ε times `scale`; a product over the steps.

    With ε = g·x, g = s_t·√(1−ᾱ_t)/(ᾱ_t·v + 1 − ᾱ_t), one DDIM step multiplies x by
    √(ᾱ_s/ᾱ_t)·(1 − √(1−ᾱ_t)·g) + √(1−ᾱ_s)·g. v: any shape; scale: one number or (T,). Returns the shape of v, float64.
    """
    check_kind("schedule", schedule, NoiseSchedule)
    v, scale = check_numbers("v", v, low=0), check_numbers("scale", scale)
    if tuple(scale.shape) not in ((), (schedule.T,)):
        raise ValueError(f"scale must be one number or {schedule.T} of them, one a timestep, not of shape {tuple(scale.shape)}.")
    check_timesteps(grid, schedule.T, whole=True, name="grid")
    if not len(grid) or not bool((grid.diff() < 0).all()):
        raise ValueError("grid must hold timesteps that fall strictly, as schedule.timesteps gives it.")
    scale = scale.expand(schedule.T)
    alpha_bar = schedule.alpha_bar.cpu()
    factor = torch.ones_like(v)
    grid = grid.tolist()
    for t, s in zip(grid, grid[1:] + [None], strict=True):
        now, then = alpha_bar[t], 1.0 if s is None else alpha_bar[s]
        g = scale[t] * (1 - now).sqrt() / (now * v + 1 - now)
        factor = factor * ((then / now) ** 0.5 * (1 - (1 - now).sqrt() * g) + math.sqrt(1 - then) * g)
    return factor.square()
