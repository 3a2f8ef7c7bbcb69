"""diffusers both ways: its `UNet2DModel` as a denoiser here, and a network from here as a `DDPMPipeline` folder there.

    denoiser = as_denoiser(DDPMPipeline.from_pretrained("google/ddpm-cifar10-32").unet)
    save_pipeline(model, schedule, "folder")     # DDPMPipeline.from_pretrained("folder") loads it
    model, schedule = load_pipeline("folder")
    shrunk = shrink_pipeline(pipeline, 1 / 1.017)  # any pipeline of a UNet2DModel, its ε multiplied when sampling; no training

To fine-tune a pipeline's network with S²-DM, of whatever architecture, and to give the result back to diffusers:

    python -m s2dm_mini train --preset diffusers --start google/ddpm-cifar10-32 --images 100000 --evaluate 10 --out runs/tuned
    python -m s2dm_mini export runs/tuned/model.safetensors runs/tuned/pipeline

`UNet` and `UNet2DModel` give their parameters the same names, so only the configuration needs translating. Other architectures stay
diffusers' own code, in a `DiffusersDenoiser`; checkpoints then hold diffusers' configuration in the place of ours. diffusers is
imported here and nowhere else in the package: `pip install diffusers`. Folders are read as data: safetensors and bounded JSON, by the
names that `save_pretrained` gives them; nothing is unpickled, and no class is looked up by a name in a file.
"""
import inspect
import json
import warnings
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from diffusers import DDPMPipeline, DDPMScheduler, DiffusionPipeline, UNet2DModel
from diffusers.models.unets.unet_2d import UNet2DOutput
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .arguments import check_integer, check_numbers, shown
from .checkpoints import MAX_HEADER
from .denoisers import Shrunk
from .schedule import MAX_T, NoiseSchedule
from .unet import UNet, UNetConfig

SETTINGS = tuple(inspect.signature(UNet2DModel.__init__).parameters)[1:]  # what its configuration may name, without `self`
MAX_PARAMETERS = 130_000_000  # the state of a training takes 16 bytes for each, and checkpoints.MAX_BYTES limits it
CONFIGS = ("unet/config.json", "config.json", "scheduler/scheduler_config.json", "scheduler_config.json")  # old pipelines have no folders
WEIGHTS = "diffusion_pytorch_model.safetensors"
# What attention's parameters are called in files that old releases of diffusers wrote.
RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


@dataclass(frozen=True)
class DiffusersConfig:
    """The configuration of a `UNet2DModel`, with the answers that the package expects of a `UNetConfig`."""

    settings: dict  # by diffusers' names, see SETTINGS
    dimensions: ClassVar[int] = 2
    classes: ClassVar[int] = 0

    @property
    def image_size(self) -> int:
        return self.settings["sample_size"]

    @property
    def image_channels(self) -> int:
        return self.settings["in_channels"]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.image_channels, self.image_size, self.image_size

    @property
    def dropout(self) -> float:
        return self.settings["dropout"]

    def to_dict(self) -> dict:
        return {"_class_name": "UNet2DModel", **self.settings}


class DiffusersDenoiser(nn.Module):
    """eps = denoiser(x, t) for a `UNet2DModel`, at the precision of its weights; x (B, C, H, W), t (B,), eps like x."""

    def __init__(self, model: UNet2DModel):
        super().__init__()
        self.model = model

    @property
    def config(self) -> DiffusersConfig:
        return DiffusersConfig({name: self.model.config[name] for name in SETTINGS})

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        config = self.model.config
        if x.ndim != 4 or x.shape[1] != config.in_channels:
            raise ValueError(f"x must be a batch of pictures (B, {config.in_channels}, H, W), not {tuple(x.shape)}.")
        if config.time_embedding_type == "learned" and t.is_floating_point():
            raise ValueError("this network has learnt a vector for each whole timestep and has none between them; use another sampler.")
        return self.model(x.to(self.model.dtype), t).sample.to(x.dtype)


