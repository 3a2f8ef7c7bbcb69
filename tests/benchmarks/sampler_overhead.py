"""Prints what the samplers cost beside their network calls: python tests/benchmarks/sampler_overhead.py [--device cuda]

For each sampler the time spent outside the network over the time spent in it; speed.py compares both with diffusers. On a CPU
the clock is processor time, which a busy machine does not distort. On a GPU the host waits for it before and after each network
call, so that the steps' kernels count in full: what is printed is then more than a run without these waits would spend.
"""
import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from s2dm_mini import PRESETS, SAMPLERS, NoiseSchedule, UNet, sample


class Timed:
    """A denoiser that adds up the seconds spent in it."""

    def __init__(self, network: Callable, clock: Callable[[], float]):
        self.network, self.clock, self.seconds, self.calls = network, clock, 0.0, 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        start = self.clock()
        eps = self.network(x, t)
        self.seconds += self.clock() - start
        self.calls += 1
        return eps


def measure(network: Callable, run: Callable[[Callable], Tensor], clock: Callable[[], float], repeats: int) -> tuple[float, float]:
    """run(denoiser) → (seconds a network call, seconds outside the network over seconds in it), medians of the repeats."""
    run(network)  # warm up, and let DEIS work out its coefficients
    calls, ratios = [], []
    for _ in range(repeats):
        timed = Timed(network, clock)
        start = clock()
        run(timed)
        ratios.append((clock() - start - timed.seconds) / timed.seconds)
        calls.append(timed.seconds / timed.calls)
    return median(calls), median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--preset", default="nano", choices=PRESETS)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    def gpu_clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    clock = time.process_time if args.device == "cpu" else gpu_clock
    torch.manual_seed(0)
    config = PRESETS[args.preset]
    network = UNet(config).to(args.device).eval()
    torch.nn.init.normal_(network.conv_out.weight, std=0.02)  # a fresh network answers 0
    schedule = NoiseSchedule.linear()
    x = torch.randn(args.batch, config.image_channels, config.image_size, config.image_size, device=args.device)
    print(f"{args.preset}, batch {args.batch}, {args.steps} steps, {args.device}, {torch.get_num_threads()} threads")
    print(f"{'sampler':18}{'ms a network call':>18}{'outside the network':>21}")
    for name in SAMPLERS:
        call, ratio = measure(network, lambda denoiser, name=name: sample(denoiser, x, schedule, name, args.steps), clock, args.repeats)
        print(f"{name:18}{1000 * call:18.2f}{ratio:21.2%}")


if __name__ == "__main__":
    main()
