"""The noise-prediction network: the U-Net of DDPM (Ho et al., 2020, appendix B), in five sizes for pictures and two for signals.

A picture (B, C, H, W) passes down through the levels and back up; each level hands its features across:

    conv_in ─► down 0 ─► down 1 ─► … ─► mid ─► … ─► up 1 ─► up 0 ─► conv_out
                 └──────────┴───── skip connections ─────┴──────────┘

Every residual block adds an embedding of t to its channels; networks with classes add one vector for the class to that embedding.
Modules and parameters carry the names of diffusers' `UNet2DModel`, so that weights move there without a translation table.
Signals (B, C, L) use the same blocks with convolutions along one axis: `UNetConfig.dimensions`.
"""
import copy
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .denoisers import NO_LABEL
from .support.checks import check_kind, check_unet_config, check_unet_input

CONVOLUTIONS, PADDINGS = {1: nn.Conv1d, 2: nn.Conv2d}, {1: nn.ZeroPad1d, 2: nn.ZeroPad2d}


@dataclass(frozen=True)
class UNetConfig:
    """Shape of the network. Level i works at resolution image_size / 2^i with channels[i] feature maps."""

    image_size: int = 32
    image_channels: int = 3
    dimensions: int = 2  # of the convolutions: 2 for pictures, 1 for signals of length image_size
    channels: tuple[int, ...] = (128, 256, 256, 256)
    blocks_per_level: int = 2
    attention_levels: tuple[int, ...] = (1,)
    norm_groups: int = 32
    dropout: float = 0.1
    classes: int = 0  # number of classes; 0: the network takes no labels

    def __post_init__(self):
        # JSON turns tuples into lists: a configuration read back from a checkpoint must equal the one written.
        for name in ("channels", "attention_levels"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        check_unet_config(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one x: (C, H, W), or (C, L) for signals."""
        return self.image_channels, *[self.image_size] * self.dimensions

    def to_dict(self) -> dict:
        return asdict(self)


PRESETS = {
    # One norm group in the small ones: several groups of few channels lose the picture's mean brightness, and after a short
    # training the samples are tinted, with flat grounds black or white.
    "tiny": UNetConfig(image_size=16, channels=(16, 32, 32), blocks_per_level=1, attention_levels=(2,), norm_groups=1, dropout=0.0),
    "nano": UNetConfig(channels=(32, 64, 64, 64), blocks_per_level=1, norm_groups=1, dropout=0.0),
    "compact": UNetConfig(channels=(64, 128, 128, 160), blocks_per_level=1),
    "paper": UNetConfig(),
    "paper64": UNetConfig(image_size=64, channels=(128, 256, 256, 256, 512), attention_levels=(2,)),
    # For data/signals.py, along one dimension: one channel (waves), and two (paths in the plane).
    **{name: UNetConfig(64, image_channels, 1, (16, 32, 32), blocks_per_level=1, attention_levels=(2,), norm_groups=1, dropout=0.0)
       for name, image_channels in (("wave", 1), ("path", 2))},
}


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Sines and cosines of t at dim/2 frequencies from 1 down to 1/10000 (DDPM's variant of Vaswani et al., 2017).

    t: (B,) integer or float timesteps. Returns (B, dim) float32: all sines, then all cosines.
    """
    half = dim // 2
    frequency = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half, dtype=torch.float32, device=t.device))
    angle = t.float()[:, None] * frequency  # (B, half)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class TimeEmbedding(nn.Sequential):
    """Two linear layers between the sinusoidal embedding and the residual blocks."""

    def __init__(self, dim_in: int, dim_out: int):
        super().__init__(OrderedDict(linear_1=nn.Linear(dim_in, dim_out), act=nn.SiLU(), linear_2=nn.Linear(dim_out, dim_out)))


