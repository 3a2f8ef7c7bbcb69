"""Pipelines of diffusers on disk: read as untrusted data, written for `DDPMPipeline.from_pretrained`."""
import json
import os
import warnings
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from huggingface_hub import constants, snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..schedule import MAX_T, NoiseSchedule
from ..support.checks import check_integer, check_numbers, require, shown
from ..support.files import MAX_HEADER, reason
from ..support.network import answers
from ..unet import UNet
from .network import DiffusersDenoiser, to_diffusers, without_weights

MAX_PARAMETERS = 130_000_000  # a training state takes 16 bytes for each, and checkpoints.MAX_BYTES limits it
# Files of a pipeline; old ones have no folders.
NETWORKS = ("unet/config.json", "config.json")
SCHEDULERS = ("scheduler/scheduler_config.json", "scheduler_config.json")
WEIGHTS = ("unet/diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors")
# Parameters of attention as old releases of diffusers named them.
RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def open_pipeline(name: str, T: int = 1000) -> tuple[DiffusersDenoiser, NoiseSchedule]:
    """Network and schedule of a pipeline, or of a network alone, from a folder by `save_pretrained` or from the Hugging Face hub.

    The network, any `UNet2DModel` that predicts ε, is in float32, in eval mode and without gradients. A network alone gets DDPM's linear
    schedule of T timesteps, with a warning. From the hub only the files that are read are fetched, into the cache of huggingface_hub.
    Raises ValueError for a network or a schedule that this package cannot train, FileNotFoundError for missing files.
    """
    folder = _local(name, NETWORKS + SCHEDULERS)
    network, scheduler = _find(folder, NETWORKS), _find(folder, SCHEDULERS)
    if network is None:
        raise FileNotFoundError(f"{folder} holds no network of diffusers: it has neither unet/config.json nor config.json. "
                                f"Name a network that was trained here by its file, such as runs/x/model.safetensors.")
    denoiser = without_weights(_read_json(network))
    if scheduler is None:
        warnings.warn(f"{name} has no scheduler: it is taken to be of DDPM's linear schedule of T = {T} timesteps.", stacklevel=2)
    schedule = _schedule(_read_json(scheduler)) if scheduler else NoiseSchedule.linear(T)
    config, parameters = denoiser.model.config, sum(p.numel() for p in denoiser.parameters())
    require(parameters <= MAX_PARAMETERS,
            f"{name} has {parameters:,} parameters; at most {MAX_PARAMETERS:,} can be trained and saved here")
    require(config.time_embedding_type != "learned" or config.num_train_timesteps >= schedule.T,
            f"{name} knows {config.num_train_timesteps} timesteps, but its schedule has T = {schedule.T}")
    _fill(denoiser.model, _local(name, WEIGHTS))
    return denoiser.requires_grad_(False).to(memory_format=torch.channels_last).eval(), schedule


def _local(name: str, files: tuple[str, ...]) -> Path:
    """The folder of that name, or a folder with these files of a hub repository."""
    if os.path.isdir(name):  # False also for impossible names
        return Path(name)
    try:
        return Path(snapshot_download(name, allow_patterns=list(files), local_files_only=not answers(constants.ENDPOINT)))
    except (OSError, ValueError) as error:  # HTTP errors, impossible names, no network
        first_line = str(error).partition("\n")[0]
        raise FileNotFoundError(f"{name} is no folder here, and the Hugging Face hub cannot supply it ({first_line}). "
                                f"Without a network, name the folder of a pipeline that `save_pretrained` wrote.") from error


def _find(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_json(path: Path) -> dict:
    try:
        require(path.stat().st_size <= MAX_HEADER, f"{path.stat().st_size:,} bytes, at most {MAX_HEADER:,} are possible")
        content = json.loads(path.read_bytes())
        require(isinstance(content, dict), "no names in it")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no configuration of diffusers ({error})") from error
    return content


def _fill(model: UNet2DModel, folder: Path) -> None:
    """Load the weights of a folder, as float32, into a network without weights."""
    path = _find(folder, WEIGHTS)
    if path is None:
        raise FileNotFoundError(f"{WEIGHTS[1]} is missing in {folder}. Weights are read from safetensors only, since other files can run "
                                f"code; `save_pretrained` writes them.")
    try:
        tensors = {name: tensor.to(torch.float32, copy=True) for name, tensor in load_file(path).items()}  # not a view of the file
        for old, new in RENAMED.items():
            tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
        model.load_state_dict(tensors, assign=True)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold the weights that its config.json describes: {reason(error)}") from error


def _schedule(config: dict) -> NoiseSchedule:
    """The schedule of a scheduler's configuration."""
    predicts = config.get("prediction_type", "epsilon" if config.get("predict_epsilon", True) else "sample")  # the second in old ones
    require(predicts == "epsilon", f"the pipeline's network predicts {shown(predicts)}; losses and samplers here need an 'epsilon'")
    require({"num_train_timesteps", "beta_schedule"} <= config.keys() and not config.get("rescale_betas_zero_snr"),
            f"the pipeline's scheduler, {shown(config.get('_class_name'))}, has no β_t between 0 and 1 at timesteps 0..T−1")
    T, kind = check_integer("num_train_timesteps", config["num_train_timesteps"], 2, MAX_T), config["beta_schedule"]
    beta, ends = config.get("trained_betas"), {name: config[name] for name in ("beta_start", "beta_end") if name in config}
    if beta is None and kind == "linear":
        return NoiseSchedule.linear(T, **ends)  # in float64; diffusers rounds it to float32
    if beta is None:
        try:
            beta = DDPMScheduler(T, beta_schedule=kind, **ends).betas
        except (NotImplementedError, TypeError, ValueError, RuntimeError) as error:  # the first for an unknown beta_schedule
            raise ValueError(f"diffusers does not know the pipeline's schedule {shown(kind)}: {reason(error)}") from error
    return NoiseSchedule(torch.cumprod(1 - check_numbers("trained_betas", beta), 0))


def save_pipeline(model: UNet | DiffusersDenoiser, schedule: NoiseSchedule, folder: Path | str) -> None:
    """Write a folder that `DDPMPipeline.from_pretrained(folder)` loads: a network and the schedule it was trained with.

    The scheduler samples as `ddpm` does here: small variance, x̂_0 not clipped. `open_pipeline` restores ᾱ_t to 1e-12; diffusers rounds β_t
    to float32, and ᾱ_t to about 1e-8. A network with labels is saved too, but `DDPMPipeline` cannot pass it a label.
    Raises OSError for a folder that cannot be written.
    """
    alpha_bar = schedule.alpha_bar.cpu()
    beta = 1 - alpha_bar / torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    scheduler = DDPMScheduler(num_train_timesteps=schedule.T, trained_betas=beta.tolist(), clip_sample=False)
    pipeline = DDPMPipeline(unet=to_diffusers(model), scheduler=scheduler)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)  # where a file is in the way, diffusers silently writes nothing
        pipeline.save_pretrained(folder, safe_serialization=True)
    except (OSError, SafetensorError) as error:
        raise OSError(f"the folder {folder} cannot be written ({error}); make room or permit it, or name another place.") from error
