"""The setting of a strip, in one line to share, and the shipped networks that can draw it."""
import warnings
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from urllib.parse import parse_qsl, urlencode

from torch import Tensor

from ..checkpoints import CheckpointError, load_pretrained, zoo
from ..denoisers import Denoiser, Shrunk
from ..latents import WAYS
from ..losses import shrinkage
from ..samplers import SAMPLERS
from ..schedule import SPACINGS, NoiseSchedule
from ..support.checks import check_integer, check_kind, check_name, check_number, check_types, shown
from ..support.machine import best_device

SCHEDULE = NoiseSchedule.linear()
HOW = ("closed form", "trained")
LAST_SEED = 2**31 - 1
LIMITS = {"frames": (3, 12), "skip": (1, 99), "tau": (0.5, 1.0), "steps": (1, 100), "eta": (0.0, 1.0)}  # of a Setting and its controls


@dataclass(frozen=True)
class Setting:
    """Everything that a strip depends on. Raises ValueError for values out of range.

    Each end, `first` and `second`, is a seed, from which noise is drawn, or PNG bytes of a picture, which inversion encodes as noise.
    """

    family: str = "nano, cifar10"  # see `families`
    first: int | bytes = 0
    second: int | bytes = 1
    way: str = "slerp"
    frames: int = 8
    skip: int = 49
    tau: float = 0.99
    how: str = "closed form"  # or "trained": the nearest shipped network
    sampler: str = "ddim"
    steps: int = 10
    spacing: str = "quadratic"
    eta: float = 0.0

    def __post_init__(self):
        for name in ("first", "second"):
            if not isinstance(getattr(self, name), bytes):
                check_integer(name, getattr(self, name), 0, LAST_SEED, why=" (a seed), or a picture as PNG bytes")
        check_types(self)
        for name, known in (("way", WAYS), ("how", HOW), ("sampler", SAMPLERS), ("spacing", SPACINGS)):
            check_name(name, getattr(self, name), known)
        for name, (low, high) in LIMITS.items():
            (check_integer if isinstance(low, int) else check_number)(name, getattr(self, name), low, high)
        if self.eta and not SAMPLERS[self.sampler].takes_eta:
            object.__setattr__(self, "eta", 0.0)  # the slider of η keeps its place while other samplers are tried

    @property
    def evaluations(self) -> int:
        """Network evaluations per image (NFE)."""
        return SAMPLERS[self.sampler].nfe(len(grid(self)))


def changed(setting: Setting, new: dict) -> Setting:
    """The setting with new values of some fields, {name: value}. Raises ValueError for unknown names and values out of range."""
    for name in new:
        check_name("a keyword of the explorer", name, [field.name for field in fields(Setting)])
    return replace(setting, **new)


def changes(setting: Setting) -> dict:
    """The fields that differ from their defaults: name → value."""
    return {field.name: value for field in fields(Setting) if (value := getattr(setting, field.name)) != field.default}


def to_query(setting: Setting) -> str:
    """The setting as the end of an address, such as skip=9&tau=0.97, without pictures: they are too long for one."""
    return urlencode({name: value for name, value in changes(setting).items() if not isinstance(value, bytes)})


def from_query(query: str) -> dict:
    """Keywords of `Setting` from the end of an address; other names in it are left alone. Raises ValueError for what is no number."""
    check_kind("query", query, str)
    kinds = {field.name: type(field.default) for field in fields(Setting)}
    try:
        return {name: kinds[name](value) for name, value in parse_qsl(query) if name in kinds}
    except ValueError as error:
        raise ValueError(f"the address ends in {shown(query)}, where a number was expected ({error}).") from error


def grid(setting: Setting) -> Tensor:
    """The timesteps that the sampler visits, falling, (at most steps,) int64: timesteps that rounding repeats appear once."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # the picture states the number of steps
        return SCHEDULE.timesteps(setting.steps, setting.spacing)


@dataclass(frozen=True)
class Trained:
    """A shipped network, as described in the manifest."""

    name: str
    skip: int
    tau: float
    image_size: int


def families() -> dict[str, list[Trained]]:
    """The shipped networks for images without classes, by preset and data set, such as "nano, cifar10"; L_0 (τ = 1) comes first.

    A family without an L_0 network is left out. Raises CheckpointError if the manifest is damaged.
    """
    found: dict[str, list[Trained]] = {}
    try:
        for name, entry in sorted(zoo().items()):
            unet, config = entry["unet"], entry["record"]["config"]
            if unet.get("dimensions", 2) == 2 and not unet.get("classes"):
                network = Trained(name, config["skip"], config["tau"], unet["image_size"])
                found.setdefault(f"{config['preset']}, {config['data']}", []).append(network)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the manifest of shipped networks, manifest.json, is damaged ({type(error).__name__}: {error}). "
                              "Restore it with `git checkout -- data/checkpoints`.") from error
    found = {family: sorted(networks, key=lambda network: network.tau != 1) for family, networks in sorted(found.items())}
    return {family: networks for family, networks in found.items() if networks[0].tau == 1}


def family(setting: Setting) -> list[Trained]:
    """The networks of the setting's family, L_0 first. Raises CheckpointError for an unknown family."""
    known = families()
    if setting.family not in known:
        raise CheckpointError(f"no shipped network belongs to {setting.family!r}. Known: {'; '.join(known) or 'none'}.")
    return known[setting.family]


def nearest(setting: Setting) -> Trained:
    """The network of the family whose shrinkage s_t differs least from that of (skip, τ), in the maximum over t.

    Hence τ = 1 finds L_0 at any skip.
    """
    wanted = shrinkage(SCHEDULE, setting.skip, setting.tau)
    return min(family(setting), key=lambda it: (shrinkage(SCHEDULE, it.skip, it.tau) - wanted).abs().max().item())


@lru_cache(maxsize=8)
def network(name: str) -> Denoiser:
    """A shipped network, kept in memory."""
    return load_pretrained(name, best_device())


def s2dm(setting: Setting, l0: Denoiser) -> tuple[Denoiser, Trained]:
    """The S²-DM denoiser of the setting, and its name, skip and τ: for a trained one those of the network, not those asked for.

    l0: the network of L_0, which the closed form scales.
    """
    if setting.how == "trained":
        found = nearest(setting)
        return network(found.name), found
    by = replace(family(setting)[0], skip=setting.skip, tau=setting.tau)
    return Shrunk(l0, shrinkage(SCHEDULE, by.skip, by.tau)), by
