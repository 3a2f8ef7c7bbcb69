"""Argument checks of public functions: each raises ValueError with one sentence, or returns the argument converted.

A public function checks its arguments once, at its beginning; the functions it calls trust them. Shapes and types are free to read.
Values are not: reading them from a GPU makes the CPU wait, so inner loops check values of CPU tensors only.
"""
import math
import reprlib
from collections.abc import Iterable
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
MAX_FRAMES = 10_000
MAX_REFINEMENTS = 1_000  # of an inversion, which converges within a few or never


def shown(value: object) -> str:
    """The value for an error message: a tensor as its type and shape, anything else as a shortened repr."""
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else reprlib.repr(value)


def check_integer(name: str, value: object, low: int, high: int | None = None, why: str = "") -> int:
    """Return a whole number in low..high, Python's or NumPy's, as an int. why: words added to the limit."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        limit = f"of at least {low}" if high is None else f"in {low}..{high}"
        raise ValueError(f"{name} must be an integer {limit}{why}, not {shown(value)}.")
    return int(value)


def check_seed(value: object, name: str = "seed") -> int:
    """Return a seed of torch.Generator as an int."""
    return check_integer(name, value, 0, 2**63 - 1)


def check_number(name: str, value: object, low: float = -LARGEST, high: float = LARGEST) -> float:
    """Return a real number in [low, high], not NaN, as a float."""
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], not {shown(value)}.")
    return float(value)


def check_name(name: str, value: object, known: Iterable[str]) -> None:
    """Refuse a name that is not known, and suggest a similar one."""
    if not isinstance(value, str) or value not in known:
        near = get_close_matches(value, known, n=1) if isinstance(value, str) else []
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {shown(value)}.{hint}")


def check_kind(name: str, value: object, kind: type, hint: str = "") -> None:
    """Refuse an object of another class. hint: how to get one."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be of the class {kind.__name__}{hint}, not {shown(value)}.")


def check_types(config: object) -> None:
    """Refuse a dataclass with a field that differs from its annotation or is not finite. An int may stand for a float.

    NumPy's numbers become Python's, which JSON can write.
    """
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, np.generic):
            value = value.item()
            object.__setattr__(config, field.name, value)
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


def check_denoiser(denoiser: object, name: str = "denoiser") -> None:
    """Refuse what cannot be called."""
    if not callable(denoiser):
        raise ValueError(f"{name} must be a function (x, t) → ε, such as a UNet, not {shown(denoiser)}.")


def check_eps(eps: object, x: Tensor, where: str = "") -> Tensor:
    """Return a denoiser's answer eps for x if it is one tensor like x: broadcasting would hide a wrong shape."""
    if not isinstance(eps, Tensor) or eps.shape != x.shape or eps.device != x.device or not eps.is_floating_point():
        answer = f"{tuple(eps.shape)} {eps.dtype} on {eps.device}" if isinstance(eps, Tensor) else f"a {type(eps).__name__}"
        raise ValueError(f"{where}the denoiser returned {answer} for an x of {tuple(x.shape)} on {x.device}; "
                         "it must return one tensor like x, the predicted noise.")
    return eps


def check_generator(generator: object) -> None:
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ValueError(f"generator must be a torch.Generator or None, not {shown(generator)}.")


def check_floating(name: str, x: object, shape: str = "(B, ...)", empty: bool = False) -> None:
    """Refuse what is not a floating tensor. shape: names of its dimensions, `...` for any number of them. empty: may hold no number."""
    _check_tensor(name, x, shape, isinstance(x, Tensor) and x.is_floating_point(), "floating", empty)


def check_pixels(name: str, x: object, shape: str = "(N, 3, H, W)") -> None:
    """Refuse what is not a uint8 tensor, or empty. shape: as in `check_floating`; a number in it is the size required there."""
    _check_tensor(name, x, shape, isinstance(x, Tensor) and x.dtype == torch.uint8, "uint8")


def _check_tensor(name: str, x: object, shape: str, right_type: bool, kind: str, empty: bool = False) -> None:
    wanted = shape.strip("()").split(", ")
    more = "..." in wanted
    wanted = [size for size in wanted if size not in ("...", "")]
    if (not right_type or x.ndim < len(wanted) or (x.ndim > len(wanted) and not more) or not (empty or x.numel())
            or any(size.isdigit() and x.shape[i] != int(size) for i, size in enumerate(wanted))):
        raise ValueError(f"{name} must be a {kind} tensor {shape}{'' if empty else ', not empty'}, not {shown(x)}.")


