"""The noise schedule ᾱ_t, and the grids of timesteps that samplers visit."""
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from .support.checks import MAX_T, check_grid, check_integer, check_noising, check_number, check_numbers, check_timesteps, require


def per_image(value: Tensor, like: Tensor) -> Tensor:
    """(B,) → (B, 1, 1, …) in the dtype of `like`: one factor for all pixels of an image."""
    return value.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


# The formulas on a table of ᾱ. Arguments are not checked here: losses and samplers check theirs once and then call these.

def at(table: Tensor, i: Tensor) -> Tensor:
    """table[i], of any shape; an i below 0 is refused, by a GPU too."""
    return table.index_select(0, i.flatten()).reshape(i.shape)


def lookup(alpha_bar: Tensor, t: Tensor) -> Tensor:
    """ᾱ (T,) at timesteps t (any shape), float64 on the device of t. Between integers log ᾱ is linear."""
    alpha_bar = alpha_bar.to(t.device)
    if not t.is_floating_point():
        return at(alpha_bar, t.long())
    t = t.to(torch.float64)
    below = t.floor().long().clamp(max=len(alpha_bar) - 2)
    return torch.lerp(at(alpha_bar, below).log(), at(alpha_bar, below + 1).log(), t - below).exp()


def noised(x0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t = √ᾱ·x_0 + √(1−ᾱ)·ε (DDPM, equation 4). x0, eps: (B, ...); alpha_bar: (B,). Returns (B, ...)."""
    return per_image(alpha_bar.sqrt(), x0) * x0 + per_image((1 - alpha_bar).sqrt(), x0) * eps


def signal_kept(alpha_bar: Tensor, t: Tensor, skip: int) -> Tensor:
    """ᾱ_t / ᾱ_{t−skip} (S²-DM, section 3); 1 where t < skip. alpha_bar: (T,); t: (B,) integers. Returns (B,) float64."""
    t = t.long()  # a narrower integer may not hold t − skip
    kept = lookup(alpha_bar, t) / lookup(alpha_bar, (t - skip).clamp(min=0))
    return torch.where(t >= skip, kept, 1.0)


class NoiseSchedule:
    """Signal kept after t steps of noising: x_t = √ᾱ_t·x_0 + √(1−ᾱ_t)·ε, t = 0 … T−1 (DDPM, equation 4).

    alpha_bar: (T,), strictly falling within (0, 1), stored in float64. The clean picture, ᾱ = 1, lies one step before t = 0.
    All methods raise ValueError for timesteps outside 0..T−1. To read them from a GPU would make the CPU wait: there they become an
    error of the GPU itself, which ends the process's use of it.
    """

    def __init__(self, alpha_bar: Tensor):
        alpha_bar = check_numbers("alpha_bar", alpha_bar)
        right = alpha_bar.ndim == 1 and 2 <= len(alpha_bar) <= MAX_T
        require(right, f"alpha_bar must hold at least 2, at most {MAX_T:,} values", alpha_bar)
        require(alpha_bar[0] < 1 and alpha_bar[-1] > 0 and (alpha_bar.diff() < 0).all(),
                "alpha_bar must fall strictly from below 1 to above 0: each step adds some noise")
        self.alpha_bar = alpha_bar

    @classmethod
    def linear(cls, T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> "NoiseSchedule":
        """ᾱ_t = Π(1 − β_i), β rising linearly (DDPM, section 4; the schedule of the S²-DM code)."""
        T = check_integer("T", T, 2, MAX_T)
        require(0 < check_number("beta_start", beta_start) <= check_number("beta_end", beta_end) < 1,
                f"0 < beta_start <= beta_end < 1 must hold, not beta_start = {beta_start}, beta_end = {beta_end}")
        return cls(torch.cumprod(1 - torch.linspace(beta_start, beta_end, T, dtype=torch.float64), 0))

    @classmethod
    def cosine(cls, T: int = 1000) -> "NoiseSchedule":
        """ᾱ_t from a squared cosine, β at most 0.999 (Nichol & Dhariwal, 2021, equation 17)."""
        T = check_integer("T", T, 2, MAX_T)
        f = torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + 0.008) / 1.008 * torch.pi / 2).square()  # (T+1,)
        beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
        return cls(torch.cumprod(1 - beta, 0))

    @property
    def T(self) -> int:
        return len(self.alpha_bar)

    def __repr__(self) -> str:
        return f"NoiseSchedule(T={self.T}, alpha_bar {self.alpha_bar[0]:.4f} … {self.alpha_bar[-1]:.2g})"

    def to(self, device: torch.device | str) -> "NoiseSchedule":
        """The same schedule with its table on another device; training moves it once, not at each step."""
        moved = NoiseSchedule.__new__(NoiseSchedule)
        moved.alpha_bar = self.alpha_bar.to(device)
        return moved

    def alpha_bar_at(self, t: Tensor) -> Tensor:
        """ᾱ at timesteps t (any shape), whole or between two, where log ᾱ is linear. Returns float64, shaped like t."""
        check_timesteps(t, self.T, "of any shape")
        return lookup(self.alpha_bar, t)

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t = √ᾱ_t·x_0 + √(1−ᾱ_t)·ε (DDPM, equation 4). x0, eps: (B, ...) of one shape; t: (B,). Returns x_t like x0."""
        check_noising("x0", x0, eps, t, self.T)
        return noised(x0, eps, lookup(self.alpha_bar, t))

    def predict_x0(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x̂_0 = (x_t − √(1−ᾱ_t)·ε)/√ᾱ_t, `add_noise` solved for x_0. Shapes as there."""
        check_noising("x", x, eps, t, self.T)
        alpha_bar = lookup(self.alpha_bar, t)  # (B,)
        return (x - per_image((1 - alpha_bar).sqrt(), x) * eps) / per_image(alpha_bar.sqrt(), x)

    def alpha_skip(self, t: Tensor, skip: int) -> Tensor:
        """Signal kept over the last `skip` steps, ᾱ_t / ᾱ_{t−skip} (S²-DM, section 3).

        t: (B,) integer timesteps. Returns (B,) float64; 1 where t < skip, where the loss has no skip term.
        """
        check_integer("skip", skip, 1, self.T - 1, f" for T = {self.T}")
        check_timesteps(t, self.T, "of any shape", whole=True)
        return signal_kept(self.alpha_bar, t, skip)

    def timesteps(self, steps: int, spacing: str = "uniform") -> Tensor:
        """The grid of this schedule; see the function `timesteps`."""
        return timesteps(self.T, steps, spacing, self.alpha_bar)


def _logsnr(T: int, steps: int, alpha_bar: Tensor) -> Tensor:
    log_snr = (alpha_bar.log() - (-alpha_bar).log1p()).cpu()  # (T,), falling
    wanted = torch.linspace(log_snr[0], log_snr[-1], steps, dtype=torch.float64)
    after = torch.searchsorted(-log_snr, -wanted).clamp(1, T - 1)  # the nearest is this one or the one before
    return after - (log_snr[after - 1] - wanted <= wanted - log_snr[after]).long()


SPACINGS: dict[str, Callable[[int, int, Tensor | None], Tensor]] = {
    "uniform": lambda T, steps, alpha_bar: torch.arange(steps) * (T // steps),
    # In integers: where the square is whole, rounding of floats would differ between machines.
    "quadratic": lambda T, steps, alpha_bar: 4 * T * torch.arange(steps).square() // (5 * max(steps - 1, 1) ** 2),
    "trailing": lambda T, steps, alpha_bar: (T - torch.arange(steps, dtype=torch.float64) * T / steps).round().long() - 1,
    "logsnr": _logsnr,
}


def timesteps(T: int, steps: int, spacing: str = "uniform", alpha_bar: Tensor | None = None) -> Tensor:
    """The timesteps that a sampler visits, falling, (steps,) int64.

    uniform:   0, T//steps, 2·(T//steps), …  (DDIM's `uniform`, elsewhere called leading)
    quadratic: ⌊linspace(0, √(0.8·T), steps)²⌋  (DDIM's grid for CIFAR-10, denser near 0)
    trailing:  from T−1 downwards in equal strides
    logsnr:    equal strides in log ᾱ/(1−ᾱ), to the nearest timestep; needs alpha_bar (T,)

    With many steps rounding makes quadratic and logsnr repeat timesteps. Repeats are removed, and a warning gives the number of
    steps left. Raises ValueError unless 1 <= steps <= T.
    """
    T, steps = check_grid(T, steps, spacing, SPACINGS, alpha_bar)
    grid = SPACINGS[spacing](T, steps, alpha_bar).unique()
    if len(grid) < steps:
        warnings.warn(f"the {spacing} grid of {steps} steps repeats timesteps after rounding; {len(grid)} different ones are used.",
                      stacklevel=2)
    return grid.flip(0)
