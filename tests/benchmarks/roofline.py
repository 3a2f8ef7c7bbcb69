"""Estimates what a training step needs at least on one GPU: python tests/benchmarks/roofline.py [--matmul 700] [--bandwidth 3.35]

Nothing is run: a model, not a measurement. Counted on tensors without values are the multiplications (each network's own convolutions,
linear layers and attention) and the bytes of bf16 pictures that must pass through memory: into and out of each convolution, twice through
each GroupNorm with its SiLU, each concatenation, and float32 weights through clipping, Adam and EMA. All else is taken as fused with its
neighbours. The step is the multiplications at a share of the matmul rate, plus what no convolution hides at 80 % of the bandwidth; the
last column is the same with each GroupNorm's picture copied into another layout and back, as PyTorch's own does on a GPU.
"""
import argparse

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from s2dm_mini import PRESETS, UNet

SHARES = (0.4, 0.55, 0.7)  # of the matmul rate that convolutions may reach


class Traffic(TorchDispatchMode):
    """Bytes that pictures in bf16 move through memory, by what moves them."""

    def __init__(self):
        super().__init__()
        self.bytes = dict.fromkeys(("convolution", "group_norm", "layout", "cat"), 0)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out, name = function(*args, **(kwargs or {})), str(function)
        moved = lambda *tensors: 2 * sum(t.numel() for t in tensors if isinstance(t, Tensor))  # noqa: E731
        if "convolution_backward" in name:  # the weights' gradient reads x and dy, that of x reads dy and the weights
            self.bytes["convolution"] += moved(*args[:3], *out[:2])
        elif "convolution" in name:
            self.bytes["convolution"] += moved(args[0], args[1], out)
        elif "group_norm_backward" in name:
            self.bytes["group_norm"] += 2 * moved(args[0], args[1]) + moved(args[0])
            self.bytes["layout"] += 2 * 2 * moved(args[0])  # dy there, dx back; each is read and written
        elif "group_norm" in name:
            self.bytes["group_norm"] += 3 * moved(args[0])
            self.bytes["layout"] += 2 * 2 * moved(args[0])
        elif "cat" in name:
            self.bytes["cat"] += 2 * moved(out)
        return out


def count(preset: str, batch: int) -> tuple[int, int, dict[str, int]]:
    """(floating-point operations of an image in training, number of weights, bytes of a step by what moves them)."""
    shape = PRESETS[preset].shape
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH):
        network = UNet(PRESETS[preset])
        one, many = ((torch.zeros(n, *shape), torch.zeros(n, dtype=torch.int64)) for n in (1, batch))
        with FlopCounterMode(display=False) as counter:
            network(*one).sum().backward()
        with Traffic() as traffic:
            network(*many).sum().backward()
    return counter.get_total_flops(), sum(p.numel() for p in network.parameters()), traffic.bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--matmul", type=float, default=700, help="rate of a large matmul in bf16, TFLOP/s; speed.py measures it")
    parser.add_argument("--bandwidth", type=float, default=3.35, help="of the memory, TB/s")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=["nano", "compact", "paper"])
    args = parser.parse_args()
    print("| preset | GFLOP an image | convolutions, of matmul | ms a step | images/s | of matmul | with copies |")
    print("| --- |" + 6 * " ---: |")
    for preset in args.presets:
        operations, weights, moved = count(preset, args.batch)
        ideal = operations * args.batch / (1e12 * args.matmul)
        update = 4 * 11 * weights  # clipping reads; Adam reads four and writes three; EMA reads two and writes one
        seconds = lambda size: size / (0.8e12 * args.bandwidth)  # noqa: E731
        for share in SHARES:
            step = ideal / share + seconds(moved["group_norm"] + moved["cat"] + update)
            copying = step + seconds(moved["layout"])
            print(f"| {preset} | {operations / 1e9:.2f} | {share:.0%} | {1e3 * step:.2f} | {args.batch / step:,.0f} | {ideal / step:.0%} | "
                  f"{ideal / copying:.0%} |")


if __name__ == "__main__":
    main()
