"""Every command of the command line, and the benchmarks, with what they compute on the emulated device: that they run, and say so."""
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import fake_cuda
import pytest
import torch

from s2dm_mini import TrainConfig, shapes, train
from s2dm_mini import __main__ as commands
from s2dm_mini.data.images import Images
from s2dm_mini.measure import references
from s2dm_mini.study import classes, interpolations
from s2dm_mini.study.tables import read_rows

SMALL_TRAINING = "--data shapes --preset tiny --batch 8 --steps 2 --log-every 1 --device cuda --out {out}"
LEDGER = "--size dry --setting l0 --steps 2 --out {out} --table {out}/ledger.csv"
LINES = {
    "train": [f"{SMALL_TRAINING}/run", f"{SMALL_TRAINING}/run --resume"],
    "train-paper": [f"{SMALL_TRAINING}/paper --steps 3"],
    "sample": ["tiny-shapes-l0 --n 4 --steps 2 --sampler ddpm --device cuda --out {out}/p.png",
               "wave-waves-l0 --n 4 --steps 2 --device cuda --out {out}/w.png"],
    "evaluate": ["tiny-shapes-l0 --samples 20 --steps 2 --device cuda --table {out}/rows.csv"],
    "evaluate-classes": ["tiny-shapes-classes-l0 --samples 8 --steps 2 --device cuda --table {out}/rows.csv"],
    "tune": ["tiny-shapes-l0 --steps 2 --samples 20 --held-out 2 --evaluations 6 --device cuda --table {out}/rows.csv"],
    "ledger": [f"train {LEDGER} --device cuda", f"sample {LEDGER} --device cuda", f"measure {LEDGER}"],
    "interpolate": ["nano-cifar10-l0 --real --pairs 20 --frames 3 --steps 2 --device cuda --table {out}/rows.csv"],
}
ELSEWHERE = {"export": "no device", "fetch": "no device", "predict": "no device", "verdicts": "no device",
             "reproduce": "test_cuda_notebooks.py", "refresh": "test_cuda_notebooks.py", "notebooks": "no device",
             "lab": "no device", "explore": "no device"}


def test_every_command_is_tried():
    assert LINES.keys() | ELSEWHERE.keys() == commands.COMMANDS.keys() and not LINES.keys() & ELSEWHERE.keys()