def check_finite(name: str, *tensors: Tensor) -> None:
    """Refuse NaN, infinite values and values beyond ±LARGEST."""
    for x in tensors:
        bad = ~(x.isfinite() & (x.abs() <= LARGEST))
        if bool(bad.any()):
            raise ValueError(f"{name} must be finite, within ±{LARGEST:g}; {int(bad.sum())} of {x.numel()} values are NaN, infinite "
                             "or beyond.")


def check_numbers(name: str, value: object, low: float = -LARGEST) -> Tensor:
    """Return numbers in [low, LARGEST], given as a tensor, an array, a list or one number, as a float64 tensor."""
    try:
        if torch.is_complex(value) if isinstance(value, Tensor) else np.iscomplexobj(value):
            raise TypeError
        found = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ValueError(f"{name} must be real numbers, not {shown(value)}.") from None
    if not bool(((found >= low) & (found <= LARGEST)).all()):
        raise ValueError(f"{name} must be finite numbers in [{low:g}, {LARGEST:g}], not {shown(value)}.")
    return found


def check_timesteps(t: object, T: int, shape: str = "(B,)", whole: bool = False, name: str = "t", like: Tensor | None = None) -> None:
    """Refuse timesteps outside 0..T−1 (values of CPU tensors only) and other types. whole: integers only. like: one for each of its B."""
    right = isinstance(t, Tensor) and t.dtype != torch.bool and not t.is_complex() and (t.ndim == 1 or shape != "(B,)")
    if not right or (whole and t.is_floating_point()):
        raise ValueError(f"{name} must be a tensor {shape} of {'integer ' if whole else ''}timesteps, not {shown(t)}.")
    if like is not None and len(t) != len(like):
        raise ValueError(f"{name} must hold one timestep an image, shape ({len(like)},), not {tuple(t.shape)}.")
    if t.device.type == "cpu" and t.numel():
        first, last = t.min().item(), t.max().item()  # as numbers: compared with an int8, T − 1 would overflow
        if not (first >= 0 and last <= T - 1):
            raise ValueError(f"{name} must lie in 0..{T - 1} for T = {T} timesteps, not in {first}..{last}.")


def check_values(name: str, values: Tensor, shape: str) -> None:
    """Refuse measured values that are not real and finite."""
    check_floating(name, values.double() if isinstance(values, Tensor) and not values.is_complex() else values, shape)
    check_finite(name, values.double())


def check_schedule(schedule: Any) -> int:
    """Return T of a NoiseSchedule, known by its table: this module cannot import the class, which is above it."""
    if not isinstance(getattr(schedule, "alpha_bar", None), Tensor):
        raise ValueError(f"schedule must be of the class NoiseSchedule, not {shown(schedule)}.")
    return len(schedule.alpha_bar)


def check_alpha_bar(alpha_bar: object) -> Tensor:
    """Return the table of a schedule as float64."""
    alpha_bar = check_numbers("alpha_bar", alpha_bar)
    if alpha_bar.ndim != 1 or not 2 <= len(alpha_bar) <= MAX_T:
        raise ValueError(f"alpha_bar must be a vector of at least 2 values, at most {MAX_T:,}, not of shape {tuple(alpha_bar.shape)}.")
    if not (alpha_bar[0] < 1 and alpha_bar[-1] > 0 and bool((alpha_bar.diff() < 0).all())):
        raise ValueError("alpha_bar must fall strictly from below 1 to above 0: each step adds some noise.")
    return alpha_bar


def check_betas(T: object, beta_start: object, beta_end: object) -> int:
    """Return T of a linear schedule as an int."""
    if not 0 < check_number("beta_start", beta_start) <= check_number("beta_end", beta_end) < 1:
        raise ValueError(f"0 < beta_start <= beta_end < 1 must hold, not beta_start = {beta_start}, beta_end = {beta_end}.")
    return check_integer("T", T, 2, MAX_T)


def check_noising(name: str, x: Any, eps: Any, t: Any, T: int) -> None:
    """x and eps (B, ...) floating, of one shape; t (B,) timesteps."""
    check_floating(name, x)
    check_floating("eps", eps)
    if x.shape != eps.shape or not isinstance(t, Tensor) or t.shape != x.shape[:1]:
        raise ValueError(f"{name} and eps must share one shape (B, ...) and t be a tensor (B,), "
                         f"not {tuple(x.shape)}, {tuple(eps.shape)} and {shown(t)}.")
    check_timesteps(t, T)


