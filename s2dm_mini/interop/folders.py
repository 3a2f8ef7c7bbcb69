"""Pipelines of diffusers on disk: read as data, written for `DDPMPipeline.from_pretrained`."""
import json
import warnings
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..schedule import MAX_T, NoiseSchedule
from ..support.checks import check_integer, check_numbers, shown
from ..support.files import MAX_HEADER
from ..unet import UNet
from .network import DiffusersDenoiser, _model_without_weights, _reason, without_weights
from .translate import from_diffusers, to_diffusers

MAX_PARAMETERS = 130_000_000  # the state of a training takes 16 bytes for each, and checkpoints.MAX_BYTES limits it
CONFIGS = ("unet/config.json", "config.json", "scheduler/scheduler_config.json", "scheduler_config.json")  # old pipelines have no folders
WEIGHTS = "diffusion_pytorch_model.safetensors"
# What attention's parameters are called in files that old releases of diffusers wrote.
RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


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
