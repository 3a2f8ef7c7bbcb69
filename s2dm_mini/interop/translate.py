"""Translation between `UNet` and diffusers' `UNet2DModel`."""
from copy import deepcopy

from diffusers import UNet2DModel

from ..unet import UNet, UNetConfig
from .network import DiffusersDenoiser


def to_diffusers(model: UNet | DiffusersDenoiser) -> UNet2DModel:
    """The same network as a `UNet2DModel` in eval mode, with float32 copies of the weights; outputs agree to rounding.

    Raises ValueError for a network of signals, since `UNet2DModel` has two dimensions.
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
    """A `UNet2DModel` of DDPM's architecture as a `UNet` in eval mode, with float32 copies of the weights.

    The last class embedding stands for no label, as in `to_diffusers`. Raises ValueError, naming the setting, for another architecture.
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


# Settings of `UNet2DModel` that are fixed in `UNet`: DDPM's padding and time embedding, one attention head, no later additions.
FIXED = {
    "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6, "attention_head_dim": None,
    "act_fn": "silu", "time_embedding_type": "positional", "time_embedding_dim": None, "center_input_sample": False,
    "mid_block_type": "UNetMidBlock2D", "mid_block_scale_factor": 1, "add_attention": True, "attn_norm_num_groups": None,
    "downsample_type": "conv", "upsample_type": "conv", "resnet_time_scale_shift": "default",
    "class_embed_type": None,
}
