"""Strips: what the latent explorer shows, as pure functions of a `Setting`. The widgets on top are in explorer.py.

    for view in views(Setting(skip=49)): ...  # coarse to fine, one view a sampler step; strip_pictures.py draws it

A strip has three rows: L_0, S²-DM with the same latents, and what S²-DM changes. Networks and finished rows are kept, so
that a setting seen before is there at once.
"""
import io
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .arguments import check_integer, check_name, check_pixels, check_seed, check_types, shown
from .checkpoints import CheckpointError, load_pretrained, zoo
from .data import MAX_SIZE, shapes, to_pixels, to_unit_range
from .denoisers import Shrunk
from .latents import WAYS, interpolate, invert
from .losses import Denoiser, shrinkage
from .samplers import SAMPLERS, trajectory
from .samplers.common import CLEAN
from .schedule import SPACINGS, NoiseSchedule, per_image
from .train import best_device

SCHEDULE = NoiseSchedule.linear()
HOW = ("closed form", "trained")
REFINEMENTS = 3  # of the inversion: brings the round trip of 10 steps from about 34 grey levels to 2
UPLOAD_BYTES, UPLOAD_PIXELS = 8 << 20, 40_000_000
ROWS_KEPT = 400  # of at most 12 images of 32×32: 15 MB
DIVERGED = 4.0  # pictures live in −1..1; values beyond this are none any more


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
class Row:
    """One network's strip, at some step of the sampler."""

    pixels: Tensor  # (frames, 3, S, S) uint8, x̂_0 of the step, or x_0 at the end
    times: tuple[float, ...]  # timesteps at which the network was asked
    eps_rms: tuple[float, ...]  # root mean square of its answers ε there; 1 for pure noise
    largest: float  # |x|, to see whether the sampler diverged


@dataclass(frozen=True)
class View:
    """What is seen at one moment: both rows, and how far they are."""

    setting: Setting
    step: int
    steps: int
    l0: Row
    s2dm: Row
    source: str  # where the S²-DM row comes from: the formula, or the network's name
    comparable: bool  # both rows are at the same step, so that their difference means something

    @property
    def done(self) -> bool:
        return self.step == self.steps


# --------------------------------------------------------------------------------------------- networks of the zoo

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


# ------------------------------------------------------------------------------------------------------ the ends

def grid(setting: Setting) -> Tensor:
    """The timesteps that the sampler visits, falling, (steps,) int64; repeats that rounding makes are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the picture says how many steps there are
        return SCHEDULE.timesteps(setting.steps, setting.spacing)


def latents(setting: Setting) -> Tensor:
    """The noises of the strip, (frames, 3, S, S)."""
    return interpolate(end_latent(setting.first, setting), end_latent(setting.second, setting), setting.frames, setting.way)


def end_latent(end: int | bytes, setting: Setting) -> Tensor:
    """An end's noise, (3, S, S): drawn from its seed, or found by inverting L_0's DDIM on the grid of the setting."""
    l0 = family(setting)[0]
    if isinstance(end, int):
        return torch.randn(3, l0.image_size, l0.image_size, generator=torch.Generator().manual_seed(end)).to(best_device())
    return _encoded(end, l0.name, l0.image_size, setting.steps, setting.spacing)


@lru_cache(maxsize=64)
def _encoded(end: bytes, name: str, size: int, steps: int, spacing: str) -> Tensor:
    x0 = to_unit_range(read_png(end, size))[None].to(best_device())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return invert(network(name), x0, SCHEDULE, steps, spacing, REFINEMENTS)[0]


def read_png(png: bytes, size: int) -> Tensor:
    """An end's PNG as (3, size, size) uint8. Raises ValueError, in a sentence, for bytes that are no picture."""
    size = check_integer("size", size, 1, MAX_SIZE)
    picture = _opened("png", png).resize((size, size), Image.Resampling.BOX)
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(size, size, 3).permute(2, 0, 1).contiguous()


def to_png(pixels: Tensor) -> bytes:
    """(3, H, W) uint8 → PNG bytes, which serve as an end."""
    check_pixels("pixels", pixels, "(3, H, W)")
    return _png(Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()))