def as_denoiser(model: UNet2DModel) -> DiffusersDenoiser:
    """A diffusers network for the samplers, losses and latents of this package.

    It must predict the noise ε, without class labels. Raises ValueError for a network whose inputs or outputs show otherwise;
    whether it predicts ε or something else its scheduler's `prediction_type` says, not the network.
    """
    config = model.config
    if config.out_channels != config.in_channels:
        raise ValueError(f"the network takes {config.in_channels} channels and returns {config.out_channels}; a denoiser must return "
                         "one ε a number of x. Networks that also predict a variance are not supported.")
    if config.class_embed_type is not None or config.num_class_embeds is not None:
        raise ValueError("the network wants class labels, which a denoiser (x, t) has not; wrap it in a function that supplies them, or "
                         "take it over by `from_diffusers`, which gives one that draws with labels and without.")
    return DiffusersDenoiser(model)


class ShrunkUNet2D(nn.Module):
    """A `UNet2DModel` whose ε is multiplied by s_t, with what diffusers' pipelines ask of a network: config, dtype, device."""

    def __init__(self, model: UNet2DModel, scale: Tensor | float):
        super().__init__()
        self.model, self.shrunk = model, Shrunk(as_denoiser(model), scale)

    @property
    def config(self):
        return self.model.config

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def device(self) -> torch.device:
        return self.model.device

    def forward(self, sample: Tensor, timestep: Tensor | float, return_dict: bool = True) -> UNet2DOutput | tuple[Tensor]:
        """sample (B, C, H, W); timestep one number or (B,)."""
        eps = self.shrunk(sample, torch.as_tensor(timestep, device=sample.device).expand(len(sample)))
        return UNet2DOutput(sample=eps) if return_dict else (eps,)


def shrink_pipeline(pipeline: DiffusionPipeline, scale: Tensor | float) -> DiffusionPipeline:
    """The same pipeline (DDPM, DDIM, PNDM …) with the ε of its `UNet2DModel` multiplied by `scale`; weights are shared, not copied.

    scale as for `Shrunk`: `losses.shrinkage(schedule, skip, tau)` for what S²-DM trains towards, 1/λ for Epsilon Scaling, `scales.line`
    for what `tune` has found; (T,) numbers need the T of the pipeline's scheduler. Shrink last: the result samples, but does not save.
    Raises ValueError for a pipeline without such a network, and for one that predicts something else than ε.
    """
    network, scheduler = pipeline.components.get("unet"), pipeline.components.get("scheduler")
    if not isinstance(network, UNet2DModel):
        raise ValueError(f"the pipeline's unet is {type(network).__name__}; it must be a UNet2DModel (unconditional, in pixels).")
    if scheduler.config.prediction_type != "epsilon":
        raise ValueError(f"the pipeline's network predicts {scheduler.config.prediction_type!r}; s_t multiplies a predicted 'epsilon'.")
    scale, T = torch.as_tensor(scale), scheduler.config.num_train_timesteps
    if scale.ndim and len(scale) != T:
        raise ValueError(f"scale has {len(scale)} numbers, but the pipeline's network was trained with T = {T} timesteps.")
    return type(pipeline)(**{**pipeline.components, "unet": ShrunkUNet2D(network, scale)})


def without_weights(settings: dict) -> DiffusersDenoiser:
    """The network that a configuration of diffusers describes, on the device `meta`: shapes only, no memory.

    Raises ValueError for a configuration of another class, for settings without sense or bounds, for a network that is no denoiser
    (see `as_denoiser`), and for one that does not take square pictures of its `sample_size` at timesteps t.
    """
    model = _model_without_weights(settings)
    size = check_integer("sample_size", model.config.sample_size, 1, 4096, ", the side of a square picture")
    if model.config.time_embedding_type == "fourier":
        raise ValueError("the network is told a noise level σ (time_embedding_type = 'fourier') and not a timestep t.")
    denoiser = as_denoiser(model)
    try:
        with torch.device("meta"), torch.no_grad():
            eps = denoiser(torch.empty(1, *denoiser.config.shape), torch.zeros(1, dtype=torch.int64))
    except Exception as error:  # diffusers checks little beforehand: what does not fit together fails anywhere in it
        raise ValueError(f"the network cannot be run on pictures of {size}×{size}: {_reason(error)}") from error
    if eps.shape[1:] != denoiser.config.shape:
        raise ValueError(f"the network answers pictures of {size}×{size} with {tuple(eps.shape[2:])}.")
    return denoiser


