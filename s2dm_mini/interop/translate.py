"""Translation between `UNet` and diffusers' `UNet2DModel`."""
from copy import deepcopy

from diffusers import UNet2DModel

from ..support.checks import require
from ..unet import UNet, UNetConfig
from .network import DiffusersDenoiser

# Settings of `UNet2DModel` that are fixed in `UNet`: DDPM's padding and time embedding, one attention head, no later additions.
FIXED = {
    "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6, "attention_head_dim": None,
    "act_fn": "silu", "time_embedding_type": "positional", "time_embedding_dim": None, "center_input_sample": False,
    "mid_block_type": "UNetMidBlock2D", "mid_block_scale_factor": 1, "add_attention": True, "attn_norm_num_groups": None,
    "downsample_type": "conv", "upsample_type": "conv", "resnet_time_scale_shift": "default", "class_embed_type": None,
}


def _settings(config: UNetConfig) -> dict:
    """The settings of the `UNet2DModel` that computes the same as a `UNet` of this configuration."""
    down = tuple("AttnDownBlock2D" if level in config.attention_levels else "DownBlock2D" for level in range(len(config.channels)))
    return FIXED | {
        "sample_size": config.image_size, "in_channels": config.image_channels, "out_channels": config.image_channels,
        "block_out_channels": config.channels, "layers_per_block": config.blocks_per_level, "down_block_types": down,
        "up_block_types": tuple(block.replace("Down", "Up") for block in reversed(down)), "norm_num_groups": config.norm_groups,
        "dropout": config.dropout, "num_class_embeds": config.classes + 1 if config.classes else None,
    }


def to_diffusers(model: UNet | DiffusersDenoiser) -> UNet2DModel:
    """The same network as a `UNet2DModel` in eval mode, with float32 copies of the weights; outputs agree to rounding.

    Raises ValueError for a network of signals, since `UNet2DModel` has two dimensions.
    """
    if isinstance(model, DiffusersDenoiser):
        return deepcopy(model.model).eval()
    require(model.config.dimensions == 2, f"diffusers' UNet2DModel is for pictures; this network is for signals {model.config.shape}")
    copy = UNet2DModel(**_settings(model.config))
    copy.load_state_dict(model.state_dict())
    return copy.to(model.conv_in.weight.device).eval()


def from_diffusers(model: UNet2DModel) -> UNet:
    """A `UNet2DModel` of DDPM's architecture as a `UNet` in eval mode, with float32 copies of the weights.

    The last class embedding stands for no label, as in `to_diffusers`. Raises ValueError, naming the setting, for another architecture.
    """
    theirs = model.config
    require(isinstance(theirs.sample_size, int),
            f"the diffusers network has sample_size = {theirs.sample_size!r}; `UNet` needs the side of a square image")
    config = UNetConfig(
        image_size=theirs.sample_size, image_channels=theirs.in_channels, channels=tuple(theirs.block_out_channels),
        blocks_per_level=theirs.layers_per_block, norm_groups=theirs.norm_num_groups, dropout=theirs.dropout,
        classes=theirs.num_class_embeds - 1 if theirs.num_class_embeds else 0,
        attention_levels=tuple(i for i, block in enumerate(theirs.down_block_types) if block == "AttnDownBlock2D"),
    )
    for name, value in _settings(config).items():
        found = tuple(theirs[name]) if isinstance(value, tuple) else theirs[name]
        require(found == value, f"the diffusers network has {name} = {found!r}, where `UNet` is built with {value!r}; "
                "`as_denoiser` takes the network as it is")
    copy = UNet(config)
    copy.load_state_dict(model.state_dict())
    return copy.to(model.device).eval()
