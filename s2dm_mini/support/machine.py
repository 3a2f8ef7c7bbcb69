"""The device, its name, the commit, and seeds: the facts a result is stamped with."""
import platform
import subprocess
from pathlib import Path

import numpy as np
import torch


def git_commit() -> str:
    """The commit this package runs from, with a + if files differ from it; `unknown` outside a checkout."""
    try:
        git = ["git", "-C", str(Path(__file__).parent)]
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


def seed_of(*key: int) -> int:
    """A 32-bit seed from several integers, such as (seed, step, shard), well mixed."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def best_device() -> str:
    """cuda where there is one, else cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16, which makes them faster than those of float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    cpuinfo = Path("/proc/cpuinfo")  # Linux; elsewhere training stays in float32
    return cpuinfo.exists() and any(flag in cpuinfo.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def device_name(device: torch.device) -> str:
    """What to write beside a measurement: the GPU's name, or the CPU's model and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")  # Linux; elsewhere Python's own word for the processor must do
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    model = names[0] if names else platform.processor() or platform.machine()
    return f"{model}, {torch.get_num_threads()} threads"
