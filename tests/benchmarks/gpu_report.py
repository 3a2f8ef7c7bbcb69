"""Measures a GPU and writes one page and one table to hand in as a pull request: make gpu-report

    tests      tests/test_gpu.py: it draws and trains as the CPU does
    speed      speed.py, ours and diffusers' training and sampling
    batch      training with larger batches, up to the first that does not fit; and with record_step, one launch for a step's gradients
    training   ten minutes of `compact` on CIFAR-10, as the zoo trains it
    distance   of the trained network's samples from CIFAR-10, DDIM in 10, 20 and 50 steps
    fp16       how far sampling in half precision shifts the colours, in grey levels of 255

About twenty-five minutes on one GPU (an estimate; never run on one). It needs CIFAR-10: python -m s2dm_mini fetch
"""
import argparse
import gc
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import speed
import torch

from s2dm_mini import NoiseSchedule, TrainConfig, for_sampling, load_pretrained, sample, train
from s2dm_mini.checkpoints import load_model
from s2dm_mini.data import load_data
from s2dm_mini.measure.draw import starting_noise
from s2dm_mini.study.evaluate import evaluate
from s2dm_mini.study.ledger import train_to_end
from s2dm_mini.study.plan import BASES
from s2dm_mini.study.tables import RESULTS, write_rows
from s2dm_mini.support.files import write_whole
from s2dm_mini.support.machine import stamp

TESTS = Path(__file__).resolve().parent.parent / "test_gpu.py"


