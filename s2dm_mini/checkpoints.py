"""Checkpoints: safetensors files with a JSON header; and the zoo of shipped networks.

The header entry `s2dm_mini` holds the network's configuration (of a `UNet`, or diffusers' own of a `UNet2DModel`) and the record of
its training. Files are untrusted input: sizes are limited, and nothing is unpickled.
"""
import hashlib
import importlib
import json
import os
from pathlib import Path
from types import ModuleType

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from .schedule import NoiseSchedule
from .support.checks import require, shown, similar
from .support.files import MAX_HEADER, reason, write_whole
from .unet import UNet, UNetConfig

_PACKAGED = Path(__file__).resolve().parent / "checkpoints_shipped"  # data/checkpoints in a wheel
ZOO = _PACKAGED if _PACKAGED.exists() else Path(__file__).resolve().parent.parent / "data" / "checkpoints"
MAX_BYTES = 2 << 30  # the training state of any preset is smaller


class CheckpointError(Exception):
    """A checkpoint that is missing, damaged or of another kind; the message names the file and the reason."""


def write_tensors(path: Path | str, tensors: dict[str, Tensor], header: dict) -> None:
    """Write named tensors and a JSON header. Raises WriteError."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(Path(path), save(tensors, metadata={"s2dm_mini": json.dumps(header)}))


def read_tensors(path: Path | str) -> tuple[dict[str, Tensor], dict]:
    """Read the tensors and the header of a file by `write_tensors`. Raises CheckpointError."""
    content = _read(Path(path))
    try:
        length = int.from_bytes(content[:8], "little")
        require(length <= MAX_HEADER, f"its header claims {length:,} bytes, at most {MAX_HEADER:,} are possible")
        tensors, header = load(content), json.loads(json.loads(content[8:8 + length])["__metadata__"]["s2dm_mini"])
        if not isinstance(header, dict):
            raise TypeError
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file ({error}).") from error
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is a safetensors file, but not one of this package: its header has no `s2dm_mini` entry.") from error
    return tensors, header


def _read(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) <= MAX_BYTES:
            return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    raise CheckpointError(f"{path} has {size:,} bytes, more than any checkpoint of this package ({MAX_BYTES:,}).")


def sha256(path: Path) -> str:
    """SHA-256 of a file's content. Raises CheckpointError if it cannot be read."""
    return hashlib.sha256(_read(path)).hexdigest()


def save_model(path: Path | str, model: nn.Module, record: dict, dtype: torch.dtype = torch.float16) -> None:
    """Write a `UNet` or `DiffusersDenoiser`: its weights, rounded to `dtype`, its configuration and its training record.

    Wrappers, such as those of torch.compile and DistributedDataParallel, are taken off. Raises ValueError for any other network.
    """
    model = unwrapped(model)
    tensors = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    write_tensors(path, tensors, {"unet": model.config.to_dict(), "record": record})


def unwrapped(model: nn.Module) -> nn.Module:
    """The `UNet` or `DiffusersDenoiser` inside the wrappers of torch.compile and DistributedDataParallel."""
    inner = next((part for name in ("_orig_mod", "module") if isinstance(part := getattr(model, name, None), nn.Module)), None)
    if inner is not None:
        return unwrapped(inner)
    holds = hasattr(getattr(model, "config", None), "to_dict")
    require(holds, f"a checkpoint holds a UNet or a DiffusersDenoiser, not a {type(model).__name__}")
    return model


def load_model(path: Path | str, device: torch.device | str = "cpu") -> tuple[nn.Module, dict]:
    """Read a network by `save_model`, in float32, in eval mode, without gradients, and its training record. Raises CheckpointError."""
    tensors, header = read_tensors(path)
    try:
        config = header["unet"]
        if isinstance(config, dict) and "_class_name" in config:  # a configuration of diffusers
            model = interop().without_weights(config)
        else:
            with torch.device("meta"):  # shapes only, so that a header cannot claim more memory than the file holds
                model = UNet(UNetConfig(**config))
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if Path(path).name == "state.safetensors":
            raise CheckpointError(f"{path} is the state of a training: name its network, model.safetensors beside it.") from error
        raise CheckpointError(f"{path} does not hold a network of this package: {reason(error)}") from error
    record = header.get("record", {})
    if not isinstance(record, dict):
        raise CheckpointError(f"{path} has no record of a training in its header, but {shown(record)}.")
    return model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False), record


