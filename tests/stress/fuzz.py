"""Damages what the package reads and counts what it makes of that: python tests/stress/fuzz.py

    python tests/stress/fuzz.py                                   # 100,000 inputs for each reader; rows in data/results/hardness.csv
    python tests/stress/fuzz.py --only checkpoint --inputs 500    # a look at one; adds no row
    python tests/stress/fuzz.py --only checkpoint --first 1234 --inputs 1    # one input again: its number is all that it depends on

An input is survived if what comes out is right or one of the package's own errors, within seconds and with no memory to speak of. Inputs
are whole files with bytes changed, lost or doubled, and files written by the rules whose contents make no sense.
"""
import argparse
import copy
import json
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
import torch

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = map(str, (TESTS, TESTS.parent))  # the package beside these tests, whichever is installed

import test_bad_input as bad  # noqa: E402

from s2dm_mini import checkpoints, data  # noqa: E402
from s2dm_mini.data import cifar10  # noqa: E402
from s2dm_mini.measure import metrics  # noqa: E402
from s2dm_mini.measure.references import read_reference  # noqa: E402
from s2dm_mini.series import reproduce  # noqa: E402
from s2dm_mini.study import tables  # noqa: E402
from s2dm_mini.unet import UNet, UNetConfig  # noqa: E402

OWN = (checkpoints.CheckpointError, data.DataError, tables.ResultsError, reproduce.ReproductionError)
SECONDS, MEMORY = 60, 3 << 30  # for one input; the seconds are many, since other work may be going on
RECORDS = 2  # in a CIFAR-10 file, instead of 10,000: the reader does not care, and files stay small

# ------------------------------------------------------------------------------------------------------- damage

ODDITIES = (None, True, False, -1, 0, 1, 2, 7, 2**31, 2**40, 2**63, 2**64, 10**30, -10**12, 0.5, -0.5, 1e308, float("inf"), float("nan"),
            "", "x", "4", "nano", "../../etc/passwd", "\0", "\ud800", "ε" * 300, [], {}, [[]], [0], [-1, -1], [4, 4], [2**40], ["4"],
            {"": 0}, {"x": []}, [0] * 5_000, [[[[[[[[]]]]]]]])


def damaged(rng: random.Random, whole: bytes) -> bytes:
    """A file with one to four places changed."""
    content = bytearray(whole)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content) + 1) if rng.random() < 0.5 else rng.randrange(min(len(content), 200) + 1)  # often near the start
        length = min(int(2 ** rng.uniform(0, 12)), len(content) - at)
        match rng.randrange(7):
            case 0:
                content[at:at + 1] = bytes([rng.randrange(256)])
            case 1:
                content[at:at + 1] = rng.choice((b"\0", b"\xff", b"\x7f", b"\n", b"\r", b'"', b",", b"{", b"]", b"9", b"-"))
            case 2:
                del content[at:at + length]
            case 3:
                content[at:at] = content[at:at + length]
            case 4:
                content[at:at] = rng.randbytes(min(length, 64))
            case 5:
                del content[at:]
            case 6:
                content[at:at + 8] = rng.choice((0, 1, 2**20, 2**31, 2**62, 2**64 - 1)).to_bytes(8, rng.choice(("little", "big")))
    return bytes(content)


