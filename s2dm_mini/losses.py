"""The noise-prediction loss L_0, the skip-step loss L_skip in four readings, and what minimises their mixture.

For one image: ε₁ ~ N(0, I), x_t = √ᾱ_t·x_0 + √(1−ᾱ_t)·ε₁, f = denoiser(x_t, t), c_t = √((1−a)/a) with
a = ᾱ_t/ᾱ_{t−skip}. S²-DM (arXiv 2401.01520) trains on τ·L_0 + (1−τ)·L_skip, and on L_0 alone where t < skip.

    L_0                   ‖ε₁ − f‖²
    L_skip  independent   ‖ε₂ − c_t·f‖², ε₂ drawn afresh           the released code
            expected      1 + c_t²·‖f‖²                            its mean over ε₂
            shared        ‖ε₁ − c_t·f‖²                            the paper's equation with one ε
            output        ‖f(x_t, t) − f(x_{t−skip}, t−skip)‖²     the paper's prose

‖·‖² is the mean over everything but the batch. Each loss returns one value an image; `timestep_weight` says how much it counts.
"""
import torch
from torch import Tensor

from .denoisers import NO_LABEL, Denoiser, Labelled
from .schedule import NoiseSchedule, per_image
from .support.checks import (
    check_denoiser,
    check_eps,
    check_floating,
    check_generator,
    check_kind,
    check_name,
    check_number,
    check_timesteps,
)

READINGS = ("independent", "expected", "shared", "output")
WEIGHTINGS = ("uniform", "min-snr-5", "p2")


def simple_loss(denoiser: Denoiser, x0: Tensor, t: Tensor, schedule: NoiseSchedule,
                generator: torch.Generator | None = None) -> Tensor:
    """L_0 = ‖ε₁ − ε_θ(x_t, t)‖² (DDPM, equation 14).

    x0: (B, ...) clean data, t: (B,) integer timesteps. Returns (B,).
    """
    eps, x_t = _noised(denoiser, x0, t, schedule, generator)
    return _mean_square(eps - check_eps(denoiser(x_t, t), x_t))


def skip_step_loss(denoiser: Denoiser, x0: Tensor, t: Tensor, schedule: NoiseSchedule, skip: int = 9,
                   reading: str = "independent", generator: torch.Generator | None = None) -> Tensor:
    """L_skip alone, in one of the four readings above (S²-DM, section 3); 0 where t < skip.

    x0: (B, ...), t: (B,) integer timesteps. Returns (B,).
    """
    check_name("reading", reading, READINGS)
    eps, x_t = _noised(denoiser, x0, t, schedule, generator)
    l_skip = _skip_term(denoiser, x0, t, schedule, skip, reading, generator, eps, check_eps(denoiser(x_t, t), x_t))
    return torch.where(t >= skip, l_skip, 0.0)


def s2dm_loss(denoiser: Denoiser, x0: Tensor, t: Tensor, schedule: NoiseSchedule, skip: int = 9, tau: float = 0.99,
              reading: str = "independent", generator: torch.Generator | None = None) -> Tensor:
    """τ·L_0 + (1−τ)·L_skip where t >= skip, L_0 elsewhere (S²-DM, the loss of the released code by default).

    x0: (B, ...), t: (B,) integer timesteps, 0 <= tau <= 1. Returns (B,). With tau = 1 this is `simple_loss`, to the bit.
    """
    check_name("reading", reading, READINGS)
    check_number("tau", tau, 0, 1)
    if tau == 1:
        return simple_loss(denoiser, x0, t, schedule, generator)
    eps, x_t = _noised(denoiser, x0, t, schedule, generator)
    f = check_eps(denoiser(x_t, t), x_t)
    l_0 = _mean_square(eps - f)
    l_skip = _skip_term(denoiser, x0, t, schedule, skip, reading, generator, eps, f)
    return torch.where(t >= skip, tau * l_0 + (1 - tau) * l_skip, l_0)