def check_skip(t: object, skip: object, T: int) -> None:
    check_integer("skip", skip, 1, T - 1, f" for T = {T}")
    check_timesteps(t, T, "of any shape", whole=True)


def check_grid(T: object, steps: object, spacing: object, spacings: Iterable[str], alpha_bar: object) -> tuple[int, int]:
    """Return T and steps of a time grid as ints."""
    T = check_integer("T", T, 1, MAX_T)
    steps = check_integer("steps", steps, 1, T, f" for T = {T}")
    check_name("spacing", spacing, spacings)
    if alpha_bar is not None and (not isinstance(alpha_bar, Tensor) or alpha_bar.shape != (T,)):
        raise ValueError(f"alpha_bar must be a tensor ({T},), as a schedule of T = {T} has it, not {shown(alpha_bar)}.")
    if spacing == "logsnr" and alpha_bar is None:
        raise ValueError("the logsnr grid depends on the schedule: call schedule.timesteps(steps, 'logsnr').")
    return T, steps


def check_question(x: Any, t: Any, T: int, shape: tuple[int, ...] | None = None) -> None:
    """The arguments of a denoiser: x (B, ...) floating, t (B,) timesteps. shape: of one x."""
    check_floating("x", x, empty=True)
    check_timesteps(t, T, like=x)
    if shape is not None and x.shape[1:] != shape:
        raise ValueError(f"x must be ({', '.join(map(str, ('B', *shape)))}), not {tuple(x.shape)}.")


def check_covariance(mean: object, covariance: object, schedule: object) -> tuple[Tensor, Tensor]:
    """Return mean, D numbers of any shape, and covariance, (D,) or (D, D), as float64."""
    check_schedule(schedule)
    mean, covariance = check_numbers("mean", mean), check_numbers("covariance", covariance)
    d = mean.numel()
    if not d or tuple(covariance.shape) not in ((d,), (d, d)):
        raise ValueError(f"covariance must be ({d},) or ({d}, {d}) for a mean of {d} numbers, at least one, "
                         f"not {tuple(covariance.shape)}.")
    if covariance.ndim == 2 and not covariance.allclose(covariance.T):
        raise ValueError(f"covariance must be symmetric; it differs from its transpose by {(covariance - covariance.T).abs().max():.3g}.")
    return mean, covariance


def check_eigenvalues(eigenvalues: Tensor) -> Tensor:
    """Return the eigenvalues (D,) of a covariance; rounding may leave them just below 0."""
    if eigenvalues.min() < -1e-8 * eigenvalues.abs().max():
        raise ValueError(f"covariance has the negative eigenvalue {eigenvalues.min():.3g}; the covariance of data has none.")
    return eigenvalues


def check_data(x: Any) -> None:
    """Data points (N, D, ...), at least 2: uint8, or floating and finite."""
    if not isinstance(x, Tensor) or x.dtype != torch.uint8:
        check_floating("x", x, "(N, D, ...)")
        check_finite("x", x)
    if len(x) < 2:
        raise ValueError(f"a covariance needs at least 2 data points, not {len(x)}.")


def check_mixture(means: object, std: object, weights: object, labels: Any, schedule: object) -> tuple[Tensor, Tensor, Tensor]:
    """Return means (K, D), std () or (K,) and weights (K,) as float64; equal weights for None."""
    check_schedule(schedule)
    means, std = check_numbers("means", means), check_numbers("std", std, low=0)
    if means.ndim != 2 or not means.numel():
        raise ValueError(f"means must be (K, D) with K and D at least 1, not {tuple(means.shape)}.")
    k = len(means)
    if tuple(std.shape) not in ((), (k,)):
        raise ValueError(f"std must be one number or {k} of them, one a component, not of shape {tuple(std.shape)}.")
    weights = torch.ones(k, dtype=torch.float64) if weights is None else check_numbers("weights", weights)
    if weights.shape != (k,) or not bool((weights > 0).all()):
        raise ValueError(f"weights must be {k} numbers above 0, one a component.")
    if labels is not None and labels.shape != (k,):
        raise ValueError(f"labels must be {k} numbers, one a component, not of shape {tuple(labels.shape)}.")
    return means, std, weights