def odd(rng: random.Random, value: object) -> object:
    """A JSON value with one to three of its parts replaced, removed, doubled or renamed."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        place = value
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place))) if isinstance(place, list) else []
            if not keys:
                return copy.deepcopy(rng.choice(ODDITIES))
            key = rng.choice(keys)
            if isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.7:
                place = place[key]
                continue
            break
        match rng.randrange(4):
            case 0 | 1:
                place[key] = copy.deepcopy(rng.choice(ODDITIES))
            case 2:
                del place[key]
            case 3:
                if isinstance(place, dict):
                    place[rng.choice(("", "x", "unet", "record", key + "2"))] = copy.deepcopy(place[key])
                else:
                    place.append(copy.deepcopy(place[key]))
    return value


# ------------------------------------------------------------------------------------------------------- readers
# Each takes a generator and an empty folder, and fails with an assertion, or any error but OWN, where something is wrong.

def cifar10_file(rng: random.Random, folder: Path) -> None:
    records = np.frombuffer(rng.randbytes(RECORDS * cifar10.RECORD_BYTES), np.uint8).reshape(RECORDS, -1).copy()
    records[:, 0] %= rng.choice((10, 11, 255))
    content = records.tobytes()
    (folder / "a.bin").write_bytes(content if rng.random() < 0.5 else damaged(rng, content))
    found = cifar10._read_cifar10_file(folder / "a.bin")
    assert found.shape == (RECORDS, cifar10.RECORD_BYTES) and found[:, 0].max() <= 9


def safetensors_file(rng: random.Random, tensors: dict[str, torch.Tensor], ours: object) -> bytes:
    """The bytes of a file of tensors with our header in it: damaged, or written by the rules with contents that make no sense."""
    parts, header, at = [], {}, 0
    for name, tensor in tensors.items():
        parts.append(tensor.contiguous().numpy().tobytes())
        kind = {torch.float16: "F16", torch.float32: "F32", torch.float64: "F64"}[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [at, at + len(parts[-1])]}
        at += len(parts[-1])
    way = rng.random()
    if way < 0.35:
        ours = odd(rng, ours)
    text = json.dumps(ours)
    if 0.35 < way < 0.4:
        text = rng.choice((text[:-1], "[" * 20_000, "1" * 5_000, '{"a":' * 2_000, "", "NaN", text + text))
    header["__metadata__"] = {"s2dm_mini": text}
    if 0.4 < way < 0.65:
        name = rng.choice(list(tensors))
        header[name] = odd(rng, header[name]) if rng.random() < 0.6 else header[name] | rng.choice((
            {"dtype": rng.choice(("F64", "F8_E4M3", "BOOL", "I64", "U8", "C64", "BF16", "F4"))}, {"shape": [2**62, 4]}, {"shape": []},
            {"data_offsets": header[rng.choice(list(tensors))]["data_offsets"]}, {"data_offsets": [at, 0]}))
    encoded = json.dumps(header).encode()
    if rng.random() < 0.05:  # a name twice, which JSON allows and dictionaries forget
        encoded = encoded[:-1] + b"," + encoded[1:]
    whole = len(encoded).to_bytes(8, "little") + encoded + b"".join(parts)
    return damaged(rng, whole) if way > 0.6 else whole


CONFIG = UNetConfig(image_size=4, image_channels=1, channels=(4,), blocks_per_level=1, norm_groups=1, attention_levels=())
WEIGHTS = {name: value.half() for name, value in UNet(CONFIG).state_dict().items()}
HEADER = {"unet": CONFIG.to_dict() | {"channels": [4], "attention_levels": []},
          "record": {"config": {"T": 10, "data": "shapes", "skip": 9, "tau": 1.0}, "images_seen": 3, "started_from": None, "steps": 1}}


def checkpoint(rng: random.Random, folder: Path) -> None:
    path = folder / "m.safetensors"
    path.write_bytes(safetensors_file(rng, WEIGHTS, HEADER))
    model, record = checkpoints.load_model(path)
    assert isinstance(record, dict) and sum(p.nbytes for p in model.parameters()) <= 8 * path.stat().st_size


def diffusers_checkpoint(rng: random.Random, folder: Path) -> None:
    """The same for a network of diffusers, whose configuration diffusers itself hardly looks at."""
    path, network = folder / "m.safetensors", diffusers_network()
    weights = {name: value.half() for name, value in network.state_dict().items()}
    path.write_bytes(safetensors_file(rng, weights, HEADER | {"unet": odd(rng, network.config.to_dict())}))
    model, record = checkpoints.load_model(path)
    assert isinstance(record, dict) and sum(p.nbytes for p in model.parameters()) <= 8 * path.stat().st_size
    assert model(torch.zeros(1, *model.config.shape), torch.tensor([3])).shape == (1, *model.config.shape)


@cache
def diffusers_network() -> torch.nn.Module:
    from diffusers import UNet2DModel

    return checkpoints.interop().as_denoiser(UNet2DModel(
        sample_size=4, in_channels=1, out_channels=1, block_out_channels=(4, 4), layers_per_block=1, norm_num_groups=1,
        attention_head_dim=2, down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D")))


class Features:
    name, hash = "averages", "0123456789abcdef"


REFERENCE = {"mean": torch.zeros(2).double(), "covariance": torch.eye(2).double(), "features": torch.ones(3, 2).half()}
REFERENCE_HEADER = {"reference": {"n": 5, "data": "x", "data_sha256": "0" * 16, "features": "averages", "features_sha256": Features.hash}}


def reference(rng: random.Random, folder: Path) -> None:
    path = folder / "r.safetensors"
    path.write_bytes(safetensors_file(rng, REFERENCE, REFERENCE_HEADER))
    found = read_reference(path, Features)
    assert found.features.isfinite().all() and found.moments.covariance.isfinite().all()
    metrics.frechet_distance(found.moments, found.moments)


def results_table(rng: random.Random, folder: Path) -> None:
    path = folder / "t.csv"
    cells = ("a", "1.5", "", "a,b", 'say "x"', "two\nlines", "\r", "ε τ ²", "nan", " ", "'", "=1+1", "a\tb", 3, -0.0, float("inf"), True)
    odd_cells = (*cells, "\0", "\ud800", None, b"x", [1, "\n"], {}, "x" * 200_000)
    columns = rng.sample(("a", "b", "c d", "é", "x,y", '"', "\n", "1"), rng.randint(1, 4))
    try:
        wanted = [{column: rng.choice(cells if rng.random() < 0.95 else odd_cells) for column in columns} for _ in range(rng.randint(1, 4))]
        for row in wanted[:-1]:
            tables.append_row(path, row)
        before = path.read_bytes() if path.exists() else b""
        tables.append_row(path, wanted[-1], key=tuple(columns[:1]) if rng.random() < 0.3 else ())
    except ValueError as error:
        assert "must be a value that can be written as a text" in str(error)
    else:
        there = tables.read_rows(path)
        texts = [{column: str(value) for column, value in row.items()} for row in wanted]
        assert there == texts or (there == texts[:-1] and before == path.read_bytes()), "rows must come back as they went in"
    if path.exists():
        path.write_bytes(damaged(rng, path.read_bytes()))
        for row in tables.read_rows(path):
            assert all(isinstance(cell, str) for cell in row.values())
        tables.append_row(path, dict.fromkeys(columns, "x"))


NOTEBOOK = nbformat.v4.new_notebook(cells=[
    nbformat.v4.new_markdown_cell("# Title\n\nA promise.", id="a"),
    nbformat.v4.new_code_cell('profile = "quick"\nseed = 0\ntau, skip = 0.9, [1]', id="b", metadata={"tags": ["parameters"]})])


def parameters(rng: random.Random, folder: Path) -> None:
    path = folder / "00_a.ipynb"
    text, way = nbformat.writes(NOTEBOOK).encode(), rng.random()
    if way < 0.7:
        text = damaged(rng, text) if way < 0.4 else json.dumps(odd(rng, json.loads(text))).encode()
    path.write_bytes(text)
    names = reproduce.parameter_names(path)
    assert all(isinstance(name, str) for name in names)
    value = rng.choice(("1", "0.5", "quick", "'a'", "[1, 2]", "(" * rng.choice((3, 300, 3_000)), "[" * 90 + "]" * 90, "{[]: 1}", "None",
                        "-" * 3_000 + "1", "1" * 5_000, "__import__('os').system('false')", "\0", "a=b", "", "1e999", "{1, 2}", "b'x'",
                        "9" * 400 + "j", "lambda: 0"))
    if rng.random() < 0.5:
        value = damaged(rng, value.encode()).decode(errors="replace")
    for name in reproduce._parse([f"{rng.choice((*names, 'seed', 'sed', ''))}{rng.choice('==: ')}{value}"], names):
        assert name in names


def arguments(rng: random.Random, folder: Path) -> None:
    """Any number of the arguments of a public function replaced by something else at the same time."""
    function, given = bad.drawn(rng)
    bad.judge(function, given)


READERS: dict[str, tuple[Callable[[random.Random, Path], None], str]] = {
    "cifar10-file": (cifar10_file, "damaged CIFAR-10 files"),
    "checkpoint": (checkpoint, "damaged checkpoints"),
    "diffusers-checkpoint": (diffusers_checkpoint, "damaged checkpoints of diffusers' networks"),
    "reference": (reference, "damaged references of the metrics"),
    "results": (results_table, "odd and damaged tables of results"),
    "parameters": (parameters, "damaged notebooks and odd parameters of them"),
    "arguments": (arguments, "odd arguments of public functions"),
}


# -------------------------------------------------------------------------------------------------------- running

def failures_of(reader: str, inputs: range, folder: Path) -> list[str]:
    """What went wrong, each with the number of its input."""
    found, limit = [], resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="utf-8") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()

    def stop(*_):
        raise TimeoutError(f"no answer within {SECONDS} s")

    records, cifar10.RECORDS_PER_FILE = cifar10.RECORDS_PER_FILE, RECORDS
    previous = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limit[1]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number in inputs:
                signal.setitimer(signal.ITIMER_REAL, SECONDS)
                with tempfile.TemporaryDirectory(dir=folder) as empty:
                    try:
                        READERS[reader][0](random.Random(f"{reader} {number}"), Path(empty))
                    except OWN:
                        pass
                    except Exception as error:  # everything that is none of ours is what is looked for
                        found.append(f"input {number}: {type(error).__name__}: {error}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        resource.setrlimit(resource.RLIMIT_AS, limit)
        cifar10.RECORDS_PER_FILE = records
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=READERS, nargs="+", default=list(READERS))
    parser.add_argument("--inputs", type=int, default=100_000, help="for each reader")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    options = parser.parse_args()
    torch.set_num_threads(1)
    inputs, tried, failed = range(options.first, options.first + options.inputs), 0, 0
    memory = Path("/dev/shm")  # files that are written a hundred thousand times belong in memory
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        for reader in options.only:
            start, found = time.perf_counter(), []
            for at in range(0, len(inputs), 1_000):
                found += failures_of(reader, inputs[at:at + 1_000], Path(folder))
                print(f"\r{reader}: {min(at + 1_000, len(inputs)):,} inputs, {len(found)} failures", end="", file=sys.stderr, flush=True)
            print(file=sys.stderr)
            for line in found[:50]:
                print(f"{reader}, {line}".encode(errors="backslashreplace").decode())
            tried, failed = tried + len(inputs), failed + len(found)
            if options.inputs >= 100_000:
                from table import record

                record(READERS[reader][1], len(inputs), len(inputs) - len(found), time.perf_counter() - start,
                       f"python tests/stress/fuzz.py --only {reader}")
    print(f"inputs tried {tried}, failures {failed}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