class GroupNorm(nn.GroupNorm):
    """nn.GroupNorm, on a GPU written out: PyTorch's own, and its gradient, first copy a picture so that the channels are outermost."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cuda":
            return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        groups = x.unflatten(1, (self.num_groups, -1)).float()  # (B, groups, C / groups, H, W)
        variance, mean = torch.var_mean(groups, tuple(range(2, groups.ndim)), correction=0, keepdim=True)
        h = ((groups - mean) * (variance + self.eps).rsqrt()).flatten(1, 2)  # (B, C, H, W)
        weight, bias = (v.float()[:, *[None] * (x.ndim - 2)] for v in (self.weight, self.bias))
        return torch.addcmul(bias, h, weight).to(self.weight.dtype)


class ResidualBlock(nn.Module):
    """norm, SiLU, conv, + timestep, norm, SiLU, dropout, conv; added to the input (through a 1×1 conv if widths differ)."""

    def __init__(self, c_in: int, c_out: int, c_time: int, groups: int, dropout: float, dimensions: int = 2):
        super().__init__()
        conv = CONVOLUTIONS[dimensions]
        self.norm1 = GroupNorm(groups, c_in, eps=1e-6)
        self.conv1 = conv(c_in, c_out, 3, padding=1)
        self.time_emb_proj = nn.Linear(c_time, c_out)
        self.norm2 = GroupNorm(groups, c_out, eps=1e-6)
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
        self.group_norm = GroupNorm(groups, channels, eps=1e-6)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        h = rearrange(self.group_norm(x), "b c ... -> b 1 (...) c")  # one head
        h = F.scaled_dot_product_attention(self.to_q(h), self.to_k(h), self.to_v(h))
        return x + rearrange(self.to_out[0](h), "b 1 n c -> b c n").unflatten(2, x.shape[2:])


class Downsample(nn.Sequential):
    """Halve the resolution by a strided convolution, padded at the right and bottom edges only, as in DDPM."""

    def __init__(self, channels: int, dimensions: int = 2):
        pad = PADDINGS[dimensions]((0, 1) * dimensions)
        super().__init__(OrderedDict(pad=pad, conv=CONVOLUTIONS[dimensions](channels, channels, 3, stride=2)))


class Upsample(nn.Module):
    """Double the resolution by repeating pixels, then smooth with a 3×3 convolution: both as one transposed convolution.

    3 neighbouring pixels of the enlarged picture are repeats of 2. Adding the weights that meet the same input pixel beforehand
    leaves 2×2 of the 3×3 multiplications, and no enlarged picture to store.
    """

    def __init__(self, channels: int, dimensions: int = 2):
        super().__init__()
        self.conv = CONVOLUTIONS[dimensions](channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # In one dimension (w_0, w_1, w_2) becomes (w_2, w_1 + w_2, w_0 + w_1, w_0): in two, four times the mean of 2×2 neighbours.
        n = x.ndim - 2
        mean, convolve = (F.avg_pool1d, F.conv_transpose1d) if n == 1 else (F.avg_pool2d, F.conv_transpose2d)
        # torch.compile does not take flip(*range(2, x.ndim)).
        kernel = 2**n * mean(self.conv.weight.flip([2, 3][:n]), 2, stride=1, padding=1)  # (c_out, c_in, 4) or (c_out, c_in, 4, 4)
        return convolve(x, kernel.transpose(0, 1), self.conv.bias, stride=2, padding=1)  # (B, C, 2L) or (B, C, 2H, 2W)


class Level(nn.Module):
    """One level of resolution: residual blocks of the given input widths, each followed by attention if the level has it."""

    def __init__(self, widths_in: list[int], width: int, c_time: int, groups: int, dropout: float, dimensions: int, attention: bool):
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(c_in, width, c_time, groups, dropout, dimensions) for c_in in widths_in)
        self.attentions = nn.ModuleList(Attention(width, groups) if attention else nn.Identity() for _ in widths_in)

    def block(self, i: int, x: Tensor, time: Tensor) -> Tensor:
        return self.attentions[i](self.resnets[i](x, time))


class UNet(nn.Module):
    """ε_θ(x_t, t): predicts the noise in a noisy image (DDPM, appendix B); ε_θ(x_t, t, label) if it knows classes.

    x: (B, C, H, W), or (B, C, L) where config.dimensions is 1, floating; t: (B,) int64 or float timesteps. Returns ε like x.
    label: (B,) int64, 0..classes−1; `NO_LABEL`, the default, gives the unconditional prediction. Raises ValueError for other shapes.
    A new network predicts ε = 0 everywhere, because its last convolution starts at zero.
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
        handed_across = [widths[0]]  # widths of the feature maps handed to the way up
        for i, width in enumerate(widths):
            c_in = widths[max(i - 1, 0)]
            down = Level([c_in] + [width] * (n - 1), width, attention=i in config.attention_levels, **level)
            handed_across += [width] * n
            if i < len(widths) - 1:
                down.downsamplers = nn.ModuleList([Downsample(width, config.dimensions)])
                handed_across.append(width)
            self.down_blocks.append(down)

        self.mid_block = Level([widths[-1]] * 2, widths[-1], attention=False, **level)
        self.mid_block.attentions[0] = Attention(widths[-1], config.norm_groups)

        self.up_blocks = nn.ModuleList()
        for i, width in reversed(list(enumerate(widths))):
            below = widths[min(i + 1, len(widths) - 1)]
            widths_in = [c + handed_across.pop() for c in [below] + [width] * n]
            up = Level(widths_in, width, attention=i in config.attention_levels, **level)
            if i > 0:
                up.upsamplers = nn.ModuleList([Upsample(width, config.dimensions)])
            self.up_blocks.append(up)

        self.conv_norm_out = GroupNorm(config.norm_groups, widths[0], eps=1e-6)
        self.conv_out = conv(widths[0], config.image_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)
        # On a CPU, and on a GPU in bf16, convolutions run faster with the channels innermost in memory. PyTorch has this layout for
        # pictures only and leaves the weights of signals unchanged.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        check_unet_input(x, t, label, self.config)
        dtype = self.conv_in.weight.dtype
        time = self.time_embedding(timestep_embedding(t, self.config.channels[0]).to(dtype))  # (B, c_time)
        if self.config.classes:
            label, last = torch.full_like(t, NO_LABEL, dtype=torch.int64) if label is None else label, self.config.classes
            # NO_LABEL is the last row. Other labels outside 0..classes−1, which nobody reads on a GPU, find no row there.
            row = torch.where((label < 0) | (label >= last), torch.where(label == NO_LABEL, last, last + 1), label)
            time = time + self.class_embedding(row)
        time = F.silu(time)

        h = self.conv_in(x.to(dtype, memory_format=torch.channels_last if x.ndim == 4 else torch.contiguous_format))
        across = [h]
        for down in self.down_blocks:
            for i in range(len(down.resnets)):
                h = down.block(i, h, time)
                across.append(h)
            if hasattr(down, "downsamplers"):
                h = down.downsamplers[0](h)
                across.append(h)

        h = self.mid_block.block(1, self.mid_block.block(0, h, time), time)

        for up in self.up_blocks:
            for i in range(len(up.resnets)):
                h = up.block(i, torch.cat([h, across.pop()], dim=1), time)
            if hasattr(up, "upsamplers"):
                h = up.upsamplers[0](h)

        eps = self.conv_out(F.silu(self.conv_norm_out(h)))
        return eps.to(x.dtype, memory_format=torch.contiguous_format)  # like x

    def with_classes(self, classes: int) -> "UNet":
        """A copy with an embedding of classes, ready to be trained on labels; without a label it computes as this network.

        The rows of the classes are drawn at random (from torch's generator), small beside the time embedding: starting from zero they
        learn far more slowly.
        """
        with torch.device("meta"):  # no weights are drawn
            copied = UNet(replace(self.config, classes=classes))
        weight = self.conv_in.weight
        rows = torch.zeros(classes + 1, copied.class_embedding.embedding_dim)
        rows[:-1].normal_(std=0.3)
        copied.load_state_dict(copy.deepcopy(self.state_dict()) | {"class_embedding.weight": rows.to(weight)}, assign=True)
        return copied.train(self.training)


