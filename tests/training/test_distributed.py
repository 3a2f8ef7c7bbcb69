"""Two processes on one CPU, launched as torchrun does and joined by gloo, against one process that computes all shards itself."""
import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from s2dm_mini import data, shapes
from s2dm_mini.checkpoints import read_tensors

# run.py FOLDER CHANGES STEPS: goes on with the training in the folder, or begins it, up to a step; CHANGES of its settings in JSON.
SCRIPT = '''
import json, os, sys
from pathlib import Path

import torch

from s2dm_mini import TrainConfig, checkpoints, shapes, train
from s2dm_mini.unet import PRESETS, UNetConfig

torch.set_num_threads(1)
PRESETS["tiny"] = UNetConfig(image_size=8, channels=(8, 16), blocks_per_level=1, attention_levels=(1,), norm_groups=4, dropout=0.2)
write, out, rank = checkpoints.write_tensors, Path(sys.argv[1]), os.environ.get("RANK", "alone")
changes, resume = json.loads(sys.argv[2]), (out / "state.safetensors").exists()
changes = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}


def watched(path, *rest):
    with open(out / "writers.txt", "a") as file:
        file.write(rank + "\\n")
    write(path, *rest)


checkpoints.write_tensors = watched
config = TrainConfig(**dict(data="shapes", preset="tiny", batch=8, shards=2, warmup=2, learning_rate=1e-3, skip=49, tau=0.9, log_every=1,
                            device="cpu", precision="fp32", out=out, steps=int(sys.argv[3])) | changes)
for record in train(config, shapes(28, size=8), resume):
    with open(out / f"loss-{rank}.txt", "a") as file:
        file.write(f"{record.step} {record.loss:.9f}\\n")
'''


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run(folder, changes, steps, processes=1):
    folder.mkdir(exist_ok=True)
    script = folder.parent / "run.py"
    script.write_text(SCRIPT, encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1", "--master_port", str(free_port())]
    quiet = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")}
    command = [sys.executable, *(launcher if processes == 2 else []), str(script), str(folder), json.dumps(changes), str(steps)]
    done = subprocess.run(command, env={**quiet, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def losses(folder, rank):
    lines = (folder / f"loss-{rank}.txt").read_bytes().splitlines()
    return [(int(step), float(loss)) for step, loss in map(bytes.split, lines)]


CASES = {
    "two and two": ({}, 2, 2),
    "one, then two, of four shards, with labels, averages and kept networks":
        ({"shards": 4, "label_dropout": 0.3, "ema_others": [0.5], "keep_images": [16, 40], "weighting": "min-snr-5"}, 1, 2),
    "two, then one, with two passes a step": ({"reading": "output", "only_steps": 10}, 2, 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one(case, tmp_path):
    """The first three steps by so many processes, the last two, resumed, by so many: as all five by one."""
    changes, first, then = CASES[case]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, changes, 5)
    run(parts, changes, 3, first)
    run(parts, changes, 5, then)
    (one, one_header), (two, two_header) = (read_tensors(folder / "state.safetensors") for folder in (whole, parts))
    assert set(one) == set(two) and two_header["record"]["steps"] == 5
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    assert two_header["record"]["loss"] == pytest.approx(one_header["record"]["loss"], abs=1e-6)
    assert one_header["record"]["data_sha256"] == data.fingerprint(shapes(28, size=8))
    assert {path.name for path in parts.glob("*.safetensors")} == {path.name for path in whole.glob("*.safetensors")}

    # Only rank 0 writes. Both processes report the loss of the whole batch.
    assert set((parts / "writers.txt").read_text(encoding="utf-8").split()) == {"0" if n == 2 else "alone" for n in (first, then)}
    wanted = dict(losses(whole, "alone"))
    steps = []
    for n in {first, then}:
        found = losses(parts, "0" if n == 2 else "alone")
        assert n == 1 or found == losses(parts, "1")
        assert [loss for _, loss in found] == pytest.approx([wanted[step] for step, _ in found], abs=1e-6)
        steps += [step for step, _ in found]
    assert sorted(steps) == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_two_processes_stop_together_when_the_time_is_up(tmp_path):
    """Each has a clock of its own; all go by the slowest."""
    run(tmp_path / "timed", {"minutes": 0.02}, 100_000, 2)
    found = losses(tmp_path / "timed", "0")
    assert found == losses(tmp_path / "timed", "1") and 1 <= len(found) < 100_000


def test_shards_must_be_shared_out_evenly(monkeypatch):
    """Refused before anything waits for the other processes."""
    import accelerate

    from s2dm_mini.training.config import TrainConfig
    from s2dm_mini.training.loop import train

    class Third:
        process_index, device = 0, torch.device("cpu")

    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(accelerate, "Accelerator", lambda cpu: Third())
    with pytest.raises(ValueError, match="shards = 4 must be a multiple of the number of processes, 3"):
        next(train(TrainConfig(data="shapes", preset="tiny", batch=8, shards=4, steps=1, device="cpu")))
