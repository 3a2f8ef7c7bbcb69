"""The noise-prediction loss L_0, the skip-step loss L_skip in four readings, and the minimiser of their mixture.

For one image: ε₁ ~ N(0, I), x_t = √ᾱ_t·x_0 + √(1−ᾱ_t)·ε₁, f = denoiser(x_t, t), c_t = √((1−a)/a) with
a = ᾱ_t/ᾱ_{t−skip}. S²-DM (arXiv 2401.01520) trains on τ·L_0 + (1−τ)·L_skip, and on L_0 alone where t < skip.

    L_0                   ‖ε₁ − f‖²
    L_skip  independent   ‖ε₂ − c_t·f‖², ε₂ drawn afresh           the released code
            expected      1 + c_t²·‖f‖²                            its mean over ε₂
            shared        ‖ε₁ − c_t·f‖²                            the paper's equation with one ε
            output        ‖f(x_t, t) − f(x_{t−skip}, t−skip)‖²     the paper's prose

‖·‖² is the mean over all dimensions but the batch. Each loss returns one value an image, (B,), and raises ValueError for bad input.
"""
import torch
from torch import Tensor

from .denoisers import Denoiser
from .schedule import NoiseSchedule, lookup, noised, per_image, signal_kept
from .support.checks import check_eps, check_loss, check_name, check_schedule, check_shrinkage, check_skip_loss, check_timesteps

READINGS = ("independent", "expected", "shared", "output")
WEIGHTINGS = ("uniform", "min-snr-5", "p2")


def simple_loss(denoiser: Denoiser, x0: Tensor, t: Tensor, schedule: NoiseSchedule,
                generator: torch.Generator | None = None) -> Tensor:
    """L_0 = ‖ε₁ − ε_θ(x_t, t)‖² (DDPM, equation 14).

    x0: (B, ...) clean data, t: (B,) integer timesteps. Returns (B,).
    """
    check_loss(denoiser, x0, t, schedule, generator)
    eps, x_t = draw_noised(x0, t, schedule, generator)
    return mean_square(eps - predict(denoiser, x_t, t))


def skip_step_loss(denoiser: Denoiser, x0: Tensor, t: Tensor, schedule: NoiseSchedule, skip: int = 9,
                   reading: str = "independent", generator: torch.Generator | None = None) -> Tensor:
    """L_skip alone, in one of the four readings above (S²-DM, section 3); 0 where t < skip.

    x0: (B, ...), t: (B,) integer timesteps. Returns (B,).
    """
    check_skip_loss(denoiser, x0, t, schedule, skip, 0, reading, READINGS, generator)
    eps, x_t = draw_noised(x0, t, schedule, generator)
    f = predict(denoiser, x_t, t)
    return torch.where(t >= skip, skip_term(denoiser, x0, t, schedule, skip, reading, generator, eps, f), 0.0)


def s2dm_loss(denoiser: Denoiser, x0: Tensor, t: Tensor, schedule: NoiseSchedule, skip: int = 9, tau: float = 0.99,
              reading: str = "independent", generator: torch.Generator | None = None) -> Tensor:
    """τ·L_0 + (1−τ)·L_skip where t >= skip, L_0 elsewhere (S²-DM, the loss of the released code by default).

    x0: (B, ...), t: (B,) integer timesteps, 0 <= tau <= 1. Returns (B,). tau = 1 gives `simple_loss`, to the bit.
    """
    check_skip_loss(denoiser, x0, t, schedule, skip, tau, reading, READINGS, generator)
    eps, x_t = draw_noised(x0, t, schedule, generator)
    f = predict(denoiser, x_t, t)
    l_0 = mean_square(eps - f)
    if tau == 1:
        return l_0
    l_skip = skip_term(denoiser, x0, t, schedule, skip, reading, generator, eps, f)
    return torch.where(t >= skip, tau * l_0 + (1 - tau) * l_skip, l_0)