def check_labels(label: Tensor, classes: Tensor | None) -> Tensor:
    """Return the class of each component (K,) on the device of label (B,), whose values must be among them, or -1 (NO_LABEL)."""
    if classes is None:
        raise ValueError("this mixture was made without labels; pass labels=..., the class of each component.")
    classes = classes.to(label.device)
    if label.device.type == "cpu" and not bool(((label == -1) | torch.isin(label, classes)).all()):
        raise ValueError(f"labels must be among {classes.unique().tolist()}, or -1 for none, not {label.unique().tolist()}.")
    return classes


def check_scale(denoiser: object, scale: object) -> Tensor:
    """Return the scale of `Shrunk`, one number or (T,), as float64."""
    check_denoiser(denoiser)
    scale = check_numbers("scale", scale)
    if scale.ndim > 1 or not scale.numel():
        raise ValueError(f"scale must be one finite number or a vector (T,) of them, not of shape {tuple(scale.shape)}.")
    return scale


def check_guidance(label: Any, weight: Any) -> tuple[Tensor, float]:
    """Return label, one integer or (B,), as a tensor, and the weight of guidance as a float."""
    label, weight = torch.as_tensor(label), float(weight)
    if label.ndim > 1 or label.is_floating_point():
        raise ValueError(f"label must be one whole number or (B,) of them, not {shown(label)}.")
    if not math.isfinite(weight):
        raise ValueError(f"weight must be finite, not {weight}.")
    return label, weight


def check_label_count(label: Tensor, x: Tensor) -> None:
    if label.ndim and len(label) != len(x):
        raise ValueError(f"{len(label)} labels cannot go with {len(x)} images; give one label for all, or one an image.")


def check_guided_shrinkage(schedule: object, label_dropout: Any, skip: object, tau: object) -> None:
    check_shrinkage(schedule, skip, tau, "expected", ("expected",))
    if not 0 < label_dropout <= 1 or tau == 0:
        raise ValueError(f"label_dropout must lie in (0, 1] and tau above 0, not {label_dropout!r} and {tau!r}.")


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
    if closed and reading == "output":
        raise ValueError("the output reading has no closed-form shrinkage; independent, expected and shared have.")


def check_weighting(t: object, schedule: Any, weighting: object, weightings: Iterable[str]) -> None:
    check_name("weighting", weighting, weightings)
    check_timesteps(t, check_schedule(schedule))


def check_unet_config(config: Any) -> None:
    """The fields of a UNetConfig."""
    check_types(config)
    channels, levels = config.channels, len(config.channels)
    if levels > 8 or max(channels, default=0) > 4096 or max(config.image_size, config.image_channels) > 4096:
        raise ValueError(f"a network has at most 8 levels, 4096 channels and pictures of 4096×4096; it cannot be as large as channels "
                         f"{shown(channels)}, image_size {config.image_size}, image_channels {config.image_channels}.")
    if not channels or min(channels) < 1:
        raise ValueError(f"channels must name at least one positive width, not {channels}.")
    if channels[0] < 4 or channels[0] % 2:
        raise ValueError(f"the first of channels must be even and at least 4, not {channels[0]}: t enters as that many sines and cosines.")
    if min(config.image_size, config.image_channels, config.norm_groups) < 1:
        raise ValueError(f"image_size, image_channels and norm_groups must be at least 1, "
                         f"not {config.image_size}, {config.image_channels} and {config.norm_groups}.")
    if config.dimensions not in (1, 2):
        raise ValueError(f"dimensions must be 1 (signals) or 2 (pictures), not {config.dimensions!r}.")
    if any(c % config.norm_groups for c in channels):
        raise ValueError(f"channels {channels} must all be multiples of norm_groups = {config.norm_groups}.")
    if config.image_size % 2 ** (levels - 1):
        raise ValueError(f"image_size {config.image_size} cannot be halved {levels - 1} times, once for each "
                         f"level after the first; it must be a multiple of {2 ** (levels - 1)}.")
    if any(not 0 <= level < levels for level in config.attention_levels):
        raise ValueError(f"attention_levels {config.attention_levels} must lie in 0..{levels - 1}.")
    if not 1 <= config.blocks_per_level <= 16 or not 0 <= config.dropout < 1:
        raise ValueError(f"blocks_per_level must lie in 1..16 and dropout in [0, 1), not {config.blocks_per_level} and {config.dropout}.")
    if config.classes < 0:
        raise ValueError(f"classes must be at least 0, not {config.classes}.")


