"""The setting of a strip, and the shipped networks that it can show."""
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
from ..support.checks import check_name, check_types, shown
from ..support.machine import best_device

SCHEDULE = NoiseSchedule.linear()
HOW = ("closed form", "trained")


@dataclass(frozen=True)
class Setting:
    """Everything that a strip depends on. An end is a seed (its noise is drawn) or a picture (PNG bytes, encoded by inversion)."""

    family: str = "nano, cifar10"  # see `families`
    first: int | bytes = 0
    second: int | bytes = 1
    way: str = "slerp"
    frames: int = 8
    skip: int = 9
    tau: float = 0.99
    how: str = "closed form"  # or "trained": the nearest network of the zoo
    sampler: str = "ddim"
    steps: int = 10
    spacing: str = "quadratic"
    eta: float = 0.0
    amplify: int = 8  # of the difference row

    def __post_init__(self):
        def need(good: bool, name: str, limit: str) -> None:
            if not good:
                raise ValueError(f"{name} must be {limit}, not {shown(getattr(self, name))}.")

        for name in ("first", "second"):
            end = getattr(self, name)
            seed = isinstance(end, int) and not isinstance(end, bool) and 0 <= end < 2**31
            need(isinstance(end, bytes) or seed, name, "a seed from 0 to 2,147,483,647 or a picture")
        check_types(self)
        for name, values in (("way", WAYS), ("how", HOW), ("sampler", SAMPLERS), ("spacing", SPACINGS)):
            check_name(name, getattr(self, name), values)
        for name, low, high in (("frames", 3, 12), ("skip", 1, 99), ("steps", 1, 100), ("amplify", 1, 64)):
            need(low <= getattr(self, name) <= high, name, f"a whole number from {low} to {high}")
        need(0.5 <= self.tau <= 1, "tau", "between 0.5 and 1")
        need(0 <= self.eta <= 1, "eta", "between 0 and 1")
        if self.eta and not SAMPLERS[self.sampler].takes_eta:
            object.__setattr__(self, "eta", 0.0)  # the slider keeps its place while another sampler is tried

    @property
    def evaluations(self) -> int:
        """Network evaluations an image (NFE)."""
        return SAMPLERS[self.sampler].nfe(len(grid(self)))


@dataclass(frozen=True)
class Trained:
    """A network of the zoo, as far as its manifest tells."""

    name: str
    skip: int
    tau: float
    image_size: int


def families() -> dict[str, list[Trained]]:
    """Networks that can be compared, one preset on one data set each: "nano, cifar10" → its networks.

    A family needs an L_0 network (τ = 1), which comes first; it may hold any number of S²-DM networks.
    Raises CheckpointError if the manifest is damaged.
    """
    found: dict[str, list[Trained]] = {}
    try:
        for name, entry in sorted(zoo().items()):
            if entry["unet"].get("dimensions", 2) != 2 or entry["unet"].get("classes"):  # signals, and twins of L_0 that know classes
                continue
            config = entry["record"]["config"]
            network = Trained(name, config["skip"], config["tau"], entry["unet"]["image_size"])
            found.setdefault(f"{config['preset']}, {config['data']}", []).append(network)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the manifest of shipped networks, manifest.json, is damaged ({type(error).__name__}: {error}). "
                              "Restore it with `git checkout -- data/checkpoints`.") from error
    found = {family: sorted(networks, key=lambda network: network.tau != 1) for family, networks in sorted(found.items())}
    return {family: networks for family, networks in found.items() if networks[0].tau == 1}


def family(setting: Setting) -> list[Trained]:
    """The networks of the setting's family, L_0 first. Raises CheckpointError, naming the known ones."""
    known = families()
    if setting.family not in known:
        raise CheckpointError(f"no shipped network belongs to {setting.family!r}. Known: {'; '.join(known) or 'none'}.")
    return known[setting.family]


def nearest(setting: Setting) -> Trained:
    """The shipped network whose training asked for the shrinkage s_t most like that of (skip, τ).

    "Like" is the largest |Δs_t| over t, so that τ = 1 finds L_0 at any skip, and settings that act alike are near each other.
    """
    wanted = shrinkage(SCHEDULE, setting.skip, setting.tau)
    return min(family(setting), key=lambda it: (shrinkage(SCHEDULE, it.skip, it.tau) - wanted).abs().max().item())


@lru_cache(maxsize=8)
def network(name: str) -> Denoiser:
    return load_pretrained(name, best_device())


def s2dm(setting: Setting) -> tuple[Denoiser, str]:
    """The S²-DM denoiser of the setting, and where it comes from in words."""
    l0 = family(setting)[0].name
    if setting.how == "closed form":
        return Shrunk(network(l0), shrinkage(SCHEDULE, setting.skip, setting.tau)), f"closed form: s_t times {l0}"
    found = nearest(setting)
    kind = "L₀" if found.tau == 1 else f"skip {found.skip}, τ {found.tau:g}"
    return network(found.name), f"trained, nearest: {found.name} ({kind})"


def grid(setting: Setting) -> Tensor:
    """The timesteps that the sampler visits, falling, (steps,) int64; repeats that rounding makes are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the picture says how many steps there are
        return SCHEDULE.timesteps(setting.steps, setting.spacing)