def _model_without_weights(settings: dict) -> UNet2DModel:
    if settings.get("_class_name") != "UNet2DModel":
        raise ValueError(f"the network is a {shown(settings.get('_class_name'))}; it must be a 'UNet2DModel' (unconditional, in pixels).")
    settings = {name: value for name, value in settings.items() if not name.startswith("_")}  # diffusers' own remarks
    for name, value in settings.items():
        if name not in SETTINGS:
            raise ValueError(f"the network has a setting {shown(name)}, which the UNet2DModel of the installed diffusers has not.")
        if not _is_bounded(value) or (name == "layers_per_block" and not (isinstance(value, int) and 1 <= value <= 16)):
            raise ValueError(f"the network has {name} = {shown(value)}, which is no setting of a network of sensible size.")
    try:
        with torch.device("meta"):
            model = UNet2DModel(**settings)
    except Exception as error:  # as above
        raise ValueError(f"diffusers cannot build the network: {_reason(error)}") from error
    if next(model.buffers(), None) is not None:
        raise ValueError("the network has blocks with constants that a file of its weights does not hold (such as KDownBlock2D).")
    return model


def _is_bounded(value: object) -> bool:
    """A setting as diffusers has them: a flag, a name, a number, or up to eight of these, one a level."""
    if isinstance(value, list | tuple):
        return len(value) <= 8 and not any(isinstance(part, list | tuple) for part in value) and all(map(_is_bounded, value))
    return value is None or isinstance(value, bool | str) or (isinstance(value, int | float) and abs(value) <= MAX_T)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}, {' '.join(str(error).split())[:300]}"


def to_diffusers(model: UNet | DiffusersDenoiser) -> UNet2DModel:
    """The same network as a `UNet2DModel`, in eval mode, with float32 copies of the weights; outputs agree to rounding.

    Raises ValueError for a network of signals: `UNet2DModel` has none along one dimension.
    """
    if isinstance(model, DiffusersDenoiser):
        return deepcopy(model.model).eval()
    config = model.config
    if config.dimensions != 2:
        raise ValueError(f"diffusers' UNet2DModel is for pictures; this network is for signals {config.shape}.")
    attends = [level in config.attention_levels for level in range(len(config.channels))]
    copy = UNet2DModel(
        sample_size=config.image_size, in_channels=config.image_channels, out_channels=config.image_channels,
        block_out_channels=config.channels, layers_per_block=config.blocks_per_level,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        norm_num_groups=config.norm_groups, dropout=config.dropout,
        num_class_embeds=config.classes + 1 if config.classes else None, **FIXED,
    )
    copy.load_state_dict(model.state_dict())
    return copy.to(model.conv_in.weight.device).eval()


def from_diffusers(model: UNet2DModel) -> UNet:
    """A `UNet2DModel` of DDPM's architecture as a `UNet`, in eval mode, with float32 copies of the weights.

    Of class embeddings the last is taken for that of no label, as `to_diffusers` writes them. Raises ValueError, naming the
    setting, for an architecture that `UNet` does not have.
    """
    config = model.config
    wanted = FIXED | {"out_channels": config.in_channels, "up_block_types": tuple(
        block.replace("Down", "Up") for block in reversed(config.down_block_types))}
    for name, value in wanted.items():
        found = tuple(config[name]) if isinstance(value, tuple) else config[name]
        if found != value:
            raise ValueError(f"the diffusers network has {name} = {found!r}, where `UNet` is built with {value!r}.")
    unknown = set(config.down_block_types) - {"DownBlock2D", "AttnDownBlock2D"}
    if unknown:
        raise ValueError(f"the diffusers network has blocks of the kind {min(unknown)}; `UNet` has DownBlock2D and AttnDownBlock2D.")
    if not isinstance(config.sample_size, int):
        raise ValueError(f"the diffusers network has sample_size = {config.sample_size!r}; `UNet` needs the side of a square image.")
    copy = UNet(UNetConfig(
        image_size=config.sample_size, image_channels=config.in_channels, channels=tuple(config.block_out_channels),
        blocks_per_level=config.layers_per_block, norm_groups=config.norm_num_groups, dropout=config.dropout,
        classes=config.num_class_embeds - 1 if config.num_class_embeds else 0,
        attention_levels=tuple(i for i, block in enumerate(config.down_block_types) if block == "AttnDownBlock2D"),
    ))
    copy.load_state_dict(model.state_dict())
    return copy.to(model.device).eval()