def interop() -> ModuleType:
    """The package's interop with diffusers. Raises CheckpointError where diffusers is not installed."""
    try:
        return importlib.import_module(".interop", __package__)
    except ModuleNotFoundError as error:
        raise CheckpointError(f"this is a network of diffusers, and {error.name} is not installed: pip install diffusers") from error


def schedule_of(record: dict) -> NoiseSchedule:
    """The noise schedule of a training record: its `alpha_bar`, or else DDPM's linear schedule. Raises CheckpointError."""
    try:
        return NoiseSchedule(record["alpha_bar"]) if "alpha_bar" in record else NoiseSchedule.linear(record["config"]["T"])
    except (KeyError, TypeError) as error:
        raise CheckpointError("the checkpoint does not say which schedule it was trained with: its record has no config with T.") from error


def schedule_entry(schedule: NoiseSchedule) -> dict:
    """The entry of a training record that `schedule_of` reads, exact to the bit; empty for DDPM's linear schedule."""
    alpha_bar = schedule.alpha_bar.cpu()
    return {} if alpha_bar.equal(NoiseSchedule.linear(schedule.T).alpha_bar) else {"alpha_bar": alpha_bar.tolist()}


def network_hash(network: nn.Module) -> str:
    """The first 16 digits of the SHA-256 of names and float32 weights."""
    digest = hashlib.sha256()
    for name, value in unwrapped(network).state_dict().items():
        digest.update(name.encode() + value.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def images_seen(record: dict) -> int:
    """Images seen in training, including those of the networks of this package that it was fine-tuned from."""
    return record.get("images_seen", 0) + (images_seen(record["started_from"]) if record.get("started_from") else 0)


def manifest() -> dict[str, dict]:
    """The shipped files: name → file, sha256 and a description."""
    try:
        return json.loads((ZOO / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def zoo() -> dict[str, dict]:
    """The shipped diffusion networks: name → file, sha256, parameters, unet, record of the training."""
    return {name: entry for name, entry in manifest().items() if "unet" in entry}


def pretrained_file(name: str) -> Path:
    """The path of a shipped file. Raises CheckpointError for an unknown name and for a file with another SHA-256."""
    known = manifest()
    if not isinstance(name, str) or name not in known:
        hint = similar(name, known)
        if isinstance(name, str) and os.path.isfile(file := Path(name) / "model.safetensors"):  # False also for impossible names
            hint = f" It is the folder of a training, whose network is {file.as_posix()}."
        raise CheckpointError(f"no checkpoint is called {shown(name)}.{hint} Known: {', '.join(sorted(zoo())) or 'none'}.")
    path = ZOO / known[name]["file"]
    found, wanted = sha256(path), known[name]["sha256"]
    if found != wanted:
        raise CheckpointError(f"{path} is not the file that was shipped: its SHA-256 is {found[:12]}…, the manifest says {wanted[:12]}…. "
                              f"Restore it with `git checkout -- {path.name}` in its folder.")
    return path


def load_pretrained(name: str, device: torch.device | str = "cpu") -> UNet:
    """A shipped network, by name. Raises CheckpointError."""
    return load_model(pretrained_file(name), device)[0]


def open_network(checkpoint: str, device: torch.device | str = "cpu") -> tuple[nn.Module, dict]:
    """A network and its training record, by shipped name or by a file that `train` wrote. Raises CheckpointError."""
    is_file = checkpoint not in zoo() and Path(checkpoint).suffix == ".safetensors"
    return load_model(checkpoint if is_file else pretrained_file(checkpoint), device)
