"""Scenes of one coloured shape on a plain ground: a data set without a download, and the factors of a scene, read from its pixels."""
import math

import torch
from torch import Tensor

from ..support.checks import check_integer, check_pixels, check_seed, require
from .images import Images

SHAPES = ("disc", "square", "triangle", "cross")
# Factor → smallest and largest value. radius, x and y in units of half the width, hue in turns of the colour circle, background a grey.
SHAPE_FACTORS = {"hue": (0.0, 1.0), "radius": (0.3, 0.6), "x": (-0.35, 0.35), "y": (-0.35, 0.35), "background": (0.25, 0.75)}
PHASES = torch.tensor([0.0, 1 / 3, 2 / 3])  # hues at which red, green and blue are brightest
MAX_SIZE, MAX_BYTES = 2048, 4 << 30  # of a scene's side, of all scenes


def shapes(n: int = 5_000, size: int = 32, seed: int = 0) -> Images:
    """Draw n scenes, pixels (n, 3, size, size) uint8, from factors (n,) float32: `shape` (0..3, see SHAPES) and those of SHAPE_FACTORS.

    Factors are uniform and independent; labels are the shape. The same (n, size, seed) gives the same pixels, and the factors do not
    depend on size. Raises ValueError for a size outside 8..2048 and for more than 4 GiB of pixels.
    """
    n, size = check_integer("n", n, 0), check_integer("size", size, 8, MAX_SIZE)
    require(3 * n * size**2 <= MAX_BYTES,
            f"n = {n:,} scenes of {size}×{size} take {3 * n * size**2 / 2**30:,.0f} GiB; the limit is {MAX_BYTES >> 30}")
    u = torch.rand(n, 6, generator=torch.Generator().manual_seed(check_seed(seed)))
    factors = {"shape": (u[:, 0] * len(SHAPES)).floor().clamp(max=len(SHAPES) - 1)}
    factors |= {name: low + (high - low) * u[:, i] for i, (name, (low, high)) in enumerate(SHAPE_FACTORS.items(), 1)}
    some = max(500 * 32**2 // size**2, 1)  # scenes at a time: intermediate results stay small beside the pixels
    pixels = torch.cat([draw_shapes({k: v[i:i + some] for k, v in factors.items()}, size) for i in range(0, max(n, 1), some)])
    return Images(f"shapes{size}", pixels, factors["shape"].long(), SHAPES, factors)


def draw_shapes(factors: dict[str, Tensor], size: int = 32) -> Tensor:
    """Draw one scene per row of factors, each (n,), named as in `shapes`. Returns (n, 3, size, size) uint8."""
    axis = _pixel_centres(size)
    column = {name: value.float()[:, None, None] for name, value in factors.items()}  # (n, 1, 1)
    dx, dy = axis[None, None, :] - column["x"], axis[None, :, None] - column["y"]  # (n, 1, size), (n, size, 1)
    r, kind = column["radius"], column["shape"]
    # Signed distance to each outline, negative inside; all four have about the same area.
    far, near = torch.maximum(dx.abs(), dy.abs()), torch.minimum(dx.abs(), dy.abs())
    disc = (dx.square() + dy.square()).sqrt() - r
    square = far - 0.89 * r
    triangle = torch.maximum(math.sqrt(0.75) * dx.abs() - 0.5 * dy, dy) - 0.64 * r
    cross = torch.maximum(near - 0.34 * r, far - 1.15 * r)
    distance = torch.where(kind == 0, disc, torch.where(kind == 1, square, torch.where(kind == 2, triangle, cross)))  # (n, size, size)
    cover = (0.5 - distance * size / 2).clamp(0, 1)[:, None]  # share of the pixel inside: edges are smooth
    # Three cosines a third of a circle apart: all hues are equally bright, and no two meet at a hard boundary.
    colour = 0.5 + 0.45 * torch.cos(2 * math.pi * (column["hue"][:, None] - PHASES[None, :, None, None]))  # (n, 3, 1, 1)
    return ((cover * colour + (1 - cover) * column["background"][:, None]) * 255).round().to(torch.uint8)


def read_factors(pixels: Tensor) -> dict[str, Tensor]:
    """The factors of scenes drawn by `draw_shapes`, estimated from pixels (N, 3, S, S) uint8: (N,) float32 each, shape int64.

    Background: median of the border. Colour: mean of the 5 % of pixels that differ most from the background. Cover: position of each
    pixel between the two. Radius: of a disc with the area of the cover; place: its centre of mass. Shape: the nearest one when drawn with
    these factors. Meaningless for empty scenes. Raises ValueError for pixels that are not square.
    """
    check_pixels("pixels", pixels)
    height, size = pixels.shape[2:]
    require(height == size, f"pixels must be square, as `shapes` draws them, not {height} by {size}")
    x, axis = pixels.float() / 255, _pixel_centres(size)
    border = torch.cat([x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1]], dim=2).mean(1)  # (N, 4·S)
    background = border.median(dim=1).values  # (N,)
    off = (x - background[:, None, None, None]).flatten(2)  # (N, 3, S·S)
    far = off.norm(dim=1).topk(max(off.shape[2] // 20, 1), dim=1).indices  # (N, k)
    colour = off.gather(2, far[:, None].expand(-1, 3, -1)).mean(2)  # relative to the background, (N, 3)
    cover = (torch.einsum("nci,nc->ni", off, colour) / colour.square().sum(1, keepdim=True).clamp(min=1e-6)).clamp(0, 1)  # (N, S·S)
    weight = cover.unflatten(1, (size, size)) / cover.sum(1).clamp(min=1e-6)[:, None, None]
    turn = 2 * math.pi * PHASES
    hue = torch.atan2(colour @ turn.sin(), colour @ turn.cos()) / (2 * math.pi) % 1
    factors = {"hue": hue, "radius": (4 * cover.mean(1) / math.pi).sqrt(), "background": background,
               "x": (weight.sum(1) * axis).sum(1), "y": (weight.sum(2) * axis).sum(1)}
    drawn = torch.stack([draw_shapes(factors | {"shape": torch.full_like(hue, kind)}, size) for kind in range(len(SHAPES))])
    factors["shape"] = (drawn.float() - pixels.float()).square().flatten(2).mean(2).argmin(0)
    return factors


def _pixel_centres(size: int) -> Tensor:
    """Positions along an axis of the scene, −1..1, (size,)."""
    return (torch.arange(size) + 0.5) / size * 2 - 1