# What `UNet` has no choice about, in diffusers' words: DDPM's padding, time embedding, one head, and none of the later additions.
FIXED = {
    "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6, "attention_head_dim": None,
    "act_fn": "silu", "time_embedding_type": "positional", "time_embedding_dim": None, "center_input_sample": False,
    "mid_block_type": "UNetMidBlock2D", "mid_block_scale_factor": 1, "add_attention": True, "attn_norm_num_groups": None,
    "downsample_type": "conv", "upsample_type": "conv", "resnet_time_scale_shift": "default",
    "class_embed_type": None,
}


def open_pipeline(name: str, T: int = 1000) -> tuple[DiffusersDenoiser, NoiseSchedule]:
    """Network and schedule of a pipeline or of a network alone, by the folder that `save_pretrained` wrote or by its name on the hub.

    Any `UNet2DModel` that predicts ε, in float32, in eval mode and without gradients. A network alone is taken to be of DDPM's linear
    schedule of T timesteps, with a warning. A name that is no folder here is asked of the hub: what is read of it is fetched into the
    cache of huggingface_hub, and no more. Raises ValueError for a network or a schedule that the package cannot train with,
    FileNotFoundError for what is not there.
    """
    folder = _on_this_machine(name, CONFIGS)
    denoiser, schedule = without_weights(_settings(folder)), _schedule(folder)
    if schedule is None:
        warnings.warn(f"{name} has no scheduler: it is taken to be of DDPM's linear schedule of T = {T} timesteps.", stacklevel=2)
        schedule = NoiseSchedule.linear(T)
    config, parameters = denoiser.model.config, sum(p.numel() for p in denoiser.parameters())
    if parameters > MAX_PARAMETERS:
        raise ValueError(f"{name} has {parameters:,} parameters; at most {MAX_PARAMETERS:,} can be trained and saved here.")
    if config.time_embedding_type == "learned" and config.num_train_timesteps < schedule.T:
        raise ValueError(f"{name} knows {config.num_train_timesteps} timesteps, but its schedule has T = {schedule.T}.")
    _fill(denoiser.model, _on_this_machine(name, (f"unet/{WEIGHTS}", WEIGHTS)))
    denoiser.requires_grad_(False)
    return denoiser.to(memory_format=torch.channels_last).eval(), schedule


def _on_this_machine(name: str, files: tuple[str, ...]) -> Path:
    """The folder of that name, or one with these files of a repository of the hub."""
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except (OSError, ValueError) as error:  # HTTP, names that cannot be one, no network
        reason = str(error).partition("\n")[0]
        raise FileNotFoundError(f"{name} is no folder here, and the Hugging Face hub did not give it either ({reason}). "
                                f"Without a network, name the folder of a pipeline that `save_pretrained` wrote.") from error


def _unet_folder(folder: Path) -> Path:
    return folder / "unet" if (folder / "unet").is_dir() else folder


def _settings(folder: Path) -> dict:
    path = _unet_folder(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no network of diffusers: it has neither unet/config.json nor config.json. "
                                f"A network that was trained here goes by its file, such as runs/x/model.safetensors.")
    return _read_json(path)


def _read_json(path: Path) -> dict:
    try:
        if path.stat().st_size > MAX_HEADER:
            raise ValueError(f"{path.stat().st_size:,} bytes, at most {MAX_HEADER:,} are possible")
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no names in it")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no configuration of diffusers ({error}).") from error
    return content