def shape_picture(number: int) -> bytes:
    """One scene of `shapes`, as an end."""
    return to_png(shapes(1, 32, seed=check_seed(number, "number")).pixels[0])


def upload(name: str, content: bytes) -> bytes:
    """A user's file as an end: cut to the square in its middle, 32×32. Raises ValueError, in a sentence, for anything else."""
    return _png(ImageOps.fit(_opened(name, content), (32, 32), Image.Resampling.LANCZOS))


def _opened(name: str, content: bytes) -> Image.Image:
    if not isinstance(content, bytes):
        raise ValueError(f"the content of {name} must be the bytes of a picture file, not {shown(content)}.")
    if len(content) > UPLOAD_BYTES:
        raise ValueError(f"{name} has {len(content) / 1e6:.0f} MB; pictures of at most {UPLOAD_BYTES / 1e6:.0f} MB can be used. "
                         "Save a smaller copy: 32 × 32 pixels are enough.")
    too_many = f"{name} has more than {UPLOAD_PIXELS:,} pixels. Save a smaller copy: 32 × 32 pixels are enough."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures; they are refused below
            picture = Image.open(io.BytesIO(content))
        if picture.width * picture.height > UPLOAD_PIXELS:  # so far only the header was read
            raise ValueError(too_many)
        return ImageOps.exif_transpose(picture).convert("RGB")
    except Image.DecompressionBombError as error:
        raise ValueError(too_many) from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{name} is no picture that can be read; PNG, JPEG, GIF, BMP and WebP can.") from error


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)  # quick to write; a strip takes about 50 kB
    return file.getvalue()


# ------------------------------------------------------------------------------------------------------ the strip

class Listener:
    """A denoiser that notes how large its answers are."""

    def __init__(self, denoiser: Denoiser):
        self.denoiser, self.times, self.rms = denoiser, [], []

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        eps = self.denoiser(x, t)
        self.times.append(float(t[0]))
        self.rms.append(eps.square().mean().sqrt().item())
        return eps


_rows: OrderedDict[tuple, Row] = OrderedDict()  # finished ones, the latest used last


def forget() -> None:
    """Empty the store of finished rows, encoded pictures and loaded networks."""
    _rows.clear()
    _encoded.cache_clear()
    network.cache_clear()


def views(setting: Setting) -> Iterator[View]:
    """The strip coarse to fine, one view a sampler step. Rows seen before are there at once, whole.

    Raises CheckpointError (a network is missing or damaged) and ValueError (the sampler left the finite numbers).
    """
    l0 = network(family(setting)[0].name)
    denoiser, source = s2dm(setting)
    key = replace(setting, skip=1, tau=1.0, how="trained", amplify=1)  # what L_0's row depends on, and no more
    s2dm_key = (source, key) if setting.how == "trained" else (setting.skip, setting.tau, key)
    both_wait = key not in _rows and s2dm_key not in _rows
    steps, l0_row, s2dm_row = len(grid(setting)), None, None
    l0_run, s2dm_run = _run(key, l0, setting), _run(s2dm_key, denoiser, setting)
    for step in range(steps if key in _rows and s2dm_key in _rows else 1, steps + 1):
        l0_row, s2dm_row = next(l0_run, l0_row), next(s2dm_run, s2dm_row)
        yield View(setting, step, steps, l0_row, s2dm_row, source, comparable=both_wait or step == steps)


def _run(key: tuple | Setting, denoiser: Denoiser, setting: Setting) -> Iterator[Row]:
    """A row, step by step, kept when it is whole; or at once the one that was kept."""
    if key in _rows:
        _rows.move_to_end(key)
        yield _rows[key]
        return
    x_T, heard = latents(setting), Listener(denoiser)
    # All frames hear the same noise, so that what differs between neighbours is their place on the way.
    noise = [torch.Generator(x_T.device).manual_seed(0) for _ in x_T]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        walk = trajectory(heard, x_T, SCHEDULE, setting.sampler, setting.steps, setting.spacing, setting.eta, noise)
    for step in walk:
        done = step.t == CLEAN
        x = step.x if done else step.x0
        row = Row(to_pixels(x).cpu(), tuple(heard.times), tuple(heard.rms), x.abs().max().item())
        if done:
            _rows[key] = row
            while len(_rows) > ROWS_KEPT:
                _rows.popitem(last=False)
        yield row