def for_sampling(network: nn.Module) -> Callable[..., Tensor]:
    """A copy of the network for drawing many images, called like the network and as fast as its device allows.

    On a GPU: fp16 weights, compiled, recorded as a CUDA graph that launches the several hundred kernels of a call at once, since
    with few channels or a small batch the GPU would wait for each. Compiling takes up to a minute, so it pays from some thousand
    images on; a batch smaller than the largest so far is filled up rather than compiled for. Not bf16: its 8 digits shift a picture's
    mean. On a CPU fp16 is slower and compiling gains little: the copy computes as the network.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    if next(network.parameters()).device.type != "cuda":
        return network
    compiled, largest = torch.compile(network.half(), mode="reduce-overhead", dynamic=False), 0

    def alike(value: Tensor, dtype: torch.dtype) -> Tensor:
        """A copy as the first call had it, (largest, ...): each other kind of tensor would be compiled anew."""
        return F.pad(value.to(dtype, copy=True), (0, 0) * (value.ndim - 1) + (0, largest - len(value)))

    def predict(x: Tensor, t: Tensor, *label: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, len(x))
        # Inference mode would make tensors of another kind, whose graphs a training in the same process cannot follow.
        with torch.inference_mode(False), torch.no_grad():
            eps = compiled(alike(x, x.dtype), alike(t, torch.float32), *(alike(one, torch.int64) for one in label))
        return eps[:len(x)].clone()  # a graph writes each answer to the same memory; multistep samplers remember earlier ones

    return predict
