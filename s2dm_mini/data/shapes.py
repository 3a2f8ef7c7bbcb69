"""Scenes of one coloured shape on a plain ground, drawn from known factors, and the factors read off again."""
import math

import torch
from torch import Tensor

from ..support.checks import check_integer, check_pixels, check_seed, shown
from .images import Images

SHAPES = ("disc", "square", "triangle", "cross")
MAX_SIZE, MAX_BYTES = 2048, 4 << 30  # of a scene's side, of all scenes


def shapes(n: int = 5_000, size: int = 32, seed: int = 0) -> Images:
    """Scenes of one coloured shape on a plain ground, drawn from known factors: a data set without a download.

    Factors, each (n,) float32, drawn uniformly: `shape` (0..3, see SHAPES), `hue` (0..1, around the colour circle),
    `radius` (0.3..0.6 of half the width), `x`, `y` (centre, −0.35..0.35), `background` (0.25..0.75, its grey).
    Labels are the shape. The same (n, size, seed) gives the same pixels; the factors do not depend on size.
    """
    n, size = check_integer("n", n, 0), check_integer("size", size, 8, MAX_SIZE)
    if 3 * n * size**2 > MAX_BYTES:
        raise ValueError(f"n = {n:,} scenes of {size}×{size} take {3 * n * size**2 / 2**30:,.0f} GiB; the limit is {MAX_BYTES >> 30}.")
    generator = torch.Generator().manual_seed(check_seed(seed))
    u = torch.rand(n, 6, generator=generator)  # (n, 6)
    factors = {"shape": (u[:, 0] * len(SHAPES)).floor().clamp(max=len(SHAPES) - 1), "hue": u[:, 1], "radius": 0.3 + 0.3 * u[:, 2],
               "x": 0.7 * u[:, 3] - 0.35, "y": 0.7 * u[:, 4] - 0.35, "background": 0.25 + 0.5 * u[:, 5]}
    some = max(500 * 32**2 // size**2, 1)  # at a time, so that what is calculated with stays small beside the result
    pixels = torch.cat([_draw({k: v[i:i + some] for k, v in factors.items()}, size) for i in range(0, max(n, 1), some)])
    return Images(f"shapes{size}", pixels, factors["shape"].long(), SHAPES, factors)


def draw_shapes(factors: dict[str, Tensor], size: int = 32) -> Tensor:
    """Draw one scene for each row of factors: names as in `shapes`, and ranges, but radius and place may lie outside, and hue turn on.

    Returns (n, 3, size, size) uint8.
    """
    size = check_integer("size", size, 1, MAX_SIZE)
    limits = {"shape": (0, len(SHAPES) - 1), "hue": (-100, 100), "radius": (0, 2), "x": (-2, 2), "y": (-2, 2), "background": (0, 1)}
    if not isinstance(factors, dict) or not limits.keys() <= factors.keys():
        raise ValueError(f"factors must be tensors (n,) called {', '.join(limits)}, not {shown(factors)}.")
    for name, (low, high) in limits.items():
        value = factors[name]
        if not isinstance(value, Tensor) or value.is_complex() or value.ndim != 1 or len(value) != len(factors["shape"]):
            raise ValueError(f"{name} must be a tensor (n,), one number a scene, not {shown(value)}.")
        if not bool(((value >= low) & (value <= high)).all()):
            raise ValueError(f"{name} must lie in [{low}, {high}] for every scene, not {shown(value.tolist())}.")
    return _draw(factors, size)


def _draw(factors: dict[str, Tensor], size: int) -> Tensor:
    axis = (torch.arange(size) + 0.5) / size * 2 - 1  # pixel centres, −1..1
    column = {name: value.float()[:, None, None] for name, value in factors.items()}  # (n, 1, 1)
    dx, dy = axis[None, None, :] - column["x"], axis[None, :, None] - column["y"]  # (n, 1, size), (n, size, 1)
    r, kind = column["radius"], column["shape"]
    # Signed distance to each outline, negative inside; all four have about the same area.
    far, near = torch.maximum(dx.abs(), dy.abs()), torch.minimum(dx.abs(), dy.abs())
    square = far - 0.89 * r
    slanted = torch.maximum(math.sqrt(0.75) * dx.abs() - 0.5 * dy, dy) - 0.64 * r
    arms = torch.maximum(near - 0.34 * r, far - 1.15 * r)
    disc = (dx.square() + dy.square()).sqrt() - r
    distance = torch.where(kind == 0, disc, torch.where(kind == 1, square, torch.where(kind == 2, slanted, arms)))  # (n, size, size)
    cover = (0.5 - distance * size / 2).clamp(0, 1)[:, None]  # share of the pixel inside, so that edges are smooth
    # Hue as three cosines a third of a circle apart: every hue equally bright, no hard colour boundary.
    phase = torch.tensor([0.0, 1 / 3, 2 / 3])[None, :, None, None]
    colour = 0.5 + 0.45 * torch.cos(2 * math.pi * (column["hue"][:, None] - phase))  # (n, 3, 1, 1)
    return ((cover * colour + (1 - cover) * column["background"][:, None]) * 255).round().to(torch.uint8)


FACTOR_RANGE = {"hue": 1.0, "radius": 0.3, "x": 0.7, "y": 0.7, "background": 0.5}


def read_factors(pixels: Tensor) -> dict[str, Tensor]:
    """The factors of scenes as `data.shapes` draws them, read off the pixels (N, 3, H, W) uint8; (N,) float32 each, shape int64.

    Ground: the median of the border. Colour: the mean of the twentieth of the pixels that differ most from the ground. Cover: how
    far each pixel is on the way from one to the other; its mean gives the radius, that of a disc of equal area; its centre of
    gravity the place. Shape: the one that, drawn with these factors, is nearest. Where nothing is seen, all this means nothing.
    """
    check_pixels("pixels", pixels)
    if pixels.shape[2] != pixels.shape[3]:
        raise ValueError(f"pixels must be square, as `shapes` draws them, not {pixels.shape[2]} by {pixels.shape[3]}.")
    x = pixels.float() / 255  # (N, 3, H, W)
    border = torch.cat([x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1]], dim=2).mean(1)  # (N, 2·(H + W))
    ground = border.median(dim=1).values  # (N,)
    off = (x - ground[:, None, None, None]).flatten(2)  # (N, 3, H·W)
    far = off.norm(dim=1).topk(max(off.shape[2] // 20, 1), dim=1).indices  # (N, k)
    colour = off.gather(2, far[:, None].expand(-1, 3, -1)).mean(2)  # relative to the ground, (N, 3)
    cover = (torch.einsum("nci,nc->ni", off, colour) / colour.square().sum(1, keepdim=True).clamp(min=1e-6)).clamp(0, 1)  # (N, H·W)
    size = pixels.shape[-1]
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    weight = cover.unflatten(1, (size, size)) / cover.sum(1).clamp(min=1e-6)[:, None, None]
    turn = torch.tensor([0, 1, 2]) / 3 * 2 * math.pi
    hue = torch.atan2(colour @ turn.sin(), colour @ turn.cos()) / (2 * math.pi) % 1
    factors = {"hue": hue, "radius": (4 * cover.mean(1) / math.pi).sqrt(), "background": ground,
               "x": (weight.sum(1) * axis).sum(1), "y": (weight.sum(2) * axis).sum(1)}
    drawn = torch.stack([draw_shapes(factors | {"shape": torch.full_like(hue, kind)}, size) for kind in range(len(SHAPES))])
    factors["shape"] = (drawn.float() - pixels.float()).square().flatten(2).mean(2).argmin(0)
    return factors
