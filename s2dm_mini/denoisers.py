"""Denoisers whose answer is known exactly, the training-free S²-DM, and classifier-free guidance.

A denoiser is any callable eps = denoiser(x, t): x (B, ...) floating, t (B,) timesteps, eps like x. The best one for a
data distribution is E[ε | x_t]; for a Gaussian and for a mixture of Gaussians it has a formula, so that losses, samplers
and theory can be tested without training anything.
"""
import math
from collections.abc import Callable

import torch
from torch import Tensor

from .data.images import to_unit_range
from .schedule import MAX_T, NoiseSchedule, per_image
from .support.checks import check_denoiser, check_finite, check_floating, check_kind, check_numbers, check_question

Denoiser = Callable[[Tensor, Tensor], Tensor]
Labelled = Callable[[Tensor, Tensor, Tensor], Tensor]  # eps = network(x, t, label): a denoiser that is told the class
NO_LABEL = -1  # in place of a label: any class, as in the data


class GaussianDenoiser:
    """E[ε | x_t] for data N(mean, covariance): √(1−ᾱ)·(ᾱ·Σ + (1−ᾱ)·I)⁻¹·(x_t − √ᾱ·mean).

    mean: one data point's shape, D numbers in all; covariance: (D, D), or (D,) for a diagonal one.
    Kept as eigenvalues (D,) and eigenvectors (D, D), in which every direction is a problem of its own.
    """

    def __init__(self, mean: Tensor, covariance: Tensor, schedule: NoiseSchedule):
        check_kind("schedule", schedule, NoiseSchedule)
        covariance = check_numbers("covariance", covariance)
        self.mean, self.schedule = check_numbers("mean", mean), schedule
        d = self.mean.numel()
        if not d or tuple(covariance.shape) not in ((d,), (d, d)):
            raise ValueError(f"covariance must be ({d},) or ({d}, {d}) for a mean of {d} numbers, at least one, "
                             f"not {tuple(covariance.shape)}.")
        if covariance.ndim == 2 and not covariance.allclose(covariance.T):
            raise ValueError(f"covariance must be symmetric; it differs from its transpose by "
                             f"{(covariance - covariance.T).abs().max():.3g}.")
        if covariance.ndim == 1:
            self.eigenvalues, self.eigenvectors = covariance, None  # the axes are the eigenvectors
        else:
            self.eigenvalues, self.eigenvectors = torch.linalg.eigh(covariance)
        if self.eigenvalues.min() < -1e-8 * self.eigenvalues.abs().max():
            raise ValueError(f"covariance has the negative eigenvalue {self.eigenvalues.min():.3g}; no data has.")
        self.eigenvalues = self.eigenvalues.clamp(min=0)

    @classmethod
    def fit(cls, x: Tensor, schedule: NoiseSchedule) -> "GaussianDenoiser":
        """The Gaussian with the mean and covariance (over N − 1) of x, (N, ...); uint8 images are first scaled to −1..1."""
        if not isinstance(x, Tensor) or x.dtype != torch.uint8:
            check_floating("x", x, "(N, D, ...)")
            check_finite("x", x)
        if len(x) < 2:
            raise ValueError(f"a covariance needs at least 2 data points, not {len(x)}.")
        total, scatter = 0.0, 0.0
        scale = to_unit_range if x.dtype == torch.uint8 else torch.Tensor.double
        shift = scale(x[:1]).flatten(1).double()  # near the mean, so that the difference below loses no digits
        for part in x.split(5_000):  # in parts: the data set in float64 would not fit beside itself
            part = scale(part).flatten(1).double() - shift
            total, scatter = total + part.sum(0), scatter + part.T @ part
        mean = total / len(x)
        covariance = (scatter - len(x) * torch.outer(mean, mean)) / (len(x) - 1)
        return cls((mean + shift[0]).reshape(x.shape[1:]), covariance, schedule)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        check_question(x, t, self.schedule.T)
        if x.shape[1:] != self.mean.shape:
            raise ValueError(f"x must be (B, {', '.join(map(str, self.mean.shape))}), not {tuple(x.shape)}.")
        alpha_bar = self.schedule.alpha_bar_at(t)[:, None].to(x.device)  # (B, 1)
        z = x.reshape(len(x), self.mean.numel()).double() - alpha_bar.sqrt() * self.mean.flatten().to(x.device)  # (B, D)
        noise = 1 - alpha_bar
        if self.eigenvectors is not None:
            z = z @ self.eigenvectors.to(x.device)
        z = noise.sqrt() / (alpha_bar * self.eigenvalues.to(x.device) + noise) * z
        if self.eigenvectors is not None:
            z = z @ self.eigenvectors.T.to(x.device)
        return z.reshape(x.shape).to(x.dtype)


