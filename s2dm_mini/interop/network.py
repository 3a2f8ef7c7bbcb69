"""A `UNet2DModel` of diffusers as a denoiser, a `UNet` as a `UNet2DModel`, and a pipeline whose ε is multiplied by s_t."""
import copy
import inspect
from dataclasses import dataclass
from typing import ClassVar

import torch
from diffusers import DiffusionPipeline, UNet2DModel
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

from ..denoisers import Shrunk
from ..schedule import MAX_T
from ..support.checks import check_integer, require, shown
from ..support.files import reason
from ..unet import UNet

SETTINGS = tuple(inspect.signature(UNet2DModel.__init__).parameters)[1:]  # names in its configuration, without `self`


@dataclass(frozen=True)
class DiffusersConfig:
    """The configuration of a `UNet2DModel`, with the attributes of a `UNetConfig` that this package reads."""

    settings: dict  # by diffusers' names, see SETTINGS
    dimensions: ClassVar[int] = 2
    classes: ClassVar[int] = 0
    image_size = property(lambda self: self.settings["sample_size"])
    image_channels = property(lambda self: self.settings["in_channels"])
    dropout = property(lambda self: self.settings["dropout"])

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.image_channels, self.image_size, self.image_size

    def to_dict(self) -> dict:
        return {"_class_name": "UNet2DModel", **self.settings}


class DiffusersDenoiser(nn.Module):
    """ε = denoiser(x, t) of a `UNet2DModel`, computed in the precision of its weights. x: (B, C, H, W), t: (B,). Returns ε like x."""

    def __init__(self, model: UNet2DModel):
        super().__init__()
        self.model = model

    @property
    def config(self) -> DiffusersConfig:
        return DiffusersConfig({name: self.model.config[name] for name in SETTINGS})

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        config = self.model.config
        require(x.ndim == 4 and x.shape[1] == config.in_channels,
                f"x must be a batch of pictures (B, {config.in_channels}, H, W)", tuple(x.shape))
        require(config.time_embedding_type != "learned" or not t.is_floating_point(),
                "this network has learnt a vector for each whole timestep and has none between them; use another sampler")
        return self.model(x.to(self.model.dtype), t).sample.to(x.dtype)


def as_denoiser(model: UNet2DModel) -> DiffusersDenoiser:
    """Wrap a diffusers network for the samplers, losses and latents of this package.

    The network must predict the noise ε (its scheduler's `prediction_type`, not checked here). Raises ValueError for one that takes class
    labels or returns another number of channels than it takes.
    """
    require(isinstance(model, UNet2DModel), f"model must be a UNet2DModel, such as pipeline.unet, not a {type(model).__name__}")
    config = model.config
    require(config.out_channels == config.in_channels,
            f"the network takes {config.in_channels} channels and returns {config.out_channels}; a denoiser must return an ε like x. "
            "Networks that also predict a variance are not supported")
    require(config.class_embed_type is None and config.num_class_embeds is None,
            "the network needs class labels, which a denoiser (x, t) does not take; wrap it in a function that supplies them")
    return DiffusersDenoiser(model)


def to_diffusers(model: UNet | DiffusersDenoiser) -> UNet2DModel:
    """The same network as a `UNet2DModel` in eval mode, with float32 copies of the weights; outputs agree to rounding.

    Raises ValueError for a network of signals, since `UNet2DModel` has two dimensions.
    """
    if isinstance(model, DiffusersDenoiser):
        return copy.deepcopy(model.model).eval()
    config = model.config
    require(config.dimensions == 2, f"diffusers' UNet2DModel is for pictures; this network is for signals {config.shape}")
    down = tuple("AttnDownBlock2D" if level in config.attention_levels else "DownBlock2D" for level in range(len(config.channels)))
    theirs = UNet2DModel(
        sample_size=config.image_size, in_channels=config.image_channels, out_channels=config.image_channels,
        block_out_channels=config.channels, layers_per_block=config.blocks_per_level, down_block_types=down,
        up_block_types=tuple(block.replace("Down", "Up") for block in reversed(down)), norm_num_groups=config.norm_groups,
        dropout=config.dropout, num_class_embeds=config.classes + 1 if config.classes else None,
        downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6, attention_head_dim=None)  # DDPM's; one head
    theirs.load_state_dict(model.state_dict())
    return theirs.to(model.conv_in.weight.device).eval()


