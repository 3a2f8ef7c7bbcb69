"""Argument checks of public functions: each raises ValueError with one sentence, or returns the argument converted.

A public function checks its arguments once, at its beginning; the functions it calls trust them. Shapes and types are free to read.
Values are not: reading them from a GPU makes the CPU wait, so inner loops check values of CPU tensors only.
"""
import math
import reprlib
from collections.abc import Callable, Iterable
from dataclasses import fields
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import numpy as np
import torch
from torch import Tensor, nn

LARGEST = 1e15  # largest number accepted: its square is still finite in float32
MAX_T = 100_000  # largest number of timesteps: a schedule is a table in memory
MAX_REFINEMENTS = 1_000  # of an inversion, which converges within a few or never


def shown(value: object) -> str:
    """The value for an error message: a tensor as its type and shape, anything else as a shortened repr."""
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else reprlib.repr(value)


def require(holds: object, demand: str, *value: object) -> None:
    """Raise ValueError, "{demand}, not {value}.", unless it holds. Leave the value out where the demand names it."""
    if not holds:
        raise ValueError(", not ".join([demand, *map(shown, value)]) + ".")


def similar(name: object, known: Iterable[str]) -> str:
    """A question after the known name most like this one, to end a sentence with; empty where none is like it."""
    near = get_close_matches(name, known, n=1) if isinstance(name, str) else []
    return f" Did you mean {near[0]!r}?" if near else ""


# Any argument.

def check_integer(name: str, value: object, low: int, high: int | None = None, why: str = "") -> int:
    """Return a whole number in low..high, Python's or NumPy's, as an int. why: words added to the limit."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    limit = f"of at least {low}" if high is None else f"in {low}..{high}"
    require(whole and low <= value and (high is None or value <= high), f"{name} must be an integer {limit}{why}", value)
    return int(value)


def check_seed(value: object, name: str = "seed") -> int:
    """Return a seed of torch.Generator as an int."""
    return check_integer(name, value, 0, 2**63 - 1)


def check_number(name: str, value: object, low: float = -LARGEST, high: float = LARGEST) -> float:
    """Return a real number in [low, high], not NaN, as a float."""
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    require(real and low <= value <= high, f"{name} must lie in [{low:g}, {high:g}]", value)
    return float(value)


def check_name(name: str, value: object, known: Iterable[str]) -> None:
    """Refuse a name that is not known, and suggest a similar one."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {shown(value)}.{similar(value, known)}")


def check_kind(name: str, value: object, kind: type, hint: str = "") -> None:
    """Refuse an object of another class. hint: how to get one."""
    require(isinstance(value, kind), f"{name} must be of the class {kind.__name__}{hint}", value)


def check_types(config: object) -> None:
    """Refuse a dataclass with a field that differs from its annotation or is not finite. An int may stand for a float.

    NumPy's numbers become Python's, which JSON can write.
    """
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, np.generic):
            value = value.item()
            object.__setattr__(config, field.name, value)
        kind = field.type.__name__ if isinstance(field.type, type) and not get_args(field.type) else field.type
        finite = ", and finite" * (isinstance(value, float) and not math.isfinite(value))
        require(_fits(value, field.type), f"{field.name} must be of the type {kind}{finite}", value)


def _fits(value: object, kind: object) -> bool:
    if isinstance(kind, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(item, get_args(kind)[0]) for item in value)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool) and abs(value) < math.inf
    return isinstance(value, (str, PathLike) if kind is Path else kind)


def check_fields(config: object, *limits: tuple[str, object, str]) -> None:
    """Refuse a dataclass by a table of (field, whether its value is allowed, the limit in words)."""
    for name, holds, limit in limits:
        require(holds, f"{name} must be {limit}", getattr(config, name))


def check_denoiser(denoiser: object, name: str = "denoiser") -> None:
    """Refuse what cannot be called."""
    require(callable(denoiser), f"{name} must be a function (x, t) → ε, such as a UNet", denoiser)


def check_generator(generator: object) -> None:
    require(generator is None or isinstance(generator, torch.Generator), "generator must be a torch.Generator or None", generator)


def check_schedule(schedule: Any) -> int:
    """Return T of a NoiseSchedule, known by its table: this module cannot import the class, which is above it."""
    require(isinstance(getattr(schedule, "alpha_bar", None), Tensor), "schedule must be of the class NoiseSchedule", schedule)
    return len(schedule.alpha_bar)


# Tensors.