def check_unet_input(x: Any, t: Any, label: Any, config: Any) -> None:
    """x (B, *config.shape) floating, t (B,), label (B,) int64 in -1 (NO_LABEL)..classes−1, or None."""
    check_floating("x", x, "(B, ...)", empty=True)
    if tuple(x.shape[1:]) != config.shape:
        raise ValueError(f"x must be a batch of {'×'.join(map(str, config.shape))} {'images' if config.dimensions == 2 else 'signals'}, "
                         f"(B, {', '.join(map(str, config.shape))}), not {tuple(x.shape)}.")
    if not isinstance(t, Tensor) or t.shape != x.shape[:1] or t.is_complex():
        raise ValueError(f"t must hold one timestep an image, shape ({x.shape[0]},), not {shown(t)}.")
    if label is None:
        return
    if not isinstance(label, Tensor) or label.shape != x.shape[:1] or label.dtype != torch.int64:
        raise ValueError(f"label must hold one int64 number an image, shape ({x.shape[0]},), not {shown(label)}.")
    if not config.classes:
        raise ValueError("this network was made without classes, so it takes no label; see UNetConfig.classes.")
    if label.device.type == "cpu" and not bool(((label >= -1) & (label < config.classes)).all()):
        raise ValueError(f"labels must be 0..{config.classes - 1}, or -1 for none, not {label.unique().tolist()}.")


def check_walk(denoiser: object, x_T: Any, schedule: object, sampler: Any, samplers: dict[str, Any], eta: object,
               generator: object) -> None:
    """The arguments of a sampler; network, x_T and generators must share a device, as far as that shows before the first call."""
    check_name("sampler", sampler, samplers)
    check_denoiser(denoiser)
    check_floating("x_T", x_T, empty=True)
    check_schedule(schedule)
    if check_number("eta", eta, 0, 1) and not samplers[sampler].takes_eta:
        raise ValueError(f"eta = {eta} has no meaning for {sampler}; it belongs to DDIM.")
    weight = next(denoiser.parameters(), None) if isinstance(denoiser, nn.Module) else None
    if weight is not None and weight.device != x_T.device:
        raise ValueError(f"x_T is on {x_T.device} but the denoiser's weights are on {weight.device}; move one of them with .to(...).")
    if isinstance(generator, list) and len(generator) != len(x_T):
        raise ValueError(f"a list of generators needs one an image: {len(generator)} for the {len(x_T)} images of x_T.")
    for g in generator if isinstance(generator, list) else [generator]:
        check_generator(g)
        if g is not None and g.device.type != x_T.device.type:  # one made for "cuda" may serve any cuda:i
            raise ValueError(f"generator is on {g.device} but x_T on {x_T.device}; make it with "
                             f"torch.Generator(device={x_T.device.type!r}).")


def check_ends(a: Any, b: Any, weight: Any, directions: bool = False) -> None:
    """Two points (...) of one shape and type, and weights (N,) between them. directions: neither may be zero."""
    check_floating("a", a, "(...)")
    check_floating("b", b, "(...)")
    check_floating("weight", weight, "(N,)")
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(f"a and b must be of one shape and type, not {shown(a)} and {shown(b)}.")
    check_finite("a, b and weight", a, b, weight)
    if directions and not (a.double().norm() > 0 and b.double().norm() > 0):
        raise ValueError("slerp needs two vectors that are not zero: a zero vector has no direction.")


def check_interpolation(a: object, frames: object, way: object, ways: Iterable[str]) -> int:
    """Return the number of frames, at least the two ends, as an int."""
    check_name("way", way, ways)
    check_floating("a", a, "(...)")
    return check_integer("frames", frames, 2, MAX_FRAMES)


def check_inversion(denoiser: object, x0: Any, schedule: object, refinements: object) -> None:
    check_denoiser(denoiser)
    check_floating("x0", x0)
    check_finite("x0", x0)
    check_schedule(schedule)
    check_integer("refinements", refinements, 0, MAX_REFINEMENTS)


def check_inverted(x: Tensor, t: int) -> None:
    if not bool(x.isfinite().all()):
        raise ValueError(f"the inversion left the finite numbers at t = {t}; take more steps or fewer refinements.")