@pytest.fixture
def small_plans(monkeypatch, tmp_path):
    """CIFAR-10 in miniature, for its commands."""
    drawn = shapes(300, 32)
    ten = Images("ten", drawn.pixels, (drawn.factors["hue"] * 10).long().clamp(max=9), tuple("0123456789"))
    monkeypatch.setattr(interpolations, "cifar10", lambda split: ten)
    for module in (references, classes):
        monkeypatch.setattr(module, "load_data", lambda name, size: shapes(100, size))
    monkeypatch.setenv("S2DM_DATA", str(tmp_path / "data"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LINES)
def test_a_command_runs(name, small_plans, monkeypatch, tmp_path, capsys):
    before = torch.ops.fakecuda.launches()
    for line in LINES[name]:
        monkeypatch.setattr(sys, "argv", ["s2dm_mini", name, *line.format(out=tmp_path).split()])
        commands.main()
    assert torch.ops.fakecuda.launches() - before > 100
    for table in (table for table in tmp_path.glob("*.csv") if read_rows(table)[0]["device"]):
        assert {row["device"] for row in read_rows(table)} == {"an emulated CUDA device"}


@pytest.mark.filterwarnings("ignore")
def test_the_scripts_that_train_run(tmp_path):
    import compare_signals
    import train_classifier

    before, ten = torch.ops.fakecuda.launches(), shapes(100, 32)
    rows = compare_signals.compare_signals(images=64, samples=20, steps=(2,), settings=("s2dm10",), device="cuda", table=tmp_path / "t.csv")
    assert {row["device"] for row in rows} == {"an emulated CUDA device"}
    [(loss, network)] = train_classifier.train(train_classifier.Config(epochs=1, batch=50, device="cuda"), ten)
    assert network.head.weight.is_cuda and math.isfinite(loss) and torch.ops.fakecuda.launches() - before > 100


def benchmark(monkeypatch, name, *arguments):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    module = __import__(name)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    module.main()
    return module


@pytest.mark.filterwarnings("ignore")
def test_speed_measures_only_when_the_device_is_done(monkeypatch, tmp_path, capsys):
    """At each look at the clock, nothing that was sent to the device is still to be waited for."""
    look, pending = time.perf_counter, []
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    import speed

    def clock():
        pending.append(torch.ops.fakecuda.pending())
        return look()

    def launches(turns):
        before = torch.ops.fakecuda.launches()
        next(turns)
        return torch.ops.fakecuda.launches() - before

    # PyTorch's profiler needs a real GPU: the launches are counted by the emulated one, and no target is missed that asks for a profile.
    monkeypatch.setattr(speed, "launches", launches)
    monkeypatch.setattr(speed, "TARGETS", {"cuda": 0.0})
    monkeypatch.setattr(speed.time, "perf_counter", clock)
    benchmark(monkeypatch, "speed", "--device", "cuda", "--presets", "tiny", "--dry-run", "--out", str(tmp_path / "speed.md"))
    assert len(pending) > 20 and max(pending) <= 2, "but for the sum of the losses, set to zero after a record"
    said = capsys.readouterr().out
    assert "an emulated CUDA device" in said and "launches" in said


def test_the_samplers_overhead_is_measured(monkeypatch, capsys):
    benchmark(monkeypatch, "sampler_overhead", "--device", "cuda", "--preset", "tiny", "--batch", "2", "--steps", "4", "--repeats", "1")
    assert "f-pndm" in capsys.readouterr().out


def test_the_cost_of_a_loss_is_measured(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    import training_cost

    monkeypatch.setattr(training_cost, "RESULTS", tmp_path)
    benchmark(monkeypatch, "training_cost", "--device", "cuda", "--preset", "tiny", "--batch", "4", "--rounds", "2")
    assert {row["device"] for row in read_rows(tmp_path / "cost-gpu.csv")} == {"an emulated CUDA device"}


def test_the_report_of_a_gpu_is_written(tmp_path):
    """`make gpu-report`, small: all its parts but the numbers, which are not a GPU's."""
    script = Path(__file__).parent.parent / "benchmarks" / "gpu_report.py"
    done = subprocess.run([sys.executable, str(Path(fake_cuda.__file__)), str(script), "--dry-run", "--out", str(tmp_path)],
                          capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    page, rows = (tmp_path / "gpu-report.md").read_text(encoding="utf-8"), read_rows(tmp_path / "gpu-report.csv")
    assert "an emulated CUDA device" in page and "0 failed" in page
    assert {row["part"] for row in rows} == {"tests", "speed", "batch", "training", "distance", "fp16"}
    assert all(row["value"] and row["device"] == "an emulated CUDA device" for row in rows)


def test_the_largest_batch_is_found_by_trying(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    import gpu_report

    def full_at_32(config, images):
        if config.batch == 32:
            raise torch.cuda.OutOfMemoryError
        yield from train(config, images)

    monkeypatch.setattr(gpu_report, "train", full_at_32)
    config = TrainConfig(preset="tiny", steps=10**9, log_every=1, device="cuda")
    found = list(gpu_report.batches_that_fit(config, (8, 16, 32, 64)))
    assert [batch for batch, *_ in found] == [8, 16] and all(rate > 0 and memory > 0 for _, rate, memory in found)


def test_waits_can_be_counted():
    fake_cuda.forget()
    torch.ones(3).cuda().sum().item()
    assert fake_cuda.waits() == {"copy from the CPU": 1, "item": 1}
