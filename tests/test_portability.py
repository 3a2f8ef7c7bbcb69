"""What is promised of number types, threads and systems: every function takes and returns each type, as near as it can hold; threads may
change the last digits of a float32 sum and no more; nothing relies on what Windows or macOS lacks, as far as that can be seen here."""
import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from s2dm_mini import SAMPLERS, GaussianDenoiser, MixtureDenoiser, NoiseSchedule, Shrunk, load_pretrained, s2dm_loss, sample, shrinkage
from s2dm_mini.data.points import RING_STD, ring_means
from s2dm_mini.latents import interpolate, invert
from s2dm_mini.losses import READINGS
from s2dm_mini.support import files

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = [*sorted((ROOT / "s2dm_mini").rglob("*.py")), ROOT / "notebooks" / "labs" / "grade.py"]
SCHEDULE = NoiseSchedule.linear()
# Steps of rounding, 2^−24 and 2^−9, times what ten sampling steps or a network of 40 layers make of them.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-5, torch.bfloat16: 0.1}
every_dtype = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def agree(ours, exact, dtype, what=""):
    assert ours.dtype == dtype, f"{what} {ours.dtype}"
    error = (ours.double() - exact).norm() / exact.norm()
    assert error <= TOLERANCE[dtype], f"{what} is off by {error:.2g}"


@every_dtype
@pytest.mark.parametrize("reading", READINGS)
def test_losses(reading, dtype, monkeypatch):
    """Under the same ε, rounded: ε₁ is drawn in the type of x_0, so that one seed means other numbers in another type."""
    x0, t, draws = noise(6, 3, 4, 4).tanh(), torch.tensor([0, 9, 48, 49, 500, 999]), noise(2, 6, 3, 4, 4)
    losses = []
    for kind in (dtype, torch.float64):
        drawn = iter(draws)
        monkeypatch.setattr(torch, "randn", lambda shape, generator, device, dtype, drawn=drawn: next(drawn).to(dtype))
        losses.append(s2dm_loss(lambda x, t: 0.8 * x, x0.to(kind), t, SCHEDULE, 49, 0.9, reading))
    agree(losses[0], losses[1], dtype)


@every_dtype
def test_denoisers(dtype):
    x, t = noise(8, 2), torch.tensor([0, 10, 100, 300, 500, 700, 900, 999])
    ring = MixtureDenoiser(ring_means(), RING_STD, SCHEDULE)
    # Exact for the x they are given, so that only the answer is rounded.
    gaussian = GaussianDenoiser(torch.zeros(2), torch.tensor([0.25, 4.0]), SCHEDULE)
    for denoiser in (ring, Shrunk(ring, shrinkage(SCHEDULE, 49, 0.9)), gaussian):
        agree(denoiser(x.to(dtype), t), denoiser(x.to(dtype).double(), t), dtype, type(denoiser).__name__)


@every_dtype
@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers(name, dtype, monkeypatch):
    """States in the type of x_T, coefficients in float64 always. On smooth data: between far modes a rounding may choose the other one."""
    gaussian = GaussianDenoiser(torch.zeros(2), torch.tensor([0.25, 4.0]), SCHEDULE)
    draws, runs = noise(20, 8, 2), []
    for kind in (dtype, torch.float64):
        drawn = iter(draws)
        monkeypatch.setattr(torch, "randn", lambda shape, generator, device, dtype, drawn=drawn: next(drawn).to(dtype))
        runs.append(sample(gaussian, draws[-1].to(kind), SCHEDULE, name, 10))
    agree(*runs, dtype)


@every_dtype
def test_latents(dtype):
    a, b = noise(3, 4, 4), noise(6, 4, 4)[3:]
    gaussian = GaussianDenoiser(torch.zeros(3, 4, 4), torch.full((48,), 0.25), SCHEDULE)
    for way in ("slerp", "lerp"):
        agree(interpolate(a.to(dtype), b.to(dtype), 5, way), interpolate(a, b, 5, way), dtype, way)
    agree(invert(gaussian, a[None].to(dtype), SCHEDULE, 10), invert(gaussian, a[None], SCHEDULE, 10), dtype, "invert")


@every_dtype
def test_the_network(dtype):
    """With weights of each type; and with weights of float32, whose answer has the type of x all the same."""
    exact, x, t = load_pretrained("tiny-shapes-l0").double(), noise(2, 3, 16, 16), torch.tensor([100, 700])
    wanted = exact(x, t).detach()
    agree(load_pretrained("tiny-shapes-l0").to(dtype)(x.to(dtype), t).detach(), wanted, dtype, "weights and x")
    mixed = load_pretrained("tiny-shapes-l0")(x.to(dtype), t).detach()
    assert mixed.dtype == dtype and (mixed.double() - wanted).norm() < max(TOLERANCE[dtype], 3e-5) * wanted.norm()


