"""Denoisers with exact formulas, and `Shrunk`, the training-free S²-DM.

A denoiser is any callable eps = denoiser(x, t): x (B, ...) floating, t (B,) timesteps, eps like x. The best denoiser for a
data distribution is E[ε | x_t]. For Gaussian data and for mixtures of Gaussians it has a formula, so that losses, samplers
and theory can be tested without training.
"""
import math
from collections.abc import Callable

import torch
from torch import Tensor

from .data.images import to_unit_range
from .schedule import MAX_T, NoiseSchedule, at, lookup, per_image
from .support.checks import check_covariance, check_denoiser, check_floating, check_mixture, check_numbers, check_question, require

Denoiser = Callable[[Tensor, Tensor], Tensor]
NO_LABEL = -1  # in place of a label: the prediction without a class


class _Tables:
    def _on(self, device: torch.device, *tables: Tensor | None) -> list[Tensor | None]:
        """The tables on the device of x; to a GPU they are copied once, so that later calls need not wait."""
        copies = self.__dict__.setdefault("_copies", {})
        if device not in copies or device.type == "cpu":
            copies[device] = [table if table is None else table.to(device) for table in tables]
        return copies[device]


class GaussianDenoiser(_Tables):
    """E[ε | x_t] for data N(mean, Σ): √(1−ᾱ)·(ᾱ·Σ + (1−ᾱ)·I)⁻¹·(x_t − √ᾱ·mean).

    mean: the shape of one data point, D numbers in all; covariance Σ: (D, D), or (D,) for a diagonal one.
    Stored as eigenvalues (D,) and eigenvectors (D, D), or None for a diagonal Σ: along each eigenvector the formula is scalar.
    """

    def __init__(self, mean: Tensor, covariance: Tensor, schedule: NoiseSchedule):
        self.mean, covariance = check_covariance(mean, covariance, schedule)
        self.schedule = schedule
        if covariance.ndim == 1:
            eigenvalues, self.eigenvectors = covariance, None
        else:
            eigenvalues, self.eigenvectors = torch.linalg.eigh(covariance)
        lowest = eigenvalues.min()  # of data not below 0, but for rounding
        require(lowest >= -1e-8 * eigenvalues.abs().max(), f"covariance has the negative eigenvalue {lowest:.3g}; that of data has none")
        self.eigenvalues = eigenvalues.clamp(min=0)

    @classmethod
    def fit(cls, x: Tensor, schedule: NoiseSchedule) -> "GaussianDenoiser":
        """The Gaussian with the mean and covariance (over N − 1) of x, (N, ...); uint8 images are first scaled to −1..1."""
        if not isinstance(x, Tensor) or x.dtype != torch.uint8:
            check_floating("x", x, "(N, D, ...)", finite=True)
        require(len(x) >= 2, f"a covariance needs at least 2 data points, not {len(x)}")
        total, scatter = 0.0, 0.0
        scale = to_unit_range if x.dtype == torch.uint8 else torch.Tensor.double
        shift = scale(x[:1]).flatten(1).double()  # near the mean, so that the difference below loses no digits
        for part in x.split(5_000):  # the whole data set in float64 may not fit in memory
            part = scale(part).flatten(1).double() - shift
            total, scatter = total + part.sum(0), scatter + part.T @ part
        mean = total / len(x)
        covariance = (scatter - len(x) * torch.outer(mean, mean)) / (len(x) - 1)
        return cls((mean + shift[0]).reshape(x.shape[1:]), covariance, schedule)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        check_question(x, t, self.schedule.T, self.mean.shape)
        mean, eigenvalues, eigenvectors, table = self._on(x.device, self.mean.flatten(), self.eigenvalues, self.eigenvectors,
                                                          self.schedule.alpha_bar)
        alpha_bar = lookup(table, t.to(x.device))[:, None]  # (B, 1)
        z = x.reshape(len(x), mean.numel()).double() - alpha_bar.sqrt() * mean  # (B, D)
        noise = 1 - alpha_bar
        if eigenvectors is not None:
            z = z @ eigenvectors
        z = noise.sqrt() / (alpha_bar * eigenvalues + noise) * z
        if eigenvectors is not None:
            z = z @ eigenvectors.T
        return z.reshape(x.shape).to(x.dtype)


