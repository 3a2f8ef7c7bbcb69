"""Devices and their names, the commit, the stamp of a result, and seeds."""
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from .checks import require

CPUINFO = Path("/proc/cpuinfo")  # Linux only


def best_device() -> str:
    """`cuda` where there is a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def open_device(name: str) -> torch.device:
    """The device `cpu`, `cuda` or, by number, `cuda:1`; `auto` takes a GPU where there is one.

    Raises ValueError for any other name and for a GPU that this machine lacks.
    """
    require(isinstance(name, str) and re.fullmatch(r"auto|cpu|cuda(:\d\d?)?", name), "device must be auto, cpu or cuda", name)
    device, found = torch.device(best_device() if name == "auto" else name), torch.cuda.device_count()
    require(device.type == "cpu" or (device.index or 0) < found,
            f"device = {name} needs a GPU that PyTorch does not find here ({found} found): choose auto or cpu")
    return device


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's model and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = [line.split(":")[1].strip() for line in _cpuinfo().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware, and so faster than float32; False for a CPU outside Linux."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return any(flag in _cpuinfo() for flag in ("avx512_bf16", "amx_bf16"))


def _cpuinfo() -> str:
    return CPUINFO.read_text(encoding="utf-8", errors="replace") if CPUINFO.exists() else ""


def git_commit() -> str:
    """The commit of this checkout, followed by + if tracked files differ from it; `unknown` where git does not track this file."""
    here = Path(__file__)

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(here.parent), *words], capture_output=True, errors="replace", check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def stamp(device: torch.device) -> dict[str, str]:
    """The last columns of a result: the device's name, PyTorch's version, the commit, and the date and time in UTC.

    The keys are device, torch, commit and date, in this order.
    """
    return {"device": device_name(device), "torch": torch.__version__, "commit": git_commit(),
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M")}


def seed_of(*key: int) -> int:
    """A 32-bit seed from several integers, such as (seed, step, shard), by NumPy's SeedSequence."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])
