"""Prints how fast we train and sample beside diffusers, in one table: python tests/benchmarks/speed.py [--device cuda] [--out FILE]

Both sides have the same architecture and weights, batch, precision, data and optimiser settings, and take turns in one run.

ours    training:  `train(TrainConfig(tau=1))` as anybody calls it: uint8 images on the device, fused Adam; on a GPU compiled,
                   CUDA graphs and a look at the loss every 20 steps (every 2 on a CPU)
        sampling:  `sample(for_sampling(network), x_T, schedule, "ddim", 10)`
theirs  training:  `UNet2DModel`, `DDPMScheduler.add_noise`, AdamW, clip_grad_norm_, `EMAModel` and loss.item() at each step, as
                   their unconditional example does; a DataLoader of images already scaled, in memory (theirs decodes files)
        sampling:  `UNet2DModel` and `DDIMScheduler` in a loop, weights and pictures in fp16 on a GPU, as ours

On a GPU both train in bf16 autocast, on a CPU in float32; there the last line says how much faster bf16 makes our training, if the
processor multiplies it. cuDNN's search for the fastest convolutions, which `train` turns on and
their example does not, then serves both. Images/s is the median over the turns, the ratio the median of the turns'
ratios. Memory is the peak above what was there before: allocated on the GPU, or of a fresh process on a CPU, network included.
"of matmul": the multiplications and additions of each network's own convolutions, linear layers and attention a second, over the
rate of a large square matmul in bf16, on a CPU in float32; ours needs fewer of them for an image, see `Upsample`. "Launches": what the
host sends to the GPU for a training step, and for a step of DDIM: kernels, copies and whole graphs. Where a target of `TARGETS` is
missed, a profile says what our time goes to.
"""
import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from diffusers.utils import logging
from torch import Tensor
from torch.autograd import DeviceType
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from s2dm_mini import PRESETS, NoiseSchedule, TrainConfig, UNet, for_sampling, sample, train
from s2dm_mini.data import Images, to_unit_range
from s2dm_mini.interop import to_diffusers
from s2dm_mini.support.machine import device_name, multiplies_bf16

TARGETS = {"cuda": 1.5, "cpu": 1.15}  # times as fast as diffusers
MATMUL_TARGET = 0.45  # of the matmul rate, training `paper` on a GPU
STEPS = 10  # of DDIM


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    train_batch: int
    train_steps: int  # a turn
    sample_batch: int
    turns: int
    matmul: int  # side of the matrices


SIZES = {"cuda": Size(128, 20, 256, 7, 8192), "cpu": Size(64, 2, 32, 5, 2048), "dry": Size(8, 2, 4, 2, 256)}


@dataclass
class Row:
    """One side at one preset, or their ratio."""

    preset: str
    side: str
    train: float  # images/s
    sample: float
    train_memory: float  # GiB
    sample_memory: float
    train_matmul: float  # share of the matmul rate
    sample_matmul: float
    train_launches: float  # a step; 0 on a CPU
    sample_launches: float


# ------------------------------------------------------------------------------------------------- the two sides

def fresh_network(preset: str) -> UNet:
    torch.manual_seed(0)
    network = UNet(PRESETS[preset])
    torch.nn.init.normal_(network.conv_out.weight, std=0.02)  # a fresh network answers 0
    return network


