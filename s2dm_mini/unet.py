"""The noise-prediction network: the U-Net of DDPM (Ho et al., 2020, appendix B), in five sizes for pictures and two for signals.

Picture (B, C, H, W) goes down a ladder of resolutions and back up, each rung handing its features across:

    conv_in ─► down 0 ─► down 1 ─► … ─► mid ─► … ─► up 1 ─► up 0 ─► conv_out
                 └──────────┴───── skip connections ─────┴──────────┘

Every residual block is told the timestep through an embedding of t added to its channels, and the class of the picture, in networks
that know classes, through one more vector added to that embedding. Modules and parameters carry the names of diffusers'
`UNet2DModel`, so that weights travel both ways without a translation table. Signals (B, C, L) go through the same blocks, with
convolutions along one axis: `UNetConfig.dimensions`.
"""
import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .denoisers import NO_LABEL
from .support.checks import check_floating, check_kind, check_types, shown

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d}


@dataclass(frozen=True)
class UNetConfig:
    """Shape of the network. Level i works at resolution image_size / 2^i with channels[i] feature maps."""

    image_size: int = 32
    image_channels: int = 3
    dimensions: int = 2  # axes that the convolutions run along: 2 for pictures, 1 for signals of length image_size
    channels: tuple[int, ...] = (128, 256, 256, 256)
    blocks_per_level: int = 2
    attention_levels: tuple[int, ...] = (1,)
    norm_groups: int = 32
    dropout: float = 0.1
    classes: int = 0  # that a label may name; 0: the network takes no labels

    def __post_init__(self):
        # JSON knows no tuples: a configuration read back from a checkpoint must equal the one written.
        for name in ("channels", "attention_levels"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        check_types(self)
        if len(self.channels) > 8 or max(self.channels, default=0) > 4096 or max(self.image_size, self.image_channels) > 4096:
            raise ValueError(f"a network has at most 8 levels, 4096 channels and pictures of 4096×4096; it cannot be as large as channels "
                             f"{shown(self.channels)}, image_size {self.image_size}, image_channels {self.image_channels}.")
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"channels must name at least one positive width, not {self.channels}.")
        if self.channels[0] < 4 or self.channels[0] % 2:
            raise ValueError(f"the first of channels must be even and at least 4, not {self.channels[0]}: "
                             f"t enters as that many sines and cosines.")
        if min(self.image_size, self.image_channels, self.norm_groups) < 1:
            raise ValueError(f"image_size, image_channels and norm_groups must be at least 1, "
                             f"not {self.image_size}, {self.image_channels} and {self.norm_groups}.")
        if self.dimensions not in CONVOLUTIONS:
            raise ValueError(f"dimensions must be 1 (signals) or 2 (pictures), not {self.dimensions!r}.")
        if any(c % self.norm_groups for c in self.channels):
            raise ValueError(f"channels {self.channels} must all be multiples of norm_groups = {self.norm_groups}.")
        if self.image_size % 2 ** (len(self.channels) - 1):
            raise ValueError(f"image_size {self.image_size} cannot be halved {len(self.channels) - 1} times, once for each "
                             f"level after the first; it must be a multiple of {2 ** (len(self.channels) - 1)}.")
        if any(not 0 <= level < len(self.channels) for level in self.attention_levels):
            raise ValueError(f"attention_levels {self.attention_levels} must lie in 0..{len(self.channels) - 1}.")
        if not 1 <= self.blocks_per_level <= 16 or not 0 <= self.dropout < 1:
            raise ValueError(f"blocks_per_level must lie in 1..16 and dropout in [0, 1), "
                             f"not {self.blocks_per_level} and {self.dropout}.")
        if self.classes < 0:
            raise ValueError(f"classes must be at least 0, not {self.classes}.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one x: (C, H, W), or (C, L) for signals."""
        return self.image_channels, *[self.image_size] * self.dimensions

    def to_dict(self) -> dict:
        return asdict(self)


PRESETS = {
    # One norm group in the small ones: few channels, normalised in several groups, lose the picture's mean brightness, and
    # after a short training samples come out tinted, with flat grounds black or white.
    "tiny": UNetConfig(image_size=16, channels=(16, 32, 32), blocks_per_level=1, attention_levels=(2,), norm_groups=1, dropout=0.0),
    "nano": UNetConfig(channels=(32, 64, 64, 64), blocks_per_level=1, norm_groups=1, dropout=0.0),
    "compact": UNetConfig(channels=(64, 128, 128, 160), blocks_per_level=1),
    "paper": UNetConfig(),
    "paper64": UNetConfig(image_size=64, channels=(128, 256, 256, 256, 512), attention_levels=(2,)),
    # For signals.py, along one dimension: one channel (waves), and two (paths in the plane).
    "wave": UNetConfig(image_size=64, image_channels=1, dimensions=1, channels=(16, 32, 32), blocks_per_level=1, attention_levels=(2,),
                       norm_groups=1, dropout=0.0),
    "path": UNetConfig(image_size=64, image_channels=2, dimensions=1, channels=(16, 32, 32), blocks_per_level=1, attention_levels=(2,),
                       norm_groups=1, dropout=0.0),
}


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Sines and cosines of t at dim/2 frequencies from 1 down to 1/10000 (DDPM's variant of Vaswani et al., 2017).

    t: (B,) integer or float timesteps. Returns (B, dim) float32: all sines, then all cosines.
    """
    half = dim // 2
    frequency = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half, dtype=torch.float32, device=t.device))
    angle = t.float()[:, None] * frequency  # (B, half)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class TimeEmbedding(nn.Module):
    """Two linear layers that turn the sinusoidal embedding into what the residual blocks are told."""

    def __init__(self, dim_in: int, dim_out: int):
        super().__init__()
        self.linear_1 = nn.Linear(dim_in, dim_out)
        self.linear_2 = nn.Linear(dim_out, dim_out)

    def forward(self, sinusoids: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(sinusoids)))


class ResidualBlock(nn.Module):
    """norm, SiLU, conv, + timestep, norm, SiLU, dropout, conv; added to the input (through a 1×1 conv if widths differ)."""

    def __init__(self, c_in: int, c_out: int, c_time: int, groups: int, dropout: float, dimensions: int = 2):
        super().__init__()
        conv = CONVOLUTIONS[dimensions]
        self.norm1 = nn.GroupNorm(groups, c_in, eps=1e-6)
        self.conv1 = conv(c_in, c_out, 3, padding=1)
        self.time_emb_proj = nn.Linear(c_time, c_out)
        self.norm2 = nn.GroupNorm(groups, c_out, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv(c_out, c_out, 3, padding=1)
        self.conv_shortcut = conv(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time_emb_proj(time)[:, :, *[None] * (h.ndim - 2)]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.conv_shortcut(x) + h  # (B, c_out, H, W) or (B, c_out, L)


class Attention(nn.Module):
    """One-head self-attention over all H·W (or L) positions, added to its input."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        h = rearrange(self.group_norm(x), "b c ... -> b 1 (...) c")  # one head
        h = F.scaled_dot_product_attention(self.to_q(h), self.to_k(h), self.to_v(h))
        return x + rearrange(self.to_out[0](h), "b 1 n c -> b c n").unflatten(2, x.shape[2:])


class Downsample(nn.Module):
    """Halve the resolution by a strided convolution, padded at the right and bottom edge only, as DDPM does."""

    def __init__(self, channels: int, dimensions: int = 2):
        super().__init__()
        self.conv = CONVOLUTIONS[dimensions](channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1) * (x.ndim - 2)))