class ShrunkUNet2D(nn.Module):
    """A `UNet2DModel` whose ε is multiplied by s_t, with the attributes that diffusers' pipelines read: config, dtype, device."""

    config = property(lambda self: self.model.config)
    dtype = property(lambda self: self.model.dtype)
    device = property(lambda self: self.model.device)

    def __init__(self, model: UNet2DModel, scale: Tensor | float):
        super().__init__()
        self.model, self.shrunk = model, Shrunk(as_denoiser(model), scale)

    def forward(self, sample: Tensor, timestep: Tensor | float, return_dict: bool = True) -> UNet2DOutput | tuple[Tensor]:
        """sample: (B, C, H, W); timestep: one number or (B,)."""
        eps = self.shrunk(sample, torch.as_tensor(timestep, device=sample.device).expand(len(sample)))
        return UNet2DOutput(sample=eps) if return_dict else (eps,)


def shrink_pipeline(pipeline: DiffusionPipeline, scale: Tensor | float) -> DiffusionPipeline:
    """The same pipeline (DDPM, DDIM, PNDM …) with the ε of its `UNet2DModel` multiplied by `scale`, sharing its weights.

    scale: one number or (T,), as for `Shrunk`: `losses.shrinkage` for the optimum of S²-DM, 1/λ for Epsilon Scaling (arXiv 2308.15321),
    `scales.line` for the result of `tune`. The new pipeline samples, but cannot be saved. Raises ValueError for a pipeline without a
    `UNet2DModel` that predicts ε, and for another T.
    """
    network, scheduler = pipeline.components.get("unet"), pipeline.components.get("scheduler")
    require(isinstance(network, UNet2DModel),
            f"the pipeline's unet is {type(network).__name__}; it must be a UNet2DModel (unconditional, in pixels)")
    predicts, T = scheduler.config.prediction_type, scheduler.config.num_train_timesteps
    require(predicts == "epsilon", f"the pipeline's network predicts {predicts!r}; s_t multiplies a predicted 'epsilon'")
    scale = torch.as_tensor(scale)
    require(scale.shape in ((), (T,)), f"scale has {scale.numel()} numbers, but the pipeline's network was trained with T = {T} timesteps")
    return type(pipeline)(**{**pipeline.components, "unet": ShrunkUNet2D(network, scale)})


def without_weights(settings: dict) -> DiffusersDenoiser:
    """The network of a diffusers configuration on the device `meta`, without memory for weights.

    Raises ValueError for another class, for settings that are unknown, too large or inconsistent, for a network that is no denoiser
    (see `as_denoiser`), and for one that does not take square pictures of its `sample_size` at timesteps t.
    """
    kind = settings.get("_class_name")
    require(kind == "UNet2DModel", f"the network is a {shown(kind)}; it must be a 'UNet2DModel' (unconditional, in pixels)")
    settings = {name: value for name, value in settings.items() if not name.startswith("_")}  # diffusers' own remarks
    for name, value in settings.items():
        require(name in SETTINGS, f"the network has a setting {shown(name)}, which the installed diffusers' UNet2DModel does not have")
        require(_is_bounded(value) and (name != "layers_per_block" or isinstance(value, int) and 1 <= value <= 16),
                f"the network has {name} = {shown(value)}, which is no setting of a network of sensible size")
    try:  # diffusers checks few settings: wrong ones raise any exception anywhere
        with torch.device("meta"):
            model = UNet2DModel(**settings)
    except Exception as error:
        raise ValueError(f"diffusers cannot build the network: {reason(error)}") from error
    require(next(model.buffers(), None) is None,
            "the network has blocks with constants that a file of its weights does not hold (such as KDownBlock2D)")
    size = check_integer("sample_size", model.config.sample_size, 1, 4096, ", the side of a square picture")
    require(model.config.time_embedding_type != "fourier",
            "the network takes a noise level σ (time_embedding_type = 'fourier') and not a timestep t")
    denoiser = as_denoiser(model)
    try:
        with torch.device("meta"), torch.no_grad():
            eps = denoiser(torch.empty(1, *denoiser.config.shape), torch.zeros(1, dtype=torch.int64))
    except Exception as error:
        raise ValueError(f"the network cannot be run on pictures of {size}×{size}: {reason(error)}") from error
    require(eps.shape[1:] == denoiser.config.shape,
            f"the network returns {tuple(eps.shape[2:])} for pictures of {size}×{size}; they must be of one size")
    return denoiser


def _is_bounded(value: object) -> bool:
    """A flag, a name, a number up to MAX_T, None, or up to eight of these, one for each level."""
    if isinstance(value, list | tuple):
        return len(value) <= 8 and not any(isinstance(part, list | tuple) for part in value) and all(map(_is_bounded, value))
    return value is None or isinstance(value, bool | str) or (isinstance(value, int | float) and abs(value) <= MAX_T)
