"""Standard errors, and the rules by which a difference counts as clear: Student's t, and Holm's correction for many of them."""
import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..support.checks import check_numbers, check_values, require


@dataclass(frozen=True)
class MeanOverPairs:
    """A mean over n pairs with its standard error."""

    mean: float
    error: float
    n: int

    @classmethod
    def of(cls, values: Tensor) -> "MeanOverPairs":
        """From one value a pair, (P,). The error of a single pair is nan."""
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
    """Standard error of a statistic, from its values with one of equally large blocks of the data left out at a time."""
    values = check_numbers("left_out", left_out)
    require(values.ndim == 1 and len(values) >= 2, "left_out must be at least two numbers in a row", tuple(values.shape))
    return math.sqrt((len(values) - 1) * float(values.var(correction=0)))


def combined(*errors: tuple[float, int]) -> tuple[float, float]:
    """The standard error of a sum of independent parts, and its degrees of freedom by Welch and Satterthwaite.

    errors: (standard error, degrees of freedom) of each part. The result is nan if one of them is unknown, nan.
    """
    known = [(error, freedom) for error, freedom in errors if error != 0]
    total = math.hypot(*(error for error, _ in known))
    if not known or math.isnan(total):
        return total, math.nan
    return total, total**4 / sum(error**4 / freedom for error, freedom in known)


def p_value(mean: float, *errors: tuple[float, int]) -> float:
    """How often a mean at least as far from 0 would be seen if the truth were 0, by Student's t. 1 if an error is unknown."""
    from scipy.stats import t

    total, freedom = combined(*errors)
    if math.isnan(total):
        return 1.0
    return 2 * float(t.sf(abs(mean) / total, freedom)) if total else float(mean == 0)


def interval(mean: float, *errors: tuple[float, int]) -> tuple[float, float]:
    """The 95 % interval of a mean by Student's t; without bounds if an error is unknown."""
    from scipy.stats import t

    total, freedom = combined(*errors)
    half = math.inf if math.isnan(total) else total * float(t.ppf(0.975, freedom)) if total else 0.0
    return mean - half, mean + half


def is_clear(mean: float, *errors: tuple[float, int]) -> bool:
    """Whether a mean differs from 0 at the 5 % level. False if an error is unknown."""
    return p_value(mean, *errors) < 0.05


def holm(p: Sequence[float]) -> list[float]:
    """p-values of a family of tests, corrected by Holm (1979): one below 0.05 is a false alarm in at most 5 % of all families."""
    found, largest = [1.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        found[i] = largest
    return found