def _fill(model: UNet2DModel, folder: Path) -> None:
    """Put the weights of a folder into a network without weights, as float32."""
    path = _unet_folder(folder) / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. Weights are read from safetensors only, since other files can run code; "
                                f"`save_pretrained` writes them.")
    try:
        tensors = {name: tensor.to(torch.float32, copy=True) for name, tensor in load_file(path).items()}  # not a view of the file
        for old, new in RENAMED.items():
            tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
        model.load_state_dict(tensors, assign=True)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold the weights that its config.json describes: {_reason(error)}") from error


def _schedule(folder: Path) -> NoiseSchedule | None:
    """The schedule of a pipeline's scheduler; None where there is none."""
    path = next((folder / name for name in CONFIGS if name.endswith("scheduler_config.json") and (folder / name).is_file()), None)
    if path is None:
        return None
    config = _read_json(path)
    predicts = config.get("prediction_type", "epsilon" if config.get("predict_epsilon", True) else "sample")  # the second in old ones
    if predicts != "epsilon":
        raise ValueError(f"the pipeline's network predicts {shown(predicts)}; losses and samplers here need one that predicts 'epsilon'.")
    if not {"num_train_timesteps", "beta_schedule"} <= config.keys() or config.get("rescale_betas_zero_snr"):
        raise ValueError(f"the pipeline's scheduler, {shown(config.get('_class_name'))}, has no β_t between 0 and 1 at timesteps 0..T−1.")
    T, kind = check_integer("num_train_timesteps", config["num_train_timesteps"], 2, MAX_T), config["beta_schedule"]
    beta, ends = config.get("trained_betas"), {name: config[name] for name in ("beta_start", "beta_end") if name in config}
    if beta is None and kind == "linear":
        return NoiseSchedule.linear(T, **ends)  # diffusers rounds it to float32
    if beta is None:
        try:
            beta = DDPMScheduler(T, beta_schedule=kind, **ends).betas
        # NotImplementedError is diffusers' word for a beta_schedule that it has not heard of.
        except (NotImplementedError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"diffusers does not know the pipeline's schedule {shown(kind)}: {_reason(error)}") from error
    return NoiseSchedule(torch.cumprod(1 - check_numbers("trained_betas", beta), 0))


def save_pipeline(model: UNet | DiffusersDenoiser, schedule: NoiseSchedule, folder: Path | str) -> None:
    """Write a folder that `DDPMPipeline.from_pretrained(folder)` loads: the network and the schedule it was trained with.

    The weights are safetensors. A network that takes labels travels too, but diffusers' `DDPMPipeline` itself has no way to name one,
    and draws nothing with it. The scheduler samples as `ddpm` does here: small variance, x̂_0 not clipped. β is written in
    full, and `load_pipeline` restores ᾱ_t to 1e-12; diffusers itself computes with β rounded to float32, ᾱ_t to about 1e-8.
    Raises OSError for a folder that cannot be written.
    """
    alpha_bar = schedule.alpha_bar.cpu()
    beta = 1 - alpha_bar / torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    scheduler = DDPMScheduler(num_train_timesteps=schedule.T, trained_betas=beta.tolist(), clip_sample=False)
    pipeline = DDPMPipeline(unet=to_diffusers(model), scheduler=scheduler)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)  # diffusers writes nothing, and does not say so, where a file is in the way
        pipeline.save_pretrained(folder, safe_serialization=True)
    except (OSError, SafetensorError) as error:
        raise OSError(f"the folder {folder} cannot be written ({error}); make room or permit it, or name another place.") from error


def load_pipeline(folder: Path | str) -> tuple[UNet, NoiseSchedule]:
    """Network and schedule of a `DDPMPipeline` folder, from `save_pipeline` or from elsewhere; never asks the network for it.

    Only safetensors are read, nothing is unpickled. Raises ValueError for an architecture that `UNet` does not have and for
    a scheduler whose network does not predict ε; OSError for a folder that holds no pipeline.
    """
    folder = Path(folder)
    model, schedule = _model_without_weights(_settings(folder)), _schedule(folder)
    if schedule is None:
        raise FileNotFoundError(f"{folder} holds no diffusers pipeline: it has no scheduler.")
    _fill(model, folder)
    return from_diffusers(model), schedule