class Upsample(nn.Module):
    """Double the resolution by repeating pixels, then smooth with a 3×3 convolution: both as one transposed convolution.

    The 3 pixels in a row that an output pixel looks at are repeats of 2. Adding up beforehand the weights that meet the same
    input pixel leaves 2×2 multiplications of the 3×3, and no enlarged picture to store.
    """

    def __init__(self, channels: int, dimensions: int = 2):
        super().__init__()
        self.conv = CONVOLUTIONS[dimensions](channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # In one dimension (w_0, w_1, w_2) becomes (w_2, w_1 + w_2, w_0 + w_1, w_0): in two, four times the mean of 2×2 neighbours.
        if x.ndim == 3:
            kernel = 2 * F.avg_pool1d(self.conv.weight.flip(2), 2, stride=1, padding=1)  # (c_out, c_in, 4)
            return F.conv_transpose1d(x, kernel.transpose(0, 1), self.conv.bias, stride=2, padding=1)  # (B, C, 2L)
        kernel = 4 * F.avg_pool2d(self.conv.weight.flip(2, 3), 2, stride=1, padding=1)  # (c_out, c_in, 4, 4)
        return F.conv_transpose2d(x, kernel.transpose(0, 1), self.conv.bias, stride=2, padding=1)  # (B, C, 2H, 2W)


class Level(nn.Module):
    """One rung of the ladder: residual blocks of given input widths, each followed by attention where the level has it."""

    def __init__(self, widths_in: list[int], width: int, c_time: int, groups: int, dropout: float, dimensions: int, attention: bool):
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(c_in, width, c_time, groups, dropout, dimensions) for c_in in widths_in)
        if attention:
            self.attentions = nn.ModuleList(Attention(width, groups) for _ in widths_in)
        self.attends = attention

    def block(self, i: int, x: Tensor, time: Tensor) -> Tensor:
        x = self.resnets[i](x, time)
        return self.attentions[i](x) if self.attends else x