def check_floating(name: str, x: Any, shape: str = "(B, ...)", empty: bool = False, finite: bool = False) -> None:
    """Refuse what is not a floating tensor. shape: names of its dimensions, `...` for any number of them. empty: may hold no number."""
    _check_tensor(name, x, shape, "floating", Tensor.is_floating_point, empty)
    if finite:
        check_finite(name, x)


def check_pixels(name: str, x: object, shape: str = "(N, 3, H, W)") -> None:
    """Refuse what is not a uint8 tensor, or empty. shape: as in `check_floating`; a number in it is the size required there."""
    _check_tensor(name, x, shape, "uint8", lambda x: x.dtype == torch.uint8)


def _check_tensor(name: str, x: object, shape: str, kind: str, is_kind: Callable[[Tensor], bool], empty: bool = False) -> None:
    sizes = [size for size in shape.strip("()").split(", ") if size not in ("...", "")]
    require(isinstance(x, Tensor) and is_kind(x) and (x.ndim >= len(sizes) if "..." in shape else x.ndim == len(sizes))
            and (empty or x.numel()) and all(x.shape[i] == int(size) for i, size in enumerate(sizes) if size.isdigit()),
            f"{name} must be a {kind} tensor {shape}{'' if empty else ', not empty'}", x)


def check_finite(name: str, *tensors: Tensor) -> None:
    """Refuse NaN, infinite values and values beyond ±LARGEST."""
    for x in tensors:
        bad = x.numel() - int((x.isfinite() & (x.abs() <= LARGEST)).sum())
        require(not bad, f"{name} must be finite, within ±{LARGEST:g}; {bad} of {x.numel()} values are NaN, infinite or beyond")


def check_numbers(name: str, value: object, low: float = -LARGEST) -> Tensor:
    """Return numbers in [low, LARGEST], given as a tensor, an array, a list or one number, as a float64 tensor."""
    try:
        if torch.is_complex(value) if isinstance(value, Tensor) else np.iscomplexobj(value):
            raise TypeError
        found = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ValueError(f"{name} must be real numbers, not {shown(value)}.") from None
    require(((found >= low) & (found <= LARGEST)).all(), f"{name} must be finite numbers in [{low:g}, {LARGEST:g}]", value)
    return found


def check_values(name: str, values: Tensor, shape: str) -> None:
    """Refuse measured values that are not real and finite."""
    check_floating(name, values.double() if isinstance(values, Tensor) and not values.is_complex() else values, shape, finite=True)


def check_timesteps(t: object, T: int, shape: str = "(B,)", whole: bool = False, name: str = "t", like: Tensor | None = None) -> None:
    """Refuse timesteps outside 0..T−1 (values of CPU tensors only) and other types. whole: integers only. like: one for each of its B."""
    right = isinstance(t, Tensor) and t.dtype != torch.bool and not t.is_complex() and (t.ndim == 1 or shape != "(B,)")
    require(right and not (whole and t.is_floating_point()), f"{name} must be a tensor {shape} of {'integer ' * whole}timesteps", t)
    require(like is None or len(t) == len(like), f"{name} must hold one timestep an image", t)
    if t.device.type == "cpu" and t.numel():
        first, last = t.min().item(), t.max().item()  # as numbers: compared with an int8, T − 1 would overflow
        require(first >= 0 and last <= T - 1, f"{name} must lie in 0..{T - 1} for T = {T} timesteps, not in {first}..{last}")


# The schedule.

def check_noising(name: str, x: Any, eps: Any, t: Any, T: int) -> None:
    """x and eps (B, ...) floating, of one shape; t (B,) timesteps."""
    check_floating(name, x)
    check_floating("eps", eps)
    require(x.shape == eps.shape and isinstance(t, Tensor) and t.shape == x.shape[:1],
            f"{name} and eps must share one shape (B, ...) and t be a tensor (B,), not {tuple(x.shape)}, {tuple(eps.shape)} and {shown(t)}")
    check_timesteps(t, T)


def check_grid(T: object, steps: object, spacing: object, spacings: Iterable[str], alpha_bar: object) -> tuple[int, int]:
    """Return T and steps of a time grid as ints."""
    T = check_integer("T", T, 1, MAX_T)
    steps = check_integer("steps", steps, 1, T, f" for T = {T}")
    check_name("spacing", spacing, spacings)
    require(alpha_bar is None or isinstance(alpha_bar, Tensor) and alpha_bar.shape == (T,),
            f"alpha_bar must be a tensor ({T},), as a schedule of T = {T} has it", alpha_bar)
    require(spacing != "logsnr" or alpha_bar is not None,
            "the logsnr grid depends on the schedule, not on alpha_bar = None: call schedule.timesteps(steps, 'logsnr')")
    return T, steps