def smoothness(row: Row) -> Tensor:
    """How far neighbouring frames are apart, in grey levels of 255: root mean square over pixels, (frames − 1,)."""
    return row.pixels.float().diff(dim=0).square().flatten(1).mean(dim=1).sqrt()


def complaint(view: View) -> str:
    """A sentence if what came out are no pictures, else nothing."""
    largest = max(view.l0.largest, view.s2dm.largest)
    if not view.done or largest <= DIVERGED:
        return ""
    s, reach = view.setting, f"values reach {largest:.3g}, pictures lie in −1 to 1"
    if view.l0.largest > DIVERGED:
        return f"{SAMPLERS[s.sampler].title} with {s.steps} steps diverged: {reach}; take more steps, another spacing or another sampler."
    return (f"At skip {s.skip} and τ = {s.tau:g} S²-DM predicts so little of the noise that {s.steps} steps leave most of it in: {reach}; "
            f"take τ nearer to 1, or a smaller skip.")


# --------------------------------------------------------------------------------------------- skip × τ, one latent

SKIPS = (1, 4, 9, 24, 49, 74, 99)
TAUS = (1.0, 0.999, 0.99, 0.97, 0.9, 0.75, 0.5)


class ShrunkEach:
    """Every image of a batch with a factor s_t of its own. They start from one x_T, so the first answer is asked for once."""

    def __init__(self, denoiser: Denoiser, scales: Tensor):
        self.denoiser, self.scales, self.first = denoiser, scales, True  # scales (B, T)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        eps = self.denoiser(x[:1], t[:1]).expand_as(x) if self.first else self.denoiser(x, t)
        self.first = False
        below, last = int(t[0]), self.scales.shape[1] - 1
        scale = torch.lerp(self.scales[:, below], self.scales[:, min(below + 1, last)], float(t[0]) - below)
        return per_image(scale, x) * eps


@dataclass(frozen=True)
class Plane:
    """One latent over the plane of skip and τ, at some step of the sampler."""

    setting: Setting
    step: int
    steps: int
    pixels: Tensor  # (len(TAUS)·len(SKIPS), 3, S, S) uint8, τ by τ

    @property
    def done(self) -> bool:
        return self.step == self.steps


def plane(setting: Setting) -> Iterator[Plane]:
    """The first end's picture for all of SKIPS and TAUS in closed form, coarse to fine. Raises as `views` does."""
    key = ("plane", replace(setting, skip=1, tau=1.0, how="trained", amplify=1, second=0, way="slerp", frames=3))
    steps = len(grid(setting))
    if key in _rows:
        _rows.move_to_end(key)
        yield Plane(setting, steps, steps, _rows[key].pixels)
        return
    scales = torch.stack([shrinkage(SCHEDULE, skip, tau) for tau in TAUS for skip in SKIPS]).to(best_device())  # (B, T)
    x_T = end_latent(setting.first, setting).expand(len(scales), -1, -1, -1).contiguous()
    noise = [torch.Generator(x_T.device).manual_seed(0) for _ in x_T]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        walk = trajectory(ShrunkEach(network(family(setting)[0].name), scales), x_T, SCHEDULE, setting.sampler, setting.steps,
                          setting.spacing, setting.eta, noise)
    for number, step in enumerate(walk, 1):
        x = step.x if step.t == CLEAN else step.x0
        pixels = to_pixels(x).cpu()
        if step.t == CLEAN:
            _rows[key] = Row(pixels, (), (), x.abs().max().item())
        yield Plane(setting, number, steps, pixels)


def nearest_cell(setting: Setting) -> tuple[int, int]:
    """Row and column of the plane's cell that is nearest to the setting, as `nearest` measures it."""
    wanted = shrinkage(SCHEDULE, setting.skip, setting.tau)
    column = min(range(len(SKIPS)), key=lambda j: abs(SKIPS[j] - setting.skip))
    row = min(range(len(TAUS)), key=lambda i: (shrinkage(SCHEDULE, SKIPS[column], TAUS[i]) - wanted).abs().max().item())
    return row, column
