"""Data sets: images as uint8 tensors, signals as floating ones, points in the plane. No module here knows a network.

    images = cifar10("train")        # images.pixels (50000, 3, 32, 32) uint8, images.labels (50000,)
    images = celeba("train")         # images.pixels (162770, 3, 64, 64) uint8, mapped into memory
    images = shapes(5_000, seed=0)   # images.factors: the numbers that each scene was drawn from

Each function is in the module of its name; `data_folder` says where the files of CIFAR-10 and CelebA are looked for.
"""
from ..support.checks import check_name
from . import celeba, cifar10, shapes, signals
from .images import DataError, Images, data_folder, fingerprint, random_flip, to_pixels, to_unit_range

__all__ = ["DATA", "DataError", "Images", "data_folder", "fingerprint", "load_data", "random_flip", "to_pixels", "to_unit_range"]

# Name → channels and dimensions.
DATA = {"cifar10": (3, 2), "celeba": (3, 2), "shapes": (3, 2), "waves": (1, 1), "spirals": (2, 1)}


def load_data(name: str, size: int) -> Images:
    """The training data `name`, one of DATA, at the side (of signals: the length) `size` of a network. Raises ValueError, DataError."""
    check_name("name", name, DATA)
    makers = {"shapes": shapes.shapes, "waves": signals.waves, "spirals": signals.spirals}
    if name in makers:
        return makers[name](20_000, size)
    title, side = {"cifar10": ("CIFAR-10", 32), "celeba": ("CelebA", 64)}[name]
    if side != size:
        raise ValueError(f"{title} is {side}×{side}, but this network takes {size}×{size} images; "
                         f"use a preset for {side}×{side}, or data = shapes.")
    return cifar10.cifar10("train") if name == "cifar10" else celeba.celeba("train", size)