class MixtureDenoiser:
    """E[ε | x_t] for data from K Gaussians with means (K, D), standard deviations (K,) and weights (K,).

    std = 0 makes the data the K points themselves: the ideal denoiser of a finite data set. One number for std or
    no weights mean: the same for all components. labels: (K,) int64, the class of each component; the mixture can then be
    asked for E[ε | x_t, label] too, label (B,) as for `UNet`: only the components of the class are possible.
    """

    def __init__(self, means: Tensor, std: Tensor | float, schedule: NoiseSchedule, weights: Tensor | None = None,
                 labels: Tensor | None = None):
        check_kind("schedule", schedule, NoiseSchedule)
        self.means, self.schedule = check_numbers("means", means), schedule
        if self.means.ndim != 2 or not self.means.numel():
            raise ValueError(f"means must be (K, D) with K and D at least 1, not {tuple(self.means.shape)}.")
        k = len(self.means)
        std = check_numbers("std", std, low=0)
        if tuple(std.shape) not in ((), (k,)):
            raise ValueError(f"std must be one number or {k} of them, one a component, not of shape {tuple(std.shape)}.")
        self.variance = std.square().expand(k)
        weights = torch.ones(k, dtype=torch.float64) if weights is None else check_numbers("weights", weights)
        if weights.shape != (k,) or not bool((weights > 0).all()):
            raise ValueError(f"weights must be {k} numbers above 0, one a component.")
        self.weights = weights / weights.sum()
        if labels is not None and labels.shape != (k,):
            raise ValueError(f"labels must be {k} numbers, one a component, not of shape {tuple(labels.shape)}.")
        self.labels = labels

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        check_question(x, t, self.schedule.T)
        if x.ndim != 2 or x.shape[1] != self.means.shape[1]:
            raise ValueError(f"x must be (B, {self.means.shape[1]}), not {tuple(x.shape)}.")
        means, variance, weights = (v.to(x.device) for v in (self.means, self.variance, self.weights))
        alpha_bar = self.schedule.alpha_bar_at(t)[:, None].to(x.device)  # (B, 1)
        noise = 1 - alpha_bar
        spread = alpha_bar * variance + noise  # variance of x_t within a component, (B, K)
        residual = x.double()[:, None] - alpha_bar.sqrt()[..., None] * means  # (B, K, D)
        log_density = -residual.square().sum(2) / (2 * spread) - 0.5 * x.shape[1] * spread.log() + weights.log()
        if label is not None:
            log_density = log_density.masked_fill(self._excluded(label), -math.inf)
        responsibility = log_density.softmax(dim=1)  # probability of each component given x_t, (B, K)
        eps = noise.sqrt() * torch.einsum("bk,bkd->bd", responsibility / spread, residual)
        return eps.to(x.dtype)

    def _excluded(self, label: Tensor) -> Tensor:
        """Which components cannot be, (B, K)."""
        if self.labels is None:
            raise ValueError("this mixture was made without labels; say by labels=... which class each component is of.")
        known = self.labels.to(label.device)
        if not bool(torch.isin(label[label != NO_LABEL], known).all()):
            raise ValueError(f"labels must be among {known.unique().tolist()}, or {NO_LABEL} for none, not {label.unique().tolist()}.")
        return (label[:, None] != NO_LABEL) & (label[:, None] != known)


class Shrunk:
    """A denoiser times a number that may depend on t: ε ↦ s_t·ε, without any training.

    With scale = `losses.shrinkage(schedule, skip, tau)` it is the minimiser of the S²-DM loss made from that of L_0;
    with scale = 1/λ it is Epsilon Scaling (Ning et al., ICLR 2024). scale: one number, or (T,) numbers, read linearly
    between timesteps. A label is passed on to a denoiser that takes one.
    """

    def __init__(self, denoiser: Denoiser, scale: Tensor | float):
        check_denoiser(denoiser)
        self.denoiser, self.scale = denoiser, check_numbers("scale", scale)
        self.T = len(self.scale) if self.scale.ndim == 1 else MAX_T  # of timesteps it can be asked for
        if self.scale.ndim > 1 or not self.scale.numel():
            raise ValueError(f"scale must be one finite number or a vector (T,) of them, not of shape {tuple(self.scale.shape)}.")

    def __call__(self, x: Tensor, t: Tensor, *label: Tensor) -> Tensor:
        check_question(x, t, self.T)
        if self.scale.ndim == 0:
            return self.denoiser(x, t, *label) * self.scale.item()
        if self.scale.device != x.device:
            self.scale = self.scale.to(x.device)  # once; afterwards nothing is copied
        last = len(self.scale) - 1
        below = t.long().clamp(max=last)
        scale = torch.lerp(self.scale[below], self.scale[(below + 1).clamp(max=last)], (t - below).double())
        return per_image(scale, x) * self.denoiser(x, t, *label)


class Guided:
    """Classifier-free guidance: ε_u + w·(ε_c − ε_u), with ε_c the prediction told the class and ε_u the one without it.

    Ho and Salimans (2022, arXiv 2207.12598); their weight is w − 1. w = 0 forgets the class, 1 is the class as in the data, more
    exaggerates what distinguishes it. network: `UNet` of some classes, `MixtureDenoiser` with labels, or any eps = network(x, t, label).
    label: one class for all images, or (B,) int64. Both branches are computed as one batch of twice the size; at w = 0 and 1 one is
    enough. Raises ValueError where the numbers of labels and images differ.
    """

    def __init__(self, network: Labelled, label: Tensor | int, weight: float):
        self.network, self.label, self.weight = network, torch.as_tensor(label), float(weight)
        if self.label.ndim > 1 or self.label.is_floating_point():
            raise ValueError(f"label must be one whole number or (B,) of them, not {self.label.dtype} of shape {tuple(self.label.shape)}.")
        if not math.isfinite(self.weight):
            raise ValueError(f"weight must be finite, not {weight}.")

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        if self.label.ndim and len(self.label) != len(x):
            raise ValueError(f"{len(self.label)} labels cannot go with {len(x)} images; give one label for all, or one an image.")
        label = self.label.to(x.device, torch.int64).expand(len(x))
        if self.weight == 1:
            return self.network(x, t, label)
        nothing = torch.full_like(label, NO_LABEL)
        if self.weight == 0:
            return self.network(x, t, nothing)
        given, free = self.network(torch.cat([x, x]), torch.cat([t, t]), torch.cat([label, nothing])).chunk(2)
        return free + self.weight * (given - free)