class Counted:
    """A plugin of pytest that counts how the tests end."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            setattr(self, report.outcome, getattr(self, report.outcome) + 1)


def batches_that_fit(config: TrainConfig, batches: tuple[int, ...]) -> Iterator[tuple[int, float, float]]:
    """(batch, images/s, GiB at most allocated) of a training with each batch in turn, up to the first that needs too much memory."""
    for batch in batches:
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        records = train(replace(config, batch=batch), speed.some_images(config.preset))
        try:
            next(records)  # compiles
            rate = next(records).images_per_second
        except torch.cuda.OutOfMemoryError:
            return
        records.close()
        yield batch, rate, torch.cuda.max_memory_allocated() / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="so small that it only shows whether the report is written")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of gpu-report.md and gpu-report.csv")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: PyTorch finds no GPU here, and this report is about one.")
    dry, device = args.dry_run, torch.device("cuda")
    base = BASES["tiny-shapes" if dry else "compact-cifar10"]
    config = replace(base, out=(args.out if dry else Path("runs")) / "gpu-report", device="cuda", **({"images": 64} if dry else {}))
    load_data(config.data, 16 if dry else 32)  # said now if it is missing, not after an hour
    rows, parts = [], []

    def add(part: str, name: str, value: float, unit: str) -> None:
        rows.append({"part": part, "name": name, "value": f"{value:.6g}", "unit": unit})

    if dry:  # PyTorch's profiler, which both ask, needs a real GPU
        speed.launches, speed.TARGETS = lambda turns: 0, {"cuda": 0.0}
    size = speed.SIZES["dry" if dry else "cuda"]
    rate, measured = speed.matmul_rate("cuda", size.matmul), []
    add("speed", "matmul in bf16", rate / 1e12, "TFLOP/s")
    for preset in ("tiny",) if dry else ("nano", "compact", "paper"):
        found, profiles = speed.measure(preset, "cuda", size, rate)
        measured += found
        parts += profiles
        for row in map(asdict, found):
            for name, value in list(row.items())[2:]:
                add("speed", f"{row['preset']}, {row['side']}, {name.replace('_', ' ')}", value, "" if row["side"] == "ratio" else
                    {"train": "images/s", "sample": "images/s"}.get(name, "GiB" if "memory" in name else ""))
    parts.insert(0, f"Matmul in bf16: {rate / 1e12:.0f} TFLOP/s; batch {size.train_batch} training, {size.sample_batch} sampling.\n\n"
                    + speed.table(measured))

    lines, batches = [], (8, 16) if dry else (128, 256, 512, 1024, 2048, 4096)
    for preset, record_step, tried in (("nano", False, batches[:1]), ("nano", True, batches[:1]), ("compact", False, batches)):
        looked_at = TrainConfig(preset="tiny" if dry else preset, steps=10**9, log_every=5 if dry else 20, device="cuda",
                                record_step=record_step)
        for batch, rate, memory in batches_that_fit(looked_at, tried):
            name = f"{preset}, batch {batch}{', record_step' if record_step else ''}"
            add("batch", name, rate, "images/s")
            add("batch", name, memory, "GiB")
            lines.append(f"| {name} | {rate:,.0f} | {memory:.2f} |")
    parts.append("| training | images/s | GiB |\n| --- | ---: | ---: |\n" + "\n".join(lines))

    train_to_end(config, f"training {config.preset}")
    record = load_model(config.out / "model.safetensors")[1]
    add("training", f"{config.preset}, images", record["images_seen"], "images")
    add("training", f"{config.preset}, loss", record["loss"], "")
    add("training", f"{config.preset}, speed", record["images_seen"] / max(60 * record["minutes"], 1), "images/s")
    lines = []
    for steps in (2,) if dry else (10, 20, 50):
        measured_rows = evaluate(str(config.out / "model.safetensors"), steps=steps, samples=20 if dry else 10_000, device="cuda",
                                 table=config.out / "evaluations.csv")
        for row in measured_rows:
            add("distance", f"{config.preset}, DDIM, {steps} steps, {row['samples']} samples", row["fd"], f"Fréchet, {row['features']}")
            lines.append(f"| {steps} | {row['features']} | {row['fd']:.4g} | {row['kid']:.3e} | {row['seconds']:.1f} |")
    parts.append(f"`{config.preset}` after {record['minutes']:.1f} minutes, {record['images_seen']:,} images, loss {record['loss']:.4f}, "
                 f"{record['precision']}:\n\n"
                 "| DDIM, steps | features | Fréchet distance (not FID) | KID | seconds |\n| ---: | --- | ---: | ---: | ---: |\n"
                 + "\n".join(lines))

    name = "tiny-shapes-l0" if dry else "nano-cifar10-l0"
    network, schedule = load_pretrained(name, device), NoiseSchedule.linear()
    x_T = starting_noise(8 if dry else 256, network.config.shape, 0).to(device)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        plain = sample(network, x_T, schedule, "ddim", 10, "quadratic")
    change = 127.5 * (sample(for_sampling(network), x_T, schedule, "ddim", 10, "quadratic") - plain)
    add("fp16", f"{name}, shift of the mean", change.mean().item(), "grey levels")
    add("fp16", f"{name}, root mean square", change.square().mean().sqrt().item(), "grey levels")
    parts.append(f"Sampling in fp16 instead of float32 moves {name}'s pictures by {change.mean():+.3f} grey levels on average "
                 f"(0.1 is allowed), by {change.square().mean().sqrt():.3f} root mean square.")

    counted = Counted()
    pytest.main([str(TESTS), "-q", "-p", "no:cacheprovider", *(["-k", "losses_agree"] if dry else [])], plugins=[counted])
    for outcome in ("passed", "failed", "skipped"):
        add("tests", outcome, getattr(counted, outcome), "tests")
    parts.insert(0, f"tests/test_gpu.py: {counted.passed} passed, {counted.failed} failed, {counted.skipped} skipped.")

    facts = stamp(device) | {"cuda": torch.version.cuda or "none", "command": "python " + shlex.join(sys.argv) if not dry else "a dry run"}
    args.out.mkdir(parents=True, exist_ok=True)
    write_rows(args.out / "gpu-report.csv", [row | facts for row in rows])
    heading = (f"# A GPU measured\n\n{facts['device']}; torch {facts['torch']}, CUDA {facts['cuda']}; commit {facts['commit']}, "
               f"{facts['date']}.")
    write_whole(args.out / "gpu-report.md", ("\n\n".join([heading, *parts]) + "\n").encode())
    print(f"To hand in: commit {args.out / 'gpu-report.md'} and gpu-report.csv beside it, and open a pull request.")
    sys.exit(1 if counted.failed or not counted.passed else 0)


if __name__ == "__main__":
    main()