# Denoisers.

def check_question(x: Any, t: Any, T: int, shape: tuple[int, ...] | None = None) -> None:
    """The arguments of a denoiser: x (B, ...) floating, t (B,) timesteps. shape: of one x."""
    check_floating("x", x, empty=True)
    check_timesteps(t, T, like=x)
    if shape is not None and x.shape[1:] != shape:
        raise ValueError(f"x must be ({', '.join(map(str, ('B', *shape)))}), not {tuple(x.shape)}.")


def check_eps(eps: object, x: Tensor, where: str = "") -> Tensor:
    """Return a denoiser's answer eps for x if it is one tensor like x: broadcasting would hide a wrong shape."""
    if not isinstance(eps, Tensor) or eps.shape != x.shape or eps.device != x.device or not eps.is_floating_point():
        answer = f"{tuple(eps.shape)} {eps.dtype} on {eps.device}" if isinstance(eps, Tensor) else f"a {type(eps).__name__}"
        raise ValueError(f"{where}the denoiser returned {answer} for an x of {tuple(x.shape)} on {x.device}; "
                         "it must return one tensor like x, the predicted noise.")
    return eps


def check_covariance(mean: object, covariance: object, schedule: object) -> tuple[Tensor, Tensor]:
    """Return mean, D numbers of any shape, and covariance, (D,) or (D, D), as float64."""
    check_schedule(schedule)
    mean, covariance = check_numbers("mean", mean), check_numbers("covariance", covariance)
    d = mean.numel()
    require(d and tuple(covariance.shape) in ((d,), (d, d)),
            f"covariance must be ({d},) or ({d}, {d}) for a mean of {d} numbers, at least one", tuple(covariance.shape))
    if covariance.ndim == 2 and not covariance.allclose(covariance.T):
        raise ValueError(f"covariance must be symmetric; it differs from its transpose by {(covariance - covariance.T).abs().max():.3g}.")
    return mean, covariance


def check_mixture(means: object, std: object, weights: object, labels: Any, schedule: object) -> tuple[Tensor, Tensor, Tensor]:
    """Return means (K, D), std () or (K,) and weights (K,) as float64; equal weights for None."""
    check_schedule(schedule)
    means, std = check_numbers("means", means), check_numbers("std", std, low=0)
    require(means.ndim == 2 and means.numel(), "means must be (K, D) with K and D at least 1", tuple(means.shape))
    k = len(means)
    weights = torch.ones(k, dtype=torch.float64) if weights is None else check_numbers("weights", weights)
    require(std.shape in ((), (k,)), f"std must be one number or {k} of them, one a component, not of shape {tuple(std.shape)}")
    require(weights.shape == (k,) and (weights > 0).all(), f"weights must be {k} numbers above 0, one a component")
    require(labels is None or labels.shape == (k,), f"labels must be {k} numbers, one a component", labels)
    return means, std, weights


# Losses.

def check_loss(denoiser: object, x0: Any, t: Any, schedule: Any, generator: object) -> None:
    """x0 (B, D, ...) floating, t (B,) integer timesteps."""
    check_denoiser(denoiser)
    check_floating("x0", x0, "(B, D, ...)")
    check_timesteps(t, check_schedule(schedule), whole=True, like=x0)
    check_generator(generator)


def check_skip_loss(denoiser: object, x0: Any, t: Any, schedule: Any, skip: object, tau: object, reading: object,
                    readings: Iterable[str], generator: object) -> None:
    check_loss(denoiser, x0, t, schedule, generator)
    tau = check_number("tau", tau, 0, 1)
    check_shrinkage(schedule, 1 if tau == 1 else skip, tau, reading, readings)  # with τ = 1 skip has no effect


def check_shrinkage(schedule: Any, skip: object, tau: object, reading: object, readings: Iterable[str], closed: bool = False) -> None:
    """closed: refuse the reading without a closed form."""
    check_name("reading", reading, readings)
    check_number("tau", tau, 0, 1)
    T = check_schedule(schedule)
    check_integer("skip", skip, 1, T - 1, f" for T = {T}")
    require(not closed or reading != "output", "the output reading has no closed-form shrinkage; independent, expected and shared have")


# Networks.

