"""diffusers both ways: its `UNet2DModel` as a denoiser here, and a network from here as a `DDPMPipeline` folder there.

    denoiser = as_denoiser(DDPMPipeline.from_pretrained("google/ddpm-cifar10-32").unet)
    save_pipeline(model, schedule, "folder")     # DDPMPipeline.from_pretrained("folder") loads it
    model, schedule = load_pipeline("folder")
    shrunk = shrink_pipeline(pipeline, 1 / 1.017)  # any pipeline of a UNet2DModel, its ε multiplied when sampling; no training

`UNet` and `UNet2DModel` give their parameters the same names, so only the configuration needs translating. diffusers is
imported here and nowhere else in the package: `pip install diffusers`.
"""
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, DiffusionPipeline, UNet2DModel
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

from .denoisers import Shrunk
from .schedule import NoiseSchedule
from .unet import UNet, UNetConfig


class DiffusersDenoiser(nn.Module):
    """eps = denoiser(x, t) for a `UNet2DModel`, at the precision of its weights; x (B, C, H, W), t (B,), eps like x."""

    def __init__(self, model: UNet2DModel):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
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


def to_diffusers(model: UNet) -> UNet2DModel:
    """The same network as a `UNet2DModel`, in eval mode, with float32 copies of the weights; outputs agree to rounding.

    Raises ValueError for a network of signals: `UNet2DModel` has none along one dimension.
    """
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


def save_pipeline(model: UNet, schedule: NoiseSchedule, folder: Path | str) -> None:
    """Write a folder that `DDPMPipeline.from_pretrained(folder)` loads: the network and the schedule it was trained with.

    The weights are safetensors. A network that takes labels travels too, but diffusers' `DDPMPipeline` itself has no way to name one,
    and draws nothing with it. The scheduler samples as `ddpm` does here: small variance, x̂_0 not clipped. β is written in
    full, and `load_pipeline` restores ᾱ_t to 1e-12; diffusers itself computes with β rounded to float32, ᾱ_t to about 1e-8.
    """
    alpha_bar = schedule.alpha_bar.cpu()
    beta = 1 - alpha_bar / torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    scheduler = DDPMScheduler(num_train_timesteps=schedule.T, trained_betas=beta.tolist(), clip_sample=False)
    DDPMPipeline(unet=to_diffusers(model), scheduler=scheduler).save_pretrained(folder, safe_serialization=True)


def load_pipeline(folder: Path | str) -> tuple[UNet, NoiseSchedule]:
    """Network and schedule of a `DDPMPipeline` folder, from `save_pipeline` or from elsewhere; never asks the network for it.

    Only safetensors are read, nothing is unpickled. Raises ValueError for an architecture that `UNet` does not have and for
    a scheduler whose network does not predict ε; OSError for a folder that holds no pipeline.
    """
    if not (Path(folder) / "model_index.json").is_file():
        raise FileNotFoundError(f"{folder} holds no diffusers pipeline: it has no model_index.json.")
    pipeline = DDPMPipeline.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    config = pipeline.scheduler.config
    if config.prediction_type != "epsilon":
        raise ValueError(f"the pipeline's network predicts {config.prediction_type!r}; the samplers here need one that predicts 'epsilon'.")
    beta = pipeline.scheduler.betas if config.trained_betas is None else config.trained_betas  # the first are rounded to float32
    return from_diffusers(pipeline.unet), NoiseSchedule(torch.cumprod(1 - torch.as_tensor(beta, dtype=torch.float64), 0))
