"""The noise schedule ᾱ_t, the only place that knows it, and the time grids that samplers walk along."""
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from .support.checks import check_floating, check_integer, check_name, check_number, check_numbers, check_timesteps, shown

MAX_T = 100_000  # a hundred times as many steps as anybody trains with; a schedule is a table in memory


def per_image(value: Tensor, like: Tensor) -> Tensor:
    """(B,) → (B, 1, 1, …) in the dtype of `like`, so that one number an image multiplies every pixel of it."""
    return value.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


class NoiseSchedule:
    """Signal kept after t steps of noising: x_t = √ᾱ_t·x_0 + √(1−ᾱ_t)·ε, t = 0 … T−1 (DDPM, equation 4).

    alpha_bar: (T,) float64, strictly falling within (0, 1). ᾱ = 1, the clean picture, lies one step before t = 0.
    """

    def __init__(self, alpha_bar: Tensor):
        alpha_bar = check_numbers("alpha_bar", alpha_bar)
        if alpha_bar.ndim != 1 or not 2 <= len(alpha_bar) <= MAX_T:
            raise ValueError(f"alpha_bar must be a vector of at least 2 values, at most {MAX_T:,}, not of shape {tuple(alpha_bar.shape)}.")
        if not (alpha_bar[0] < 1 and alpha_bar[-1] > 0 and bool((alpha_bar.diff() < 0).all())):
            raise ValueError("alpha_bar must fall strictly from below 1 to above 0: each step adds some noise.")
        self.alpha_bar = alpha_bar

    @classmethod
    def linear(cls, T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> "NoiseSchedule":
        """ᾱ_t = Π(1 − β_i) with β rising linearly (DDPM, section 4; the setting of the S²-DM code)."""
        T = check_integer("T", T, 2, MAX_T)
        if not 0 < check_number("beta_start", beta_start) <= check_number("beta_end", beta_end) < 1:
            raise ValueError(f"0 < beta_start <= beta_end < 1 must hold, not beta_start = {beta_start}, beta_end = {beta_end}.")
        return cls(torch.cumprod(1 - torch.linspace(beta_start, beta_end, T, dtype=torch.float64), 0))

    @classmethod
    def cosine(cls, T: int = 1000) -> "NoiseSchedule":
        """ᾱ_t from a squared cosine, β capped at 0.999 (Nichol & Dhariwal, 2021, equation 17)."""
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
        """The same schedule with its table on another device; training moves it once, so that no step waits for a copy."""
        moved = NoiseSchedule.__new__(NoiseSchedule)
        moved.alpha_bar = self.alpha_bar.to(device)
        return moved

    def alpha_bar_at(self, t: Tensor) -> Tensor:
        """ᾱ at timesteps t (any shape), float64. Integers are looked up; between them log ᾱ is linear.

        Raises ValueError for t outside 0..T−1 (only on CPU tensors: asking a GPU would make it wait).
        """
        check_timesteps(t, self.T, "of any shape")
        alpha_bar = self.alpha_bar.to(t.device)
        if not t.is_floating_point():
            return alpha_bar[t.long()]
        t = t.to(torch.float64)
        below = t.long().clamp(max=self.T - 2)
        return torch.lerp(alpha_bar[below].log(), alpha_bar[below + 1].log(), t - below).exp()

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t = √ᾱ_t·x_0 + √(1−ᾱ_t)·ε (DDPM, equation 4).

        x0, eps: (B, ...) of one shape; t: (B,) timesteps. Returns x_t like x0.
        """
        _check_shapes("x0", x0, eps, t)
        alpha_bar = self.alpha_bar_at(t)  # (B,)
        return per_image(alpha_bar.sqrt(), x0) * x0 + per_image((1 - alpha_bar).sqrt(), x0) * eps

    def predict_x0(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x̂_0 = (x_t − √(1−ᾱ_t)·ε)/√ᾱ_t, `add_noise` solved for x_0. Shapes as there."""
        _check_shapes("x", x, eps, t)
        alpha_bar = self.alpha_bar_at(t)
        return (x - per_image((1 - alpha_bar).sqrt(), x) * eps) / per_image(alpha_bar.sqrt(), x)

    def alpha_skip(self, t: Tensor, skip: int) -> Tensor:
        """Signal kept over the last `skip` steps, ᾱ_t / ᾱ_{t−skip} (S²-DM, section 3).

        t: (B,) integer timesteps. Returns (B,) float64; 1 where t < skip, where the loss has no skip term.
        """
        skip = check_integer("skip", skip, 1, self.T - 1, f" for T = {self.T}")
        check_timesteps(t, self.T, "of any shape", whole=True)
        t = t.long()  # of few bits it could not hold t − skip
        alpha_bar, earlier = self.alpha_bar_at(t), self.alpha_bar_at((t - skip).clamp(min=0))
        return torch.where(t >= skip, alpha_bar / earlier, 1.0)

    def timesteps(self, steps: int, spacing: str = "uniform") -> Tensor:
        """The grid of this schedule; see the function `timesteps`."""
        return timesteps(self.T, steps, spacing, self.alpha_bar)


def _check_shapes(name: str, x: Tensor, eps: Tensor, t: Tensor) -> None:
    check_floating(name, x)
    check_floating("eps", eps)
    if x.shape != eps.shape or not isinstance(t, Tensor) or t.shape != x.shape[:1]:
        raise ValueError(f"{name} and eps must share one shape (B, ...) and t be a tensor (B,), "
                         f"not {tuple(x.shape)}, {tuple(eps.shape)} and {shown(t)}.")


def _uniform(T: int, steps: int, alpha_bar: Tensor | None) -> Tensor:
    return torch.arange(steps) * (T // steps)


def _quadratic(T: int, steps: int, alpha_bar: Tensor | None) -> Tensor:
    # In whole numbers: where the square is an integer, floats land on either side of it, from machine to machine.
    return 4 * T * torch.arange(steps).square() // (5 * max(steps - 1, 1) ** 2)


def _trailing(T: int, steps: int, alpha_bar: Tensor | None) -> Tensor:
    return (T - torch.arange(steps, dtype=torch.float64) * T / steps).round().long() - 1


def _logsnr(T: int, steps: int, alpha_bar: Tensor | None) -> Tensor:
    if alpha_bar is None:
        raise ValueError("the logsnr grid depends on the schedule: call schedule.timesteps(steps, 'logsnr').")
    log_snr = (alpha_bar.log() - (-alpha_bar).log1p()).cpu()  # (T,), falling
    wanted = torch.linspace(log_snr[0], log_snr[-1], steps, dtype=torch.float64)
    after = torch.searchsorted(-log_snr, -wanted).clamp(1, T - 1)  # the nearest is this one or the one before
    return after - (log_snr[after - 1] - wanted <= wanted - log_snr[after]).long()


SPACINGS: dict[str, Callable[[int, int, Tensor | None], Tensor]] = {
    "uniform": _uniform, "quadratic": _quadratic, "trailing": _trailing, "logsnr": _logsnr,
}


def timesteps(T: int, steps: int, spacing: str = "uniform", alpha_bar: Tensor | None = None) -> Tensor:
    """The timesteps a sampler visits, falling, (steps,) int64.

    uniform:   0, T//steps, 2·(T//steps), …  (DDIM's `uniform`, elsewhere called leading)
    quadratic: ⌊linspace(0, √(0.8·T), steps)²⌋  (DDIM's grid for CIFAR-10, denser near 0)
    trailing:  from T−1 downwards in equal strides
    logsnr:    equal strides in log ᾱ/(1−ᾱ), to the nearest timestep; needs alpha_bar

    Rounding makes quadratic repeat timesteps near 0, and logsnr near an end, where steps are many: repeats go, with a warning
    that says how many steps are left. Raises ValueError unless 1 <= steps <= T.
    """
    T = check_integer("T", T, 1, MAX_T)
    steps = check_integer("steps", steps, 1, T, f" for T = {T}")
    check_name("spacing", spacing, SPACINGS)
    if alpha_bar is not None and (not isinstance(alpha_bar, Tensor) or alpha_bar.shape != (T,)):
        raise ValueError(f"alpha_bar must be a tensor ({T},), as a schedule of T = {T} has it, not {shown(alpha_bar)}.")
    grid = SPACINGS[spacing](T, steps, alpha_bar).unique()
    if len(grid) < steps:
        warnings.warn(f"the {spacing} grid of {steps} steps repeats timesteps after rounding; {len(grid)} different ones are used.",
                      stacklevel=2)
    return grid.flip(0)