def check_unet_config(config: Any) -> None:
    """The fields of a UNetConfig."""
    check_types(config)
    widths, levels, groups = config.channels, len(config.channels), config.norm_groups
    factor = 2 ** (min(max(levels, 1), 8) - 1)  # between the first and the last level's resolution
    check_fields(
        config,
        ("image_size", 1 <= config.image_size <= 4096, "in 1..4096"),
        ("image_channels", 1 <= config.image_channels <= 4096, "in 1..4096"),
        ("dimensions", config.dimensions in (1, 2), "1 (signals) or 2 (pictures)"),
        ("norm_groups", groups >= 1, "at least 1"),
        ("channels", 1 <= levels <= 8 and all(1 <= width <= 4096 for width in widths), "1 to 8 widths in 1..4096"),
        ("channels", levels and widths[0] % 2 == 0 and widths[0] >= 4, "even and at least 4 at first, as many as sines and cosines of t"),
        ("channels", groups and not any(width % groups for width in widths), f"multiples of norm_groups = {groups}"),
        ("image_size", config.image_size % factor == 0, f"a multiple of {factor}, to be halved for each level after the first"),
        ("attention_levels", all(0 <= level < levels for level in config.attention_levels), f"levels in 0..{levels - 1}"),
        ("blocks_per_level", 1 <= config.blocks_per_level <= 16, "in 1..16"),
        ("dropout", 0 <= config.dropout < 1, "in [0, 1)"),
        ("classes", config.classes >= 0, "at least 0"),
    )


def check_unet_input(x: Any, t: Any, label: Any, config: Any) -> None:
    """x (B, *config.shape) floating, t (B,), label (B,) int64 in -1 (NO_LABEL)..classes−1, or None."""
    check_floating("x", x, f"(B, {', '.join(map(str, config.shape))})", empty=True)
    batch = x.shape[:1]
    require(isinstance(t, Tensor) and t.shape == batch and not t.is_complex(), f"t must hold one timestep an image, {tuple(batch)}", t)
    if label is not None:
        require(config.classes, "this network was made without classes, so it takes no label; see UNetConfig.classes")
        require(isinstance(label, Tensor) and label.shape == batch and label.dtype == torch.int64,
                f"label must hold one int64 number an image, {tuple(batch)}", label)
        if label.device.type == "cpu":
            outside = label[(label < -1) | (label >= config.classes)].tolist()
            require(not outside, f"labels must be 0..{config.classes - 1}, or -1 for none", outside)


# Samplers and latents.

def check_walk(denoiser: object, x_T: Any, schedule: object, sampler: Any, samplers: dict[str, Any], eta: object,
               generator: object) -> None:
    """The arguments of a sampler; network, x_T and generators must share a device, as far as that shows before the first call."""
    check_name("sampler", sampler, samplers)
    check_denoiser(denoiser)
    check_floating("x_T", x_T, empty=True)
    check_schedule(schedule)
    require(check_number("eta", eta, 0, 1) == 0 or samplers[sampler].takes_eta,
            f"eta = {eta} has no meaning for {sampler}; it belongs to DDIM")
    weight = next(denoiser.parameters(), x_T) if isinstance(denoiser, nn.Module) else x_T
    require(weight.device == x_T.device,
            f"x_T is on {x_T.device} but the denoiser's weights are on {weight.device}; move one of them with .to(...)")
    generators = generator if isinstance(generator, list) else [generator]
    require(not isinstance(generator, list) or len(generator) == len(x_T),
            f"a list of generators needs one an image: {len(generators)} for the {len(x_T)} images of x_T")
    for g in generators:
        check_generator(g)
        require(g is None or g.device.type == x_T.device.type,  # one made for "cuda" may serve any cuda:i
                f"generator is on {g and g.device} but x_T on {x_T.device}; make it with torch.Generator(device={x_T.device.type!r})")


def check_ends(a: Any, b: Any, weight: Any, directions: bool = False) -> None:
    """Two points (...) of one shape and type, and weights (N,) between them. directions: neither may be zero."""
    check_floating("a", a, "(...)")
    check_floating("b", b, "(...)")
    check_floating("weight", weight, "(N,)")
    require(a.shape == b.shape and a.dtype == b.dtype, f"a and b must be of one shape and type, not {shown(a)} and {shown(b)}")
    check_finite("a, b and weight", a, b, weight)
    require(not directions or a.double().norm() > 0 and b.double().norm() > 0,
            "slerp needs two vectors that are not zero: a zero vector has no direction")


def check_inversion(denoiser: object, x0: Any, schedule: object, refinements: object) -> None:
    check_denoiser(denoiser)
    check_floating("x0", x0, finite=True)
    check_schedule(schedule)
    check_integer("refinements", refinements, 0, MAX_REFINEMENTS)