def guided_s2dm_loss(network: Labelled, x0: Tensor, t: Tensor, label: Tensor, schedule: NoiseSchedule, weight: float, skip: int = 9,
                     tau: float = 0.99, reading: str = "independent", generator: torch.Generator | None = None) -> Tensor:
    """S²-DM with L_skip on the guided prediction g = f_u + w·(f − f_u), and L_0, as it must be, on the plain one f.

    f is the network's answer for the label, f_u that for none; where a label was dropped (NO_LABEL) g = f = f_u. x0: (B, ...),
    t and label: (B,) int64. Returns (B,). With weight = 1 this is `s2dm_loss` of the labelled network.
    """
    check_name("reading", reading, READINGS)
    check_number("tau", tau, 0, 1)

    def branches(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        both = network(torch.cat([x, x]), torch.cat([t, t]), torch.cat([label, torch.full_like(label, NO_LABEL)]))
        f, f_u = both.chunk(2)
        return f, f_u + weight * (f - f_u)

    eps, x_t = _noised(network, x0, t, schedule, generator)
    f, guided = branches(x_t, t)
    l_0 = _mean_square(eps - f)
    l_skip = _skip_term(lambda x, t: branches(x, t)[1], x0, t, schedule, skip, reading, generator, eps, guided)
    return torch.where(t >= skip, tau * l_0 + (1 - tau) * l_skip, l_0)


def timestep_weight(t: Tensor, schedule: NoiseSchedule, weighting: str) -> Tensor:
    """How much the loss of an image noised to t counts, with SNR = ᾱ_t/(1−ᾱ_t):

    uniform    1: L_0 as DDPM and S²-DM train it
    min-snr-5  min(SNR, 5)/SNR (Hang et al., 2023, arXiv 2303.09556, for a network that predicts ε)
    p2         1/(1 + SNR) (Choi et al., 2022, arXiv 2204.00227, with k = γ = 1)

    t: (B,) integer timesteps. Returns (B,) float32. The last two turn attention from the faint noise near t = 0 to later t; what
    is best predicted at each t alone stays the same. Raises ValueError for an unknown name.
    """
    check_name("weighting", weighting, WEIGHTINGS)
    check_kind("schedule", schedule, NoiseSchedule)
    check_timesteps(t, schedule.T)
    alpha_bar = schedule.alpha_bar_at(t)  # (B,)
    snr = alpha_bar / (1 - alpha_bar)
    weight = {"uniform": torch.ones_like(snr), "min-snr-5": snr.clamp(max=5) / snr, "p2": 1 / (1 + snr)}[weighting]
    return weight.float()


def shrinkage(schedule: NoiseSchedule, skip: int = 9, tau: float = 0.99, reading: str = "independent") -> Tensor:
    """The factor s_t by which S²-DM's minimiser differs from L_0's: f = s_t·E[ε₁ | x_t]. Returns (T,) float64.

    independent, expected: τ/(τ + (1−τ)c²); shared: (τ + (1−τ)c)/(τ + (1−τ)c²); 1 where t < skip.
    Setting the derivative of the mixture with respect to f to zero gives both in one line. Raises ValueError for
    `output`, whose minimiser ties all timesteps together and is no multiple of E.
    """
    check_name("reading", reading, READINGS)
    check_number("tau", tau, 0, 1)
    check_kind("schedule", schedule, NoiseSchedule)
    if reading == "output":
        raise ValueError("the output reading has no closed-form shrinkage; independent, expected and shared have.")
    t = torch.arange(schedule.T, device=schedule.alpha_bar.device)
    c = _skip_coefficient(schedule, t, skip)  # (T,), 0 where t < skip
    pull = (1 - tau) * c if reading == "shared" else 0.0
    return torch.where(t >= skip, (tau + pull) / (tau + (1 - tau) * c.square()), 1.0)


def guided_shrinkage(schedule: NoiseSchedule, weight: float, label_dropout: float, skip: int = 9,
                     tau: float = 0.99) -> tuple[Tensor, Tensor]:
    """What minimises `guided_s2dm_loss` (independent, expected) where a share p of the labels is dropped: (null, guided), (T,) float64.

    The branch without label becomes f_u = null·E[ε₁ | x_t], the guided prediction g = guided·(w·E[ε₁ | x_t, label] − (w−1)·f_u). With
    r = (1−τ)c²/τ, setting the derivatives with respect to f and f_u to zero gives

        guided = 1/(1 + r·w²)
        null = (p(1 + r·w²) + (1−p)·r·w(w−1)) / (p(1 + r)(1 + r·w²) + (1−p)·r·(w−1)²)

    and f = (E[ε₁ | x_t, label] + r·w(w−1)·f_u)·guided. Raises ValueError unless 0 < p <= 1: without L_0 of its own f_u is free to
    undo the prediction, and where t < skip nothing would hold it at all.
    """
    check_number("tau", tau, 0, 1)
    if not 0 < label_dropout <= 1 or tau == 0:
        raise ValueError(f"label_dropout must lie in (0, 1] and tau above 0, not {label_dropout!r} and {tau!r}.")
    t = torch.arange(schedule.T, device=schedule.alpha_bar.device)
    r = (1 - tau) / tau * _skip_coefficient(schedule, t, skip).square()  # (T,), 0 where t < skip
    w, p = weight, label_dropout
    pull = 1 + r * w**2
    null = (p * pull + (1 - p) * r * w * (w - 1)) / (p * (1 + r) * pull + (1 - p) * r * (w - 1) ** 2)
    return null, 1 / pull


def _noised(denoiser: Denoiser, x0: Tensor, t: Tensor, schedule: NoiseSchedule,
            generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    check_denoiser(denoiser)
    check_floating("x0", x0, "(B, D, ...)")
    check_kind("schedule", schedule, NoiseSchedule)
    check_timesteps(t, schedule.T, whole=True)  # the loss looks ᾱ_t up in a table
    check_generator(generator)
    eps = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
    return eps, schedule.add_noise(x0, eps, t)


def _skip_coefficient(schedule: NoiseSchedule, t: Tensor, skip: int) -> Tensor:
    """c_t = √((1−a)/a), a = ᾱ_t/ᾱ_{t−skip}; 0 where t < skip."""
    a = schedule.alpha_skip(t, skip)
    return ((1 - a) / a).sqrt()


def _skip_term(denoiser: Denoiser, x0: Tensor, t: Tensor, schedule: NoiseSchedule, skip: int, reading: str,
               generator: torch.Generator | None, eps: Tensor, f: Tensor) -> Tensor:
    c = per_image(_skip_coefficient(schedule, t, skip), f)  # (B, 1, ...)
    if reading == "output":
        earlier = (t.long() - skip).clamp(min=0)
        x_earlier = schedule.add_noise(x0, eps, earlier)
        return _mean_square(f - check_eps(denoiser(x_earlier, earlier), x_earlier))
    if reading == "expected":
        return 1 + _mean_square(c * f)
    if reading == "independent":
        eps = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
    return _mean_square(eps - c * f)


def _mean_square(x: Tensor) -> Tensor:
    return x.square().flatten(1).mean(dim=1)  # (B,)