def timestep_weight(t: Tensor, schedule: NoiseSchedule, weighting: str) -> Tensor:
    """Weight of an image's loss at timestep t, with SNR = ᾱ_t/(1−ᾱ_t):

    uniform    1: L_0 as DDPM and S²-DM train it
    min-snr-5  min(SNR, 5)/SNR (Hang et al., 2023, arXiv 2303.09556, for a network that predicts ε)
    p2         1/(1 + SNR) (Choi et al., 2022, arXiv 2204.00227, with k = γ = 1)

    t: (B,) timesteps. Returns (B,) float32. The last two weigh faint noise, t near 0, less; the best prediction at each t is
    the same. Raises ValueError for an unknown name.
    """
    check_name("weighting", weighting, WEIGHTINGS)
    check_timesteps(t, check_schedule(schedule))
    alpha_bar = lookup(schedule.alpha_bar, t)  # (B,)
    snr = alpha_bar / (1 - alpha_bar)
    weight = {"uniform": torch.ones_like(snr), "min-snr-5": snr.clamp(max=5) / snr, "p2": 1 / (1 + snr)}[weighting]
    return weight.float()


def shrinkage(schedule: NoiseSchedule, skip: int = 9, tau: float = 0.99, reading: str = "independent") -> Tensor:
    """The factor s_t between the minimisers of S²-DM and of L_0: f = s_t·E[ε₁ | x_t]. Returns (T,) float64.

    independent, expected: τ/(τ + (1−τ)c²); shared: (τ + (1−τ)c)/(τ + (1−τ)c²); 1 where t < skip. Both follow from setting the
    derivative of the mixture with respect to f to zero. Raises ValueError for `output`, whose minimiser couples all timesteps
    and is no multiple of E[ε₁ | x_t].
    """
    check_shrinkage(schedule, skip, tau, reading, READINGS, closed=True)
    t = torch.arange(schedule.T, device=schedule.alpha_bar.device)
    c = skip_coefficient(schedule, t, skip)  # (T,), 0 where t < skip
    pull = (1 - tau) * c if reading == "shared" else 0.0
    return torch.where(t >= skip, (tau + pull) / (tau + (1 - tau) * c.square()), 1.0)


# Parts of the losses. Arguments are not checked here.

def draw_noised(x0: Tensor, t: Tensor, schedule: NoiseSchedule, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """ε₁ ~ N(0, I) and x_t, both like x0 (B, ...)."""
    eps = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
    return eps, noised(x0, eps, lookup(schedule.alpha_bar, t))


def predict(denoiser: Denoiser, x: Tensor, t: Tensor) -> Tensor:
    """f = denoiser(x, t), like x. Raises ValueError for an answer of another shape."""
    return check_eps(denoiser(x, t), x)


def skip_coefficient(schedule: NoiseSchedule, t: Tensor, skip: int) -> Tensor:
    """c_t = √((1−a)/a), a = ᾱ_t/ᾱ_{t−skip}; 0 where t < skip. t: (B,). Returns (B,) float64."""
    a = signal_kept(schedule.alpha_bar, t, skip)
    return ((1 - a) / a).sqrt()


def skip_term(denoiser: Denoiser, x0: Tensor, t: Tensor, schedule: NoiseSchedule, skip: int, reading: str,
              generator: torch.Generator | None, eps: Tensor, f: Tensor) -> Tensor:
    """L_skip of each image, (B,), given ε₁ and f = denoiser(x_t, t), (B, ...). Has no meaning where t < skip."""
    c = per_image(skip_coefficient(schedule, t, skip), f)  # (B, 1, ...)
    if reading == "output":
        earlier = (t.long() - skip).clamp(min=0)
        x_earlier = noised(x0, eps, lookup(schedule.alpha_bar, earlier))
        return mean_square(f - predict(denoiser, x_earlier, earlier))
    if reading == "expected":
        return 1 + mean_square(c * f)
    if reading == "independent":
        eps = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
    return mean_square(eps - c * f)


def mean_square(x: Tensor) -> Tensor:
    """‖x‖² of each image: (B, ...) → (B,)."""
    return x.square().flatten(1).mean(dim=1)