def some_images(preset: str) -> Images:
    """Noise will do: speed does not depend on what is in a picture."""
    size, channels = PRESETS[preset].image_size, PRESETS[preset].image_channels
    pixels = torch.randint(0, 256, (4096, channels, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Images("noise", pixels, torch.zeros(len(pixels), dtype=torch.int64), ())


def our_training(preset: str, device: str, size: Size, precision: str | None = None) -> Iterator[object]:
    """Takes size.train_steps steps, and waits for them, at each `next`."""
    config = TrainConfig(preset=preset, tau=1.0, batch=size.train_batch, steps=10**9, device=device, log_every=size.train_steps,
                         precision=precision or ("bf16" if device == "cuda" else "fp32"))
    return train(config, some_images(preset))


our_training_in_bf16 = partial(our_training, precision="bf16")


def diffusers_training(network: UNet2DModel, images: Images, config: TrainConfig, device: str) -> Iterator[EMAModel]:
    """diffusers' loop, without end: yields the averages every config.log_every steps."""
    network = network.to(device).train()
    ema = EMAModel(network.parameters(), decay=config.ema_decay, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=1e-6)
    scheduler = DDPMScheduler(num_train_timesteps=config.T)
    loader = DataLoader(TensorDataset(to_unit_range(images.pixels)), batch_size=config.batch, shuffle=True, drop_last=True)
    step = 0
    while True:
        for (clean,) in loader:
            clean = clean.to(device)
            clean = torch.where(torch.rand(len(clean), 1, 1, 1, device=device) < 0.5, clean.flip(3), clean)
            noise = torch.randn_like(clean)
            t = torch.randint(0, config.T, (len(clean),), device=device)
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                loss = F.mse_loss(network(scheduler.add_noise(clean, noise, t), t).sample.float(), noise)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * min(1.0, (step + 1) / max(config.warmup, 1))
            optimizer.step()
            optimizer.zero_grad()
            ema.step(network.parameters())
            loss.item()  # their example logs it at each step
            step += 1
            if step % config.log_every == 0:
                yield ema


def their_training(preset: str, device: str, size: Size) -> Iterator[object]:
    config = TrainConfig(preset=preset, batch=size.train_batch, steps=1, log_every=size.train_steps)
    return diffusers_training(to_diffusers(fresh_network(preset)), some_images(preset), config, device)


def noise(preset: str, device: str, batch: int) -> Tensor:
    size, channels = PRESETS[preset].image_size, PRESETS[preset].image_channels
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(1)).to(device)


def our_sampling(preset: str, device: str, size: Size) -> Iterator[object]:
    """Draws size.sample_batch images, and waits for them, at each `next`."""
    network, schedule = for_sampling(fresh_network(preset).to(device)), NoiseSchedule.linear()
    x_T = noise(preset, device, size.sample_batch)
    while True:
        yield sample(network, x_T, schedule, "ddim", STEPS)[0, 0, 0, 0].item()


def their_sampling(preset: str, device: str, size: Size) -> Iterator[object]:
    dtype = torch.float16 if device == "cuda" else torch.float32
    logging.set_verbosity_error()  # else `UNet2DModel.to(dtype)` warns that no module of it need stay in float32
    network, scheduler = to_diffusers(fresh_network(preset)).to(device, dtype), DDIMScheduler(clip_sample=False)
    x_T = noise(preset, device, size.sample_batch).to(dtype)
    while True:
        scheduler.set_timesteps(STEPS)
        x = x_T
        with torch.inference_mode():
            for t in scheduler.timesteps:
                x = scheduler.step(network(x, t).sample, t, x).prev_sample
        yield x[0, 0, 0, 0].item()


# --------------------------------------------------------------------------------------------------- measuring

def peak_of_this_process() -> float:
    """GiB of memory it has had at most, as Linux counts."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def memory_in_a_fresh_process(side: Callable[..., Iterator], preset: str, size: Size, threads: int) -> float:
    """GiB that the first turn of a side adds to a process; run in one made for it."""
    torch.set_num_threads(threads)
    before = peak_of_this_process()
    turns = side(preset, "cpu", size)
    next(turns)
    return peak_of_this_process() - before


def compare(ours: Callable[..., Iterator], theirs: Callable[..., Iterator], preset: str, device: str, size: Size) -> dict:
    """Images/s, memory (GiB) of both sides as pairs (ours, theirs), and the median ratio of their speeds."""
    torch.compiler.reset()  # it compiles one network's code for at most so many others
    sides, memory = [], []
    for side in (ours, theirs):
        if device == "cuda":
            gc.collect()  # else the memory of the side before would be freed while this one's is measured
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        turns = side(preset, device, size)
        next(turns)  # compiles, records CUDA graphs, tries what cuDNN or oneDNN offer
        if device == "cuda":
            memory.append((torch.cuda.max_memory_allocated() - before) / 2**30)
        else:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                memory.append(pool.submit(memory_in_a_fresh_process, side, preset, size, torch.get_num_threads()).result())
        sides.append(turns)
    seconds = [[], []]
    for _ in range(size.turns):
        for turns, taken in zip(sides, seconds, strict=True):
            start = time.perf_counter()
            next(turns)
            taken.append(time.perf_counter() - start)
    images, steps = (size.sample_batch, STEPS) if ours is our_sampling else (size.train_batch * size.train_steps, size.train_steps)
    return {"speed": [images / median(taken) for taken in seconds], "memory": memory,
            "launches": [launches(turns) / steps if device == "cuda" else 0.0 for turns in sides],
            "ratio": median(b / a for a, b in zip(*seconds, strict=True))}


def launches(turns: Iterator[object]) -> int:
    """What the host sends to the GPU in a turn."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as measured:
        next(turns)
    sent = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
    return sum(event.count for event in measured.key_averages() if event.key.startswith(sent))


def matmul_rate(device: str, side: int) -> float:
    """Floating-point operations a second of a square matmul, bf16 on a GPU, float32 on a CPU; the best of ten."""
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def operations(network: Callable[[Tensor, Tensor], Tensor], preset: str) -> tuple[int, int]:
    """Floating-point operations an image takes: (in a training step, in sampling)."""
    x, t = noise(preset, "cpu", 1), torch.zeros(1, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # the CPU's fused attention is not counted
        eps = network(x, t)
        forward = counter.get_total_flops()
        eps.sum().backward()
    return counter.get_total_flops(), STEPS * forward


def what_time_goes_to(side: Callable[..., Iterator], preset: str, device: str, size: Size) -> str:
    """The ten operations or kernels that take most of a turn, in Markdown."""
    torch.compiler.reset()
    turns = side(preset, device, size)
    next(turns)
    on_gpu = device == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as measured:
        next(turns)
    times = {event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total for event in measured.key_averages()
             if (event.device_type == DeviceType.CUDA) == on_gpu}
    total = max(sum(times.values()), 1)
    lines = [f"| {name[:90]} | {spent / 1000:.1f} | {spent / total:.1%} |" for name, spent in
             sorted(times.items(), key=lambda item: -item[1])[:10]]
    return "\n".join([f"| {side.__name__.replace('_', ' ')}, {preset} | ms a turn | share |", "| --- | ---: | ---: |", *lines])


def measure(preset: str, device: str, size: Size, rate: float) -> tuple[list[Row], list[str]]:
    """Three rows of the table (ours, theirs, their ratio) and a profile for each target missed."""
    training = compare(our_training, their_training, preset, device, size)
    sampling = compare(our_sampling, their_sampling, preset, device, size)
    network = fresh_network(preset)
    theirs = to_diffusers(network)
    rows = []
    for i, (side, count) in enumerate((("s2dm_mini", operations(network, preset)),
                                       ("diffusers", operations(lambda x, t: theirs(x, t).sample, preset)))):
        speeds = training["speed"][i], sampling["speed"][i]
        rows.append(Row(preset, side, *speeds, training["memory"][i], sampling["memory"][i],
                        *(speed * each / rate for speed, each in zip(speeds, count, strict=True)),
                        training["launches"][i], sampling["launches"][i]))
    ours, theirs = rows
    rows.append(Row(preset, "ratio", training["ratio"], sampling["ratio"], ours.train_memory / theirs.train_memory,
                    ours.sample_memory / theirs.sample_memory, ours.train_matmul / theirs.train_matmul,
                    ours.sample_matmul / theirs.sample_matmul, 0.0, 0.0))
    busy_enough = device == "cpu" or preset != "paper" or ours.train_matmul >= MATMUL_TARGET
    profiles = []
    if training["ratio"] < TARGETS[device] or not busy_enough:
        profiles.append(what_time_goes_to(our_training, preset, device, size))
    if sampling["ratio"] < TARGETS[device]:
        profiles.append(what_time_goes_to(our_sampling, preset, device, size))
    return rows, profiles


def table(rows: list[Row]) -> str:
    """The rows in Markdown; without the launches where there are none."""
    titles = ["training, images/s", f"DDIM, {STEPS} steps, images/s", "training, GiB", "sampling, GiB", "training, of matmul",
              "sampling, of matmul", *["launches a training step", "a sampling step"] * any(r.train_launches for r in rows)]
    lines = [f"| preset | | {' | '.join(titles)} |", "| --- | --- |" + len(titles) * " ---: |"]
    for r in rows:
        if r.side == "ratio":
            numbers = [f"**{r.train:.2f}×**", f"**{r.sample:.2f}×**", f"{r.train_memory:.2f}×", f"{r.sample_memory:.2f}×", *[""] * 4]
        else:
            numbers = [f"{r.train:,.1f}", f"{r.sample:,.1f}", f"{r.train_memory:.2f}", f"{r.sample_memory:.2f}",
                       f"{r.train_matmul:.0%}", f"{r.sample_matmul:.0%}", f"{r.train_launches:.0f}", f"{r.sample_launches:.0f}"]
        lines.append(f"| {' | '.join([r.preset, r.side, *numbers[:len(titles)]])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--presets", nargs="+", choices=PRESETS, help="by default nano, and on a GPU compact and paper")
    parser.add_argument("--dry-run", action="store_true", help="so small that it only shows whether the script runs")
    parser.add_argument("--out", type=Path, help="a .md or .json file")
    args = parser.parse_args()
    size = SIZES["dry" if args.dry_run else args.device]
    rate = matmul_rate(args.device, size.matmul)
    facts = {"device": device_name(torch.device(args.device)), "torch": torch.__version__, "diffusers": version("diffusers"),
             "precision": "bf16" if args.device == "cuda" else "float32", "matmul_tflops": round(rate / 1e12, 3), **asdict(size)}
    rows, profiles = [], []
    for preset in args.presets or (["nano", "compact", "paper"] if args.device == "cuda" else ["nano"]):
        more_rows, more_profiles = measure(preset, args.device, size, rate)
        rows += more_rows
        profiles += more_profiles
        if args.device == "cpu" and multiplies_bf16(torch.device("cpu")):
            ratio = compare(our_training_in_bf16, our_training, preset, "cpu", size)["ratio"]
            profiles.append(f"{preset}: training in bf16 is {ratio:.2f}× as fast as in float32.")
    heading = (f"{facts['device']}; torch {facts['torch']}, diffusers {facts['diffusers']}; {facts['precision']}, "
               f"matmul {facts['matmul_tflops']} TFLOP/s; batch {size.train_batch} training, {size.sample_batch} sampling")
    text = "\n\n".join([heading, table(rows), *profiles]) + "\n"
    print(text)
    if args.out:
        args.out.write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows], "profiles": profiles}, indent=1)
                            if args.out.suffix == ".json" else text, encoding="utf-8")


if __name__ == "__main__":
    main()