ON_TWO_THREADS = """
import json, torch
from s2dm_mini import NoiseSchedule, TrainConfig, load_pretrained, sample, shapes, train

def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))

def results():
    x = sample(load_pretrained("nano-cifar10-l0"), noise(1, 3, 32, 32), NoiseSchedule.linear(), steps=2)
    config = TrainConfig(data="shapes", preset="nano", batch=2, steps=1, device="cpu", precision="fp32", learning_rate=1e-3, warmup=0)
    *_, record = train(config, shapes(2, size=32))
    return x, torch.cat([p.flatten() for p in record.ema.parameters()]), torch.tensor(record.loss)

runs = []
for threads in (1, 1, 2):
    torch.set_num_threads(threads)
    runs.append(results())
print(json.dumps([[(ours - first).abs().max().item() for ours, first in zip(run, runs[0])] for run in runs[1:]]))
"""


def test_threads():
    """One thread repeats itself to the bit. Two may sum in another order: pictures in −1..1, a step's weights and loss stay within 1e-4."""
    done = subprocess.run([sys.executable, "-c", ON_TWO_THREADS], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "2"})
    assert done.returncode == 0, done.stderr
    again, two = json.loads(done.stdout)
    assert again == [0.0, 0.0, 0.0]
    assert max(two) < 1e-4, two


# ------------------------------------------------------------------------------------------------------------- other systems

def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """Every call of a file, with the name of what is called, such as `open`, `os.fork` or `path.read_text`."""
    return [(ast.unparse(node.func), node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]


def without_encoding(path: Path) -> list[str]:
    """Where a text file is read or written in the system's encoding, which is not UTF-8 on Windows."""
    bad = []
    for name, call in calls(path):
        mode = next((arg.value for arg in call.args[1:2] if isinstance(arg, ast.Constant)), "r")
        text = name.endswith((".read_text", ".write_text")) or (name == "open" and "b" not in str(mode))
        passed_on = any(isinstance(arg, ast.Starred) for arg in call.args)
        if text and not passed_on and "encoding" not in {keyword.arg for keyword in call.keywords}:
            bad.append(f"{path.name}:{call.lineno} {ast.unparse(call)[:60]}")
    return bad


def test_text_files_have_an_encoding(tmp_path):
    """The package, the notebooks' scripts, and these tests, which run on Windows too."""
    every = [path for folder in ("s2dm_mini", "notebooks", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(every) > 100 and [place for path in every for place in without_encoding(path)] == []
    (tmp_path / "x.py").write_text("open(a)\nopen(a, 'w')\nopen(a, 'rb')\nb.read_text()\nb.read_text(encoding='utf-8')", encoding="utf-8")
    assert [place.split()[0] for place in without_encoding(tmp_path / "x.py")] == ["x.py:1", "x.py:2", "x.py:4"]


def test_nothing_is_called_that_windows_lacks():
    lacking = ("os.fork", "os.kill", "os.killpg", "os.getuid", "os.geteuid", "os.chown", "os.mkfifo", "os.uname", "os.nice", "os.setsid",
               "os.sysconf", "os.statvfs", "os.sched_getaffinity", "os.getloadavg", "os.sync")
    for path in PROGRAMS:
        text = path.read_text(encoding="utf-8")
        imported = {name for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.Import, ast.ImportFrom))
                    for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module])}
        assert not imported & {"fcntl", "grp", "pwd", "pty", "resource", "termios"}, path
        assert not {name for name, _ in calls(path)}.intersection(lacking), path
        assert set(re.findall(r"signal\.(SIG\w+)", text)) <= {"SIGINT", "SIGTERM"}, path
        assert "/tmp" not in text and "/dev/" not in text, path


def test_names_and_line_ends_suit_every_system():
    """Windows refuses some names, takes A for a, and git there may turn line ends, which breaks scripts of the shell."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len({name.lower() for name in names}) == len(names) > 100
    for name in names:
        assert not re.search(r'[<>:"\\|?*\x00-\x1f]|[ .](/|$)', name) and len(name) < 120, name
        assert not re.search(r"(^|/)(con|prn|aux|nul|com\d|lpt\d)(\.|/|$)", name, re.IGNORECASE), name
    ends = subprocess.run(["git", "ls-files", "--eol"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line for line in ends if not line.startswith(("i/lf", "i/-text", "i/none")) or "attr/" not in line] == []
    assert [line for line in ends if "eol=lf" not in line and not line.endswith((".safetensors", ".png"))] == []


def test_a_file_that_another_program_holds_open_is_a_sentence(tmp_path, monkeypatch):
    """As on Windows a table that a spreadsheet shows: the rename is refused."""
    (tmp_path / "table.csv").write_bytes(b"old")

    def refuse(self, target):
        raise PermissionError(13, "The process cannot access the file because it is being used by another process")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(files.WriteError, match=r"table.csv cannot be written \(.*used by another process\). What was there before"):
        files.write_whole(tmp_path / "table.csv", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"] and (tmp_path / "table.csv").read_bytes() == b"old"
