"""What public functions ask of their arguments, and the sentence they answer with where it is not so.

A function that users call asks once, at its beginning; what it calls inside trusts it. Shapes and types cost nothing to look at, values
do: on a GPU the host would wait for them, so inner loops do not ask. Every refusal is a ValueError.
"""
import math
import reprlib
from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin

import numpy as np
import torch
from torch import Tensor

LARGEST = 1e15  # of a number that is calculated with: its square is still finite in float32. Pictures live in −1..1.


def shown(value: object) -> str:
    """The value in an error's words: a tensor by its type and shape, anything else as Python writes it, shortened."""
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else reprlib.repr(value)


def check_integer(name: str, value: object, low: int, high: int | None = None, why: str = "") -> int:
    """A whole number in low..high, as an int; of NumPy too. why: a few words behind the limit."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        limit = f"of at least {low}" if high is None else f"in {low}..{high}"
        raise ValueError(f"{name} must be an integer {limit}{why}, not {shown(value)}.")
    return int(value)


def check_seed(value: object, name: str = "seed") -> int:
    """What a torch.Generator takes for a seed."""
    return check_integer(name, value, 0, 2**63 - 1)


def check_number(name: str, value: object, low: float = -LARGEST, high: float = LARGEST) -> float:
    """A real number in [low, high], which NaN is not, as a float."""
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], not {shown(value)}.")
    return float(value)


def check_name(name: str, value: object, known: Iterable[str]) -> None:
    """One of the known names; a near miss is told which it may have meant."""
    if not isinstance(value, str) or value not in known:
        near = get_close_matches(value, known, n=1) if isinstance(value, str) else []
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {shown(value)}.{hint}")


def check_kind(name: str, value: object, kind: type, hint: str = "") -> None:
    """An object of a class. hint: how to come by one."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be of the class {kind.__name__}{hint}, not {shown(value)}.")


def check_types(config: object) -> None:
    """Every field of a dataclass holds what its annotation says, and numbers are finite. A whole number may stand for a float."""
    for field in fields(config):
        value = getattr(config, field.name)
        if not _fits(value, field.type):
            kind = field.type.__name__ if isinstance(field.type, type) and not get_args(field.type) else field.type
            finite = ", and finite" if isinstance(value, float) else ""
            raise ValueError(f"{field.name} must be of the type {kind}{finite}, not {shown(value)}.")


def _fits(value: object, kind: object) -> bool:
    if isinstance(kind, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(item, get_args(kind)[0]) for item in value)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool) and abs(value) < math.inf
    return isinstance(value, (str, PathLike) if kind is Path else kind)


def check_question(x: object, t: object, T: int) -> None:
    """What a denoiser is asked with: x (B, ...) floating, t (B,) timesteps."""
    check_floating("x", x, empty=True)
    check_timesteps(t, T)
    if len(t) != len(x):
        raise ValueError(f"t must hold one timestep an image, shape ({len(x)},), not {tuple(t.shape)}.")


def check_denoiser(denoiser: object, name: str = "denoiser") -> None:
    """Something to call."""
    if not callable(denoiser):
        raise ValueError(f"{name} must be a function (x, t) → ε, such as a UNet, not {shown(denoiser)}.")


def check_eps(eps: object, x: Tensor, where: str = "") -> Tensor:
    """What a denoiser answered for x: one tensor like it. A broadcast would hide a wrong shape."""
    if not isinstance(eps, Tensor) or eps.shape != x.shape or eps.device != x.device or not eps.is_floating_point():
        answer = f"{tuple(eps.shape)} {eps.dtype} on {eps.device}" if isinstance(eps, Tensor) else f"a {type(eps).__name__}"
        raise ValueError(f"{where}the denoiser returned {answer} for an x of {tuple(x.shape)} on {x.device}; "
                         "it must return one tensor like x, the predicted noise.")
    return eps


def check_generator(generator: object) -> None:
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ValueError(f"generator must be a torch.Generator or None, not {shown(generator)}.")


def check_floating(name: str, x: object, shape: str = "(B, ...)", empty: bool = False) -> None:
    """A floating tensor. shape: names of its dimensions; `...` stands for any number of them. empty: it need not hold a number."""
    _check_tensor(name, x, shape, isinstance(x, Tensor) and x.is_floating_point(), "floating", empty)


def check_pixels(name: str, x: object, shape: str = "(N, 3, H, W)") -> None:
    """A uint8 tensor, not empty. shape: as in `check_floating`; a number in it is what the tensor must have there."""
    _check_tensor(name, x, shape, isinstance(x, Tensor) and x.dtype == torch.uint8, "uint8")


def _check_tensor(name: str, x: object, shape: str, right_type: bool, kind: str, empty: bool = False) -> None:
    wanted = shape.strip("()").split(", ")
    more = "..." in wanted
    wanted = [size for size in wanted if size not in ("...", "")]
    if (not right_type or x.ndim < len(wanted) or (x.ndim > len(wanted) and not more) or not (empty or x.numel())
            or any(size.isdigit() and x.shape[i] != int(size) for i, size in enumerate(wanted))):
        raise ValueError(f"{name} must be a {kind} tensor {shape}{'' if empty else ', not empty'}, not {shown(x)}.")


def check_finite(name: str, *tensors: Tensor) -> None:
    """No NaN, nothing infinite, nothing beyond ±LARGEST."""
    for x in tensors:
        bad = ~(x.isfinite() & (x.abs() <= LARGEST))
        if bool(bad.any()):
            raise ValueError(f"{name} must be finite, within ±{LARGEST:g}; {int(bad.sum())} of {x.numel()} values are NaN, infinite "
                             "or beyond.")


def check_numbers(name: str, value: object, low: float = -LARGEST) -> Tensor:
    """Numbers in any form, a tensor, an array, a list or one number, as a float64 tensor; none below `low` or beyond LARGEST."""
    try:
        if torch.is_complex(value) if isinstance(value, Tensor) else np.iscomplexobj(value):
            raise TypeError
        found = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ValueError(f"{name} must be real numbers, not {shown(value)}.") from None
    if not bool(((found >= low) & (found <= LARGEST)).all()):
        raise ValueError(f"{name} must be finite numbers in [{low:g}, {LARGEST:g}], not {shown(value)}.")
    return found


def check_timesteps(t: object, T: int, shape: str = "(B,)", whole: bool = False, name: str = "t") -> None:
    """Timesteps 0..T−1. Values are looked at on a CPU only: asking a GPU would make it wait."""
    right = isinstance(t, Tensor) and t.dtype != torch.bool and not t.is_complex() and (t.ndim == 1 or shape != "(B,)")
    if not right or (whole and t.is_floating_point()):
        raise ValueError(f"{name} must be a tensor {shape} of {'integer ' if whole else ''}timesteps, not {shown(t)}.")
    if t.device.type == "cpu" and t.numel():
        first, last = t.min().item(), t.max().item()  # as numbers: compared with an int8, T − 1 would overflow
        if not (first >= 0 and last <= T - 1):
            raise ValueError(f"{name} must lie in 0..{T - 1} for T = {T} timesteps, not in {first}..{last}.")


def check_values(name: str, values: Tensor, shape: str) -> None:
    """Measured values, of any real type, all finite."""
    check_floating(name, values.double() if isinstance(values, Tensor) and not values.is_complex() else values, shape)
    check_finite(name, values.double())
