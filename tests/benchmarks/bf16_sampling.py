"""May a CPU draw images in bf16? OMP_NUM_THREADS=1 python tests/benchmarks/bf16_sampling.py [--n 256]

Weights stay in fp32 and products are taken in bf16 (autocast), at first in the whole network, then with the first and last convolution
or the time embedding in fp32. The table compares the images with those of fp32 from the same noise, in grey levels: the mean
difference, that of each colour, and the root of the mean square, beside the change by S²-DM^10's closed form; and the CPU time.
"""
import argparse
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from s2dm_mini import NoiseSchedule, Shrunk, load_pretrained, sample, shrinkage
from s2dm_mini.denoisers import Denoiser
from s2dm_mini.measure.draw import starting_noise
from s2dm_mini.support.machine import device_name

IN_FP32 = {
    "all in bf16": (),
    "last convolution in fp32": ("conv_out",),
    "both convolutions at the ends": ("conv_in", "conv_out"),
    "and the time embedding": ("conv_in", "conv_out", "time_embedding"),
}


def in_bf16(name: str, parts: tuple[str, ...]) -> Denoiser:
    """The shipped network in bf16, these parts of it in fp32."""
    network = load_pretrained(name)
    for part in parts:
        module = getattr(network, part)
        module.forward = torch.autocast("cpu", enabled=False)(lambda x, forward=module.forward: forward(x.float()))

    def eps(x: Tensor, t: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return network(x, t).float()

    return eps


def rows(name: str, n: int, steps: int) -> Iterator[str]:
    """The table's lines."""
    schedule, network = NoiseSchedule.linear(), load_pretrained(name)
    batches = starting_noise(n, network.config.shape).split(64)

    def drawn(denoiser: Denoiser) -> tuple[Tensor, float]:
        begun = time.process_time()
        x = torch.cat([sample(denoiser, x_T, schedule, "ddim", steps, "quadratic") for x_T in batches])
        return x, time.process_time() - begun

    yield "| network | CPU s | mean | red, green, blue | rms |\n| --- | ---: | ---: | ---: | ---: |"
    exact, seconds = drawn(network)
    yield f"| fp32 | {seconds:.1f} | | | |"
    others = {label: in_bf16(name, parts) for label, parts in IN_FP32.items()}
    for label, denoiser in {**others, "S²-DM^10 in fp32": Shrunk(network, shrinkage(schedule, 9, 0.99))}.items():
        x, seconds = drawn(denoiser)
        levels = 127.5 * (x - exact).double()  # (n, 3, H, W)
        colours = ", ".join(f"{value:.2f}" for value in levels.mean((0, 2, 3)).tolist())
        yield f"| {label} | {seconds:.1f} | {levels.mean():.2f} | {colours} | {levels.square().mean().sqrt():.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="nano-cifar10-l0")
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 50])
    args = parser.parse_args()
    for steps in args.steps:
        print(f"\n{device_name(torch.device('cpu'))}; {args.network}, {args.n} images, DDIM in {steps} steps of the quadratic grid\n")
        for row in rows(args.network, args.n, steps):
            print(row, flush=True)


if __name__ == "__main__":
    main()
