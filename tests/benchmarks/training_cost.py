"""Measures what training with each reading of L_skip costs against L_0: python tests/benchmarks/training_cost.py [--device cuda]

A step is loss, backward and Adam, on one batch. The losses take turns, round after round, so that whatever else the machine does hits all
alike; ratios to L_0 are taken round by round. On a CPU the clock is processor time. Writes data/results/cost-cpu.csv or cost-gpu.csv, which
the verdict on the cost rests on.
"""
import argparse
import shlex
import sys
import time
from datetime import UTC, datetime
from math import sqrt
from statistics import mean, median, stdev

import torch

from s2dm_mini import PRESETS, NoiseSchedule, UNet, shapes
from s2dm_mini.data import to_unit_range
from s2dm_mini.losses import READINGS, s2dm_loss
from s2dm_mini.study.tables import RESULTS, write_rows
from s2dm_mini.support.machine import device_name, git_commit
from s2dm_mini.training.loop import antithetic_timesteps

SKIP, TAU = 9, 0.99


def seconds_of_rounds(network: UNet, batch: int, rounds: int, device: torch.device) -> dict[str, list[float]]:
    """{reading, or l0: seconds of its step in each round}."""
    schedule = NoiseSchedule.linear().to(device)
    x0 = to_unit_range(shapes(batch, size=network.config.image_size).pixels).to(device)  # (B, C, H, W)
    generator = torch.Generator(device).manual_seed(0)
    t = antithetic_timesteps(batch, schedule.T, generator)  # (B,)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5, fused=True)

    def clock() -> float:
        if device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def step(name: str) -> float:
        tau, reading = (1.0, "independent") if name == "l0" else (TAU, name)
        start = clock()
        s2dm_loss(network, x0, t, schedule, SKIP, tau, reading, generator).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return clock() - start

    names = ["l0", *READINGS]
    for name in names:
        step(name)  # the first step pays for what is set up once
    taken = [{name: step(name) for name in names} for _ in range(rounds)]
    return {name: [times[name] for times in taken] for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--preset", default="nano", choices=PRESETS)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.manual_seed(0)
    taken = seconds_of_rounds(UNet(PRESETS[args.preset]).to(device).train(), args.batch, args.rounds, device)
    rows = []
    for name, seconds in taken.items():
        ratios = [own / base for own, base in zip(seconds, taken["l0"], strict=True)]
        rows.append({"loss": name, "preset": args.preset, "batch": args.batch, "skip": SKIP, "tau": TAU, "rounds": args.rounds,
                     "milliseconds": round(1000 * median(seconds), 2), "ratio": round(mean(ratios), 4),
                     "ratio_error": round(stdev(ratios) / sqrt(len(ratios)), 4),
                     "command": "python " + shlex.join(sys.argv), "device": device_name(device), "torch": torch.__version__,
                     "commit": git_commit(), "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M")})
        print(f"{name:12} {rows[-1]['milliseconds']:8.1f} ms a step, {rows[-1]['ratio']:.3f} ± {rows[-1]['ratio_error']:.3f} of L_0")
    write_rows(RESULTS / f"cost-{'cpu' if device.type == 'cpu' else 'gpu'}.csv", rows)


if __name__ == "__main__":
    main()
