"""Two processes on one CPU, launched as torchrun does, against one process that computes both shards itself."""
import os
import socket
import subprocess
import sys

import pytest
import torch

from s2dm_mini import data, shapes
from s2dm_mini.checkpoints import read_tensors

SCRIPT = '''
import os, sys
from pathlib import Path

import torch

from s2dm_mini import TrainConfig, checkpoints, shapes, train
from s2dm_mini.unet import PRESETS, UNetConfig

torch.set_num_threads(1)
PRESETS["tiny"] = UNetConfig(image_size=8, channels=(8, 16), blocks_per_level=1, attention_levels=(1,), norm_groups=4, dropout=0.2)
write, out = checkpoints.write_tensors, Path(sys.argv[1])


def watched(path, *rest):
    with open(out / "writers.txt", "a") as file:
        file.write(os.environ.get("RANK", "alone") + "\\n")
    write(path, *rest)


checkpoints.write_tensors = watched
config = dict(data="shapes", preset="tiny", batch=8, shards=2, warmup=2, learning_rate=1e-3, skip=49, tau=0.9, log_every=1,
              device="cpu", precision="fp32", out=out)
images = shapes(28, size=8)
for record in train(TrainConfig(steps=3, **config), images):
    pass
for record in train(TrainConfig(steps=5, **config), images, resume=True):
    with open(out / f"loss-{os.environ.get('RANK', 'alone')}.txt", "a") as file:
        file.write(f"{record.step} {record.loss:.9f}\\n")
'''


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(tmp_path, name, launcher=()):
    (tmp_path / name).mkdir()
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    quiet = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")}
    return subprocess.Popen([sys.executable, *launcher, str(script), str(tmp_path / name)], env={**quiet, "OMP_NUM_THREADS": "1"},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1", "--master_port", str(free_port())]
    runs = [start(tmp_path, "one"), start(tmp_path, "two", launcher)]
    try:
        for run in runs:
            said, _ = run.communicate(timeout=300)
            assert run.returncode == 0, said
    finally:
        for run in runs:
            run.kill()

    (one, one_header), (two, two_header) = (read_tensors(tmp_path / name / "state.safetensors") for name in ("one", "two"))
    assert set(one) == set(two) and two_header["record"]["steps"] == 5
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    assert two_header["record"]["loss"] == pytest.approx(one_header["record"]["loss"], abs=1e-6)
    assert one_header["record"]["data_sha256"] == data.fingerprint(shapes(28, size=8))

    # Only rank 0 writes: state and network, after step 3 and after step 5. Both processes report the loss of the whole batch.
    assert (tmp_path / "two" / "writers.txt").read_text().split() == ["0"] * 4
    losses = [[float(line.split()[1]) for line in (tmp_path / f).read_text().splitlines()]
              for f in ("one/loss-alone.txt", "two/loss-0.txt", "two/loss-1.txt")]
    assert len(losses[0]) == 2 and losses[1] == losses[2] == pytest.approx(losses[0], abs=1e-6)


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
