"""The setting of a strip, and the shipped networks that can draw it."""
import warnings
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

from ..checkpoints import CheckpointError, load_pretrained, zoo
from ..denoisers import Denoiser, Shrunk
from ..latents import WAYS
from ..losses import shrinkage
from ..samplers import SAMPLERS
from ..schedule import SPACINGS, NoiseSchedule
from ..support.checks import check_integer, check_name, check_number, check_types
from ..support.machine import best_device

SCHEDULE = NoiseSchedule.linear()
HOW = ("closed form", "trained")


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
    skip: int = 9
    tau: float = 0.99
    how: str = "closed form"  # or "trained": the nearest shipped network
    sampler: str = "ddim"
    steps: int = 10
    spacing: str = "quadratic"
    eta: float = 0.0
    amplify: int = 8  # gain of the row of differences

    def __post_init__(self):
        for name in ("first", "second"):
            if not isinstance(getattr(self, name), bytes):
                check_integer(name, getattr(self, name), 0, 2**31 - 1, why=" (a seed), or a picture as PNG bytes")
        check_types(self)
        for name, known in (("way", WAYS), ("how", HOW), ("sampler", SAMPLERS), ("spacing", SPACINGS)):
            check_name(name, getattr(self, name), known)
        for name, low, high in (("frames", 3, 12), ("skip", 1, 99), ("steps", 1, 100), ("amplify", 1, 64)):
            check_integer(name, getattr(self, name), low, high)
        check_number("tau", self.tau, 0.5, 1)
        check_number("eta", self.eta, 0, 1)
        if self.eta and not SAMPLERS[self.sampler].takes_eta:
            object.__setattr__(self, "eta", 0.0)  # the slider of η keeps its place while other samplers are tried

    @property
    def evaluations(self) -> int:
        """Network evaluations per image (NFE)."""
        return SAMPLERS[self.sampler].nfe(len(grid(self)))


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


def s2dm(setting: Setting) -> tuple[Denoiser, str]:
    """The S²-DM denoiser of the setting, and its origin in words."""
    l0 = family(setting)[0].name
    if setting.how == "closed form":
        return Shrunk(network(l0), shrinkage(SCHEDULE, setting.skip, setting.tau)), f"closed form: s_t times {l0}"
    found = nearest(setting)
    kind = "L₀" if found.tau == 1 else f"skip {found.skip}, τ {found.tau:g}"
    return network(found.name), f"trained, nearest: {found.name} ({kind})"