class UNet(nn.Module):
    """ε_θ(x_t, t): predicts the noise in a noisy image (DDPM, appendix B); ε_θ(x_t, t, label) if it knows classes.

    Call with x (B, C, H, W), or (B, C, L) where config.dimensions is 1, floating and t (B,) int64 or float timesteps; returns ε like x.
    label: (B,) int64, 0..classes−1, or NO_LABEL for the prediction that takes every class for possible; without it, all are that.
    A freshly made network predicts ε = 0 everywhere, because its last convolution starts at zero.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        check_kind("config", config, UNetConfig, ", such as PRESETS['nano']")
        self.config = config
        widths, n = config.channels, config.blocks_per_level
        c_time = 4 * widths[0]
        level = {"c_time": c_time, "groups": config.norm_groups, "dropout": config.dropout, "dimensions": config.dimensions}
        conv = CONVOLUTIONS[config.dimensions]

        self.conv_in = conv(config.image_channels, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0], c_time)
        if config.classes:  # one row a class, and a last one for NO_LABEL
            self.class_embedding = nn.Embedding(config.classes + 1, c_time)

        self.down_blocks = nn.ModuleList()
        handed_across = [widths[0]]  # width of every feature map that the way up receives
        for i, width in enumerate(widths):
            c_in = widths[max(i - 1, 0)]
            down = Level([c_in] + [width] * (n - 1), width, attention=i in config.attention_levels, **level)
            handed_across += [width] * n
            if i < len(widths) - 1:
                down.downsamplers = nn.ModuleList([Downsample(width, config.dimensions)])
                handed_across.append(width)
            self.down_blocks.append(down)

        self.mid_block = Level([widths[-1]] * 2, widths[-1], attention=False, **level)
        self.mid_block.attentions = nn.ModuleList([Attention(widths[-1], config.norm_groups)])

        self.up_blocks = nn.ModuleList()
        c = widths[-1]
        for i, width in reversed(list(enumerate(widths))):
            widths_in = []
            for _ in range(n + 1):
                widths_in.append(c + handed_across.pop())
                c = width
            up = Level(widths_in, width, attention=i in config.attention_levels, **level)
            if i > 0:
                up.upsamplers = nn.ModuleList([Upsample(width, config.dimensions)])
            self.up_blocks.append(up)

        self.conv_norm_out = nn.GroupNorm(config.norm_groups, widths[0], eps=1e-6)
        self.conv_out = conv(widths[0], config.image_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)
        # On CPU and on GPUs with bf16 the convolutions run faster with the channels innermost in memory. (PyTorch knows that layout for
        # pictures only, and leaves the weights of signals as they are.)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        shape, flat = self.config.shape, self.config.dimensions == 2
        check_floating("x", x, "(B, ...)", empty=True)
        if tuple(x.shape[1:]) != shape:
            raise ValueError(f"x must be a batch of {'×'.join(map(str, shape))} {'images' if flat else 'signals'}, "
                             f"(B, {', '.join(map(str, shape))}), not {tuple(x.shape)}.")
        if not isinstance(t, Tensor) or t.shape != x.shape[:1] or t.is_complex():
            raise ValueError(f"t must hold one timestep an image, shape ({x.shape[0]},), not {shown(t)}.")
        if label is not None and (not isinstance(label, Tensor) or label.shape != x.shape[:1] or label.dtype != torch.int64):
            raise ValueError(f"label must hold one int64 number an image, shape ({x.shape[0]},), not {shown(label)}.")
        dtype = self.conv_in.weight.dtype
        time = self.time_embedding(timestep_embedding(t, self.config.channels[0]).to(dtype))  # (B, c_time)
        if self.config.classes:
            time = time + self._embed(torch.full_like(t, NO_LABEL, dtype=torch.int64) if label is None else label)
        elif label is not None:
            raise ValueError("this network was made without classes, so it takes no label; see UNetConfig.classes.")
        time = F.silu(time)

        h = self.conv_in(x.to(dtype, memory_format=torch.channels_last if flat else torch.contiguous_format))
        across = [h]
        for down in self.down_blocks:
            for i in range(len(down.resnets)):
                h = down.block(i, h, time)
                across.append(h)
            if hasattr(down, "downsamplers"):
                h = down.downsamplers[0](h)
                across.append(h)

        h = self.mid_block.resnets[0](h, time)
        h = self.mid_block.resnets[1](self.mid_block.attentions[0](h), time)

        for up in self.up_blocks:
            for i in range(len(up.resnets)):
                h = up.block(i, torch.cat([h, across.pop()], dim=1), time)
            if hasattr(up, "upsamplers"):
                h = up.upsamplers[0](h)

        eps = self.conv_out(F.silu(self.conv_norm_out(h)))
        return eps.to(x.dtype, memory_format=torch.contiguous_format)  # like x

    def _embed(self, label: Tensor) -> Tensor:
        classes = self.config.classes
        # On a GPU, looking at the values would make the host wait.
        if label.device.type == "cpu" and not bool(((label >= NO_LABEL) & (label < classes)).all()):
            raise ValueError(f"labels must be 0..{classes - 1}, or {NO_LABEL} for none, not {label.unique().tolist()}.")
        return self.class_embedding(label % (classes + 1))  # −1 is the last row

    def with_classes(self, classes: int) -> "UNet":
        """A copy ready to be taught labels, which without a label computes as this network.

        The rows of the classes are drawn at random (from torch's generator), small beside the time embedding, about 1 a number: rows
        at zero, which would change nothing at first, have nothing to tell the layers behind them apart by, and learn far more slowly.
        """
        with torch.device("meta"):  # no weights are drawn
            copied = UNet(replace(self.config, classes=classes))
        weight = self.conv_in.weight
        rows = torch.zeros(classes + 1, copied.class_embedding.embedding_dim)
        rows[:-1].normal_(std=0.3)
        copied.load_state_dict(copy.deepcopy(self.state_dict()) | {"class_embedding.weight": rows.to(weight)}, assign=True)
        return copied.train(self.training)


def for_sampling(network: nn.Module) -> Callable[..., Tensor]:
    """A copy of the network to draw many images with: called as the network is, and as fast as its device allows.

    On a GPU: bf16 weights, compiled, and recorded as a CUDA graph, which launches the several hundred kernels of a call at once;
    with few channels or a small batch the GPU would wait for each. Compiling takes up to a minute, so it pays from some thousand
    images on, in batches of one size. On a CPU, where bf16 is slower and compiling gains little, the copy computes as the network.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    if next(network.parameters()).device.type != "cuda":
        return network
    compiled = torch.compile(network.to(torch.bfloat16), mode="reduce-overhead")
    # A graph writes each answer to the same memory, and multistep samplers remember earlier answers: hence the clone.
    return lambda x, t, *label: compiled(x, t, *label).clone()
