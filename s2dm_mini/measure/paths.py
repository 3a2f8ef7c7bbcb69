"""Measures of interpolations: paths through feature space, their midpoints, the way back from pictures to noise, and factors of `shapes`.

A feature map is any callable features(pixels): (N, 3, H, W) uint8 → (N, D) floating, such as those of `features`. Every
measure of a path gives one number for each pair of ends, so that two models with the same ends are compared pair by pair.
"""
from collections.abc import Callable

import torch
from torch import Tensor

from ..data.images import to_pixels, to_unit_range
from ..data.shapes import SHAPE_FACTORS, read_factors
from ..denoisers import Denoiser
from ..latents import interpolate, invert
from ..samplers import sample
from ..schedule import NoiseSchedule
from ..support.checks import check_finite, check_floating, check_integer, check_number, check_pixels, check_values, require
from .errors import MeanOverPairs, jackknife_error

FeatureMap = Callable[[Tensor], Tensor]


def strips(denoiser: Denoiser, ends: Tensor, schedule: NoiseSchedule, frames: int = 7, way: str = "slerp", steps: int = 10,
           spacing: str = "quadratic") -> Tensor:
    """Draw pictures by DDIM along the paths between P pairs of noises, (P, 2, C, H, W) → (P, frames, C, H, W) uint8 on the CPU."""
    check_floating("ends", ends, "(P, 2, C, H, W)")
    check_finite("ends", ends)
    drawn = []
    for some in ends.split(8):
        x_T = torch.cat([interpolate(a, b, frames, way) for a, b in some])  # (pairs·frames, C, H, W)
        drawn.append(to_pixels(sample(denoiser, x_T, schedule, "ddim", steps, spacing)).cpu())
    return torch.cat(drawn).unflatten(0, (len(ends), frames))


def path_measures(path: Tensor) -> dict[str, Tensor]:
    """Four numbers a path, (P,) each. path: (P, F, D), the features of F frames.

    mean step, worst step: distances of neighbouring frames, in units of the features
    detour:     length of the path over the distance of its ends; 1 is straight
    unevenness: standard deviation of the steps over their mean; 0 is constant speed
    """
    check_values("path", path, "(P, F, D)")
    require(path.shape[1] >= 3, "a path must be (P, F, D) with at least 3 frames", tuple(path.shape))
    step = path.double().diff(dim=1).norm(dim=2)  # (P, F − 1)
    ends = (path[:, -1] - path[:, 0]).double().norm(dim=1)
    tiny = torch.finfo(torch.float32).tiny  # avoids 0/0 where the ends coincide or nothing moves
    return {"mean step": step.mean(1), "worst step": step.amax(1), "detour": step.sum(1) / ends.clamp(min=tiny),
            "unevenness": step.std(1, correction=0) / step.mean(1).clamp(min=tiny)}


def midpoint_excess(path: Tensor, distance: Callable[[Tensor, Tensor], float], groups: int = 10) -> MeanOverPairs:
    """How much further the midpoints are from the ends than one set of ends is from the other; 0 if midpoints are pictures like any other.

    path: (P, F, D), F odd. distance: between two sets of features, such as `metrics.frechet_distance`. With few pairs it is much too
    large, but equally so in distance(midpoints, ends) and distance(ends, ends), whose difference this is. A midpoint resembles its own
    ends, so the two sets come from different halves of the pairs; both assignments of the halves are averaged. The error is a jackknife
    over `groups` groups of pairs.
    """
    check_values("path", path, "(P, F, D)")
    require(callable(distance), "distance must be a function of two sets of features", distance)
    groups = check_integer("groups", groups, 2)
    require(path.shape[1] % 2, f"a path of {path.shape[1]} frames has none in the middle; take an odd number")
    require(len(path) >= 2 * groups, f"{len(path)} pairs are too few for {groups} groups; at least {2 * groups} are needed")

    def excess(some: Tensor) -> float:
        halves, middle = (some[0::2], some[1::2]), some.shape[1] // 2
        return sum(distance(one[:, middle], other[:, -1]) - distance(one[:, 0], other[:, -1]) for one, other in (halves, halves[::-1])) / 2

    group = torch.arange(len(path)) % groups
    return MeanOverPairs(excess(path), jackknife_error([excess(path[group != g]) for g in range(groups)]), len(path))


def round_trip(denoiser: Denoiser, pixels: Tensor, schedule: NoiseSchedule, features: FeatureMap, steps: int = 10,
               spacing: str = "quadratic", refinements: int = 0) -> dict[str, Tensor]:
    """Invert pictures (N, 3, H, W) uint8 to noise, draw them again with DDIM, and compare; one number a picture, (N,) each.

    grey levels: root mean square difference of the pixels, of 255
    fidelity:    distance in feature space, over the mean distance of two different pictures; 0 is perfect, 1 is another picture
    """
    require(callable(features), "features must be a function of pixels (N, 3, H, W)", features)
    check_pixels("pixels", pixels)
    require(len(pixels) >= 2, "fidelity is relative to the distance of two different pictures; give at least 2 pixels (N, 3, H, W), not 1")
    x_T = (invert(denoiser, to_unit_range(some), schedule, steps, spacing, refinements) for some in pixels.split(50))
    back = torch.cat([to_pixels(sample(denoiser, x, schedule, "ddim", steps, spacing)).cpu() for x in x_T])
    pixels = pixels.cpu()
    true, found = features(pixels).double(), features(back).double()
    apart = torch.pdist(true).mean()
    require(apart > 0, "all these pictures have the same features, so fidelity, relative to their mean distance 0, is undefined")
    return {"grey levels": (back.float() - pixels.float()).square().flatten(1).mean(1).sqrt(),
            "fidelity": (found - true).norm(dim=1) / apart}


def factor_measures(pixels: Tensor) -> dict[str, Tensor]:
    """Monotonicity of each factor along paths (P, F, 3, H, W) of `shapes`, one value a path, and needless changes of the shape, (P,).

    Needless changes are those beyond the one that different ends need.
    """
    check_pixels("pixels", pixels, "(P, F, 3, H, W)")
    factors = {name: value.unflatten(0, pixels.shape[:2]) for name, value in read_factors(pixels.flatten(0, 1)).items()}  # (P, F)
    found = {f"monotone {name}": monotonicity(factors[name], high - low, name == "hue") for name, (low, high) in SHAPE_FACTORS.items()}
    shape = factors["shape"]
    return found | {"needless shapes": ((shape.diff(dim=1) != 0).sum(1) - (shape[:, 0] != shape[:, -1]).long()).double()}


def monotonicity(values: Tensor, extent: float, circular: bool = False) -> Tensor:
    """Net change over summed changes, |Σδ|/Σ|δ|, of each path whose net change is at least a quarter of `extent`; 1 is monotone.

    values: (P, F), one factor along P paths. circular: values on a circle of length `extent`, such as the hue. Returns (P',).
    A random walk has about 1/√(F−1).
    """
    check_values("values", values, "(P, F)")
    require(check_number("extent", extent) > 0, "extent must be above 0", extent)
    step = values.double().diff(dim=1)  # (P, F − 1)
    if circular:
        step = (step + extent / 2) % extent - extent / 2
    net = step.sum(1).abs()
    moves = (net >= extent / 4) & (net > 0)  # extent / 4 may underflow to 0
    return net[moves] / step.abs().sum(1)[moves]