class MixtureDenoiser(_Tables):
    """E[ε | x_t] for data from K Gaussians with means (K, D), standard deviations (K,) and weights (K,).

    std: one number serves all components; std = 0 makes the K points themselves the data set. Equal weights by default.
    labels: (K,) int64, the class of each component. Called with a label (B,), as `UNet` is, the mixture then gives
    E[ε | x_t, label], from the components of that class alone.
    """

    def __init__(self, means: Tensor, std: Tensor | float, schedule: NoiseSchedule, weights: Tensor | None = None,
                 labels: Tensor | None = None):
        self.means, std, weights = check_mixture(means, std, weights, labels, schedule)
        self.variance, self.weights = std.square().expand(len(weights)), weights / weights.sum()
        self.schedule, self.labels = schedule, labels

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        check_question(x, t, self.schedule.T, self.means.shape[1:])
        means, variance, weights, labels, table = self._on(x.device, self.means, self.variance, self.weights, self.labels,
                                                           self.schedule.alpha_bar)
        alpha_bar = lookup(table, t.to(x.device))[:, None]  # (B, 1)
        noise = 1 - alpha_bar
        spread = alpha_bar * variance + noise  # variance of x_t within a component, (B, K)
        residual = x.double()[:, None] - alpha_bar.sqrt()[..., None] * means  # (B, K, D)
        log_density = -residual.square().sum(2) / (2 * spread) - 0.5 * x.shape[1] * spread.log() + weights.log()
        if label is not None:
            require(labels is not None, "this mixture was made without labels; pass labels=..., the class of each component")
            if label.device.type == "cpu" and not ((label == NO_LABEL) | torch.isin(label, labels)).all():
                raise ValueError(f"labels must be among {labels.unique().tolist()}, or -1 for none, not {label.unique().tolist()}.")
            excluded = (label[:, None] != NO_LABEL) & (label[:, None] != labels)  # (B, K)
            log_density = log_density.masked_fill(excluded, -math.inf)
        responsibility = log_density.softmax(dim=1)  # probability of each component given x_t, (B, K)
        eps = noise.sqrt() * torch.einsum("bk,bkd->bd", responsibility / spread, residual)
        return eps.to(x.dtype)


class Shrunk:
    """A denoiser times a factor s_t: ε ↦ s_t·ε, without training.

    With scale = `losses.shrinkage(schedule, skip, tau)` the minimiser of L_0 becomes that of the S²-DM loss; scale = 1/λ is
    Epsilon Scaling (Ning et al., ICLR 2024). scale: one number, or (T,) numbers, linear between timesteps. A label is
    passed on to the denoiser.
    """

    def __init__(self, denoiser: Denoiser, scale: Tensor | float):
        check_denoiser(denoiser)
        self.denoiser, self.scale = denoiser, check_numbers("scale", scale)
        require(self.scale.ndim <= 1 and self.scale.numel(), "scale must be one finite number or a vector (T,) of them", scale)
        self.T = len(self.scale) if self.scale.ndim == 1 else MAX_T  # number of timesteps accepted

    def __call__(self, x: Tensor, t: Tensor, *label: Tensor) -> Tensor:
        check_question(x, t, self.T)
        if self.scale.ndim == 0:
            return self.denoiser(x, t, *label) * self.scale.item()
        if self.scale.device != x.device:
            self.scale = self.scale.to(x.device)  # once; later calls copy nothing
        last = len(self.scale) - 1
        below = t.floor().long().clamp(max=last)
        scale = torch.lerp(at(self.scale, below), at(self.scale, (below + 1).clamp(max=last)), (t - below).double())
        return per_image(scale, x) * self.denoiser(x, t, *label)
