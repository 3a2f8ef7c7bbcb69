"""Classifier-free guidance: the guided denoiser, S²-DM with L_skip on the guided prediction, and the minimiser of that loss."""
from collections.abc import Callable

import torch
from torch import Tensor

from .denoisers import NO_LABEL
from .losses import READINGS, draw_noised, mean_square, skip_coefficient, skip_term
from .schedule import NoiseSchedule
from .support.checks import check_number, check_shrinkage, check_skip_loss, require

Labelled = Callable[[Tensor, Tensor, Tensor], Tensor]  # eps = network(x, t, label): a denoiser that takes the class


class Guided:
    """Classifier-free guidance: ε_u + w·(ε_c − ε_u), ε_c the prediction with the class and ε_u the one without.

    Ho and Salimans (2022, arXiv 2207.12598), whose weight is w − 1. w = 0 ignores the class, w = 1 is the class as in the data, a
    larger w exaggerates its features. network: a `UNet` with classes, a `MixtureDenoiser` with labels, or any
    eps = network(x, t, label). label: one class for all images, or (B,) int64. Both predictions are computed as one batch of
    twice the size; w = 0 and w = 1 need only one of them. Raises ValueError where the numbers of labels and images differ.
    """

    def __init__(self, network: Labelled, label: Tensor | int, weight: float):
        self.network, self.label, self.weight = network, torch.as_tensor(label), check_number("weight", weight)
        require(self.label.ndim <= 1 and not self.label.is_floating_point(), "label must be one whole number or (B,) of them", self.label)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        require(self.label.ndim == 0 or len(self.label) == len(x),
                f"{self.label.numel()} labels cannot go with {len(x)} images; give one label for all, or one an image")
        self.label = self.label.to(x.device, torch.int64)  # once; later calls copy nothing
        label = self.label.expand(len(x))
        if self.weight == 1:
            return self.network(x, t, label)
        if self.weight == 0:
            return self.network(x, t, torch.full_like(label, NO_LABEL))
        return _branches(self.network, x, t, label, self.weight)[1]


def guided_s2dm_loss(network: Labelled, x0: Tensor, t: Tensor, label: Tensor, schedule: NoiseSchedule, weight: float, skip: int = 9,
                     tau: float = 0.99, reading: str = "independent", generator: torch.Generator | None = None) -> Tensor:
    """S²-DM with L_skip on the guided prediction g = f_u + w·(f − f_u) and L_0 on the plain one, f.

    f is the network's prediction with the label, f_u the one without; where a label was dropped (NO_LABEL) g = f = f_u.
    x0: (B, ...); t and label: (B,) int64. Returns (B,). weight = 1 gives `s2dm_loss` of the labelled network.
    """
    check_skip_loss(network, x0, t, schedule, skip, tau, reading, READINGS, generator)
    eps, x_t = draw_noised(x0, t, schedule, generator)
    f, guided = _branches(network, x_t, t, label, weight)
    l_0 = mean_square(eps - f)
    l_skip = skip_term(lambda x, t: _branches(network, x, t, label, weight)[1], x0, t, schedule, skip, reading, generator, eps, guided)
    return torch.where(t >= skip, tau * l_0 + (1 - tau) * l_skip, l_0)


def guided_shrinkage(schedule: NoiseSchedule, weight: float, label_dropout: float, skip: int = 9,
                     tau: float = 0.99) -> tuple[Tensor, Tensor]:
    """The minimiser of `guided_s2dm_loss` (independent, expected) when a share p of the labels is dropped: (null, guided), (T,) float64.

    The prediction without label becomes f_u = null·E[ε₁ | x_t], the guided one g = guided·(w·E[ε₁ | x_t, label] − (w−1)·f_u). With
    r = (1−τ)c²/τ, setting the derivatives with respect to f and f_u to zero gives

        guided = 1/(1 + r·w²)
        null = (p(1 + r·w²) + (1−p)·r·w(w−1)) / (p(1 + r)(1 + r·w²) + (1−p)·r·(w−1)²)

    and f = (E[ε₁ | x_t, label] + r·w(w−1)·f_u)·guided. Raises ValueError unless 0 < p <= 1 and tau > 0: f_u needs an L_0 of its own.
    """
    check_shrinkage(schedule, skip, tau, "expected", READINGS)
    require(0 < label_dropout <= 1 and tau > 0, "label_dropout must lie in (0, 1] and tau above 0", (label_dropout, tau))
    t = torch.arange(schedule.T, device=schedule.alpha_bar.device)
    r = (1 - tau) / tau * skip_coefficient(schedule, t, skip).square()  # (T,), 0 where t < skip
    w, p = weight, label_dropout
    pull = 1 + r * w**2
    null = (p * pull + (1 - p) * r * w * (w - 1)) / (p * (1 + r) * pull + (1 - p) * r * (w - 1) ** 2)
    return null, 1 / pull


def _branches(network: Labelled, x: Tensor, t: Tensor, label: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """f with the label and g = f_u + w·(f − f_u), both (B, ...), from one call of twice the batch."""
    both = network(torch.cat([x, x]), torch.cat([t, t]), torch.cat([label, torch.full_like(label, NO_LABEL)]))
    f, f_u = both.chunk(2)
    return f, f_u + weight * (f - f_u)
