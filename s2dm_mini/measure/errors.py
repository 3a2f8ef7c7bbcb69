"""Standard errors, and the one rule by which a difference counts as clear."""
import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..support.checks import check_numbers, check_values


@dataclass(frozen=True)
class MeanOverPairs:
    """A mean over pairs with its standard error."""

    mean: float
    error: float
    n: int

    @classmethod
    def of(cls, values: Tensor) -> "MeanOverPairs":
        """From one value a pair, (P,)."""
        check_values("values", values, "(P,)")
        values = values.double()
        error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(values.mean().item(), error, len(values))

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.error:.3f}"

    @property
    def clear(self) -> bool:
        """Whether the 95 % interval excludes 0: only then is a difference called one."""
        return is_clear(self.mean, (self.error, self.n - 1))


def jackknife_error(left_out: Sequence[float]) -> float:
    """The standard error of a statistic, from its values with one of so many equal blocks of the data left out at a time."""
    values = check_numbers("left_out", left_out)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"left_out must be at least two numbers in a row, not {tuple(values.shape)}.")
    return math.sqrt((len(values) - 1) * float(values.var(correction=0)))


# 97.5 % quantiles of Student's t with 1, 2, … degrees of freedom.
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110)


def is_clear(mean: float, *errors: tuple[float, int]) -> bool:
    """Whether a mean is further from 0 than Student's t allows for its errors (standard error, degrees of freedom), independent ones.

    The degrees of freedom of all together are Welch and Satterthwaite's. Never with an error that is not known, nan.
    """
    known = [(error, freedom) for error, freedom in errors if error != 0]
    total = math.hypot(*(error for error, _ in known))
    if not known or math.isnan(total):
        return mean != 0 and not known
    freedom = int(total**4 / sum(error**4 / freedom for error, freedom in known))
    # Above 17 degrees of freedom by the expansion of Abramowitz and Stegun, 26.7.5, which is right to 0.001.
    quantile = T_QUANTILES[freedom - 1] if freedom <= len(T_QUANTILES) else 1.95996 + 2.3723 / freedom + 2.8225 / freedom**2
    return abs(mean) > quantile * total
