"""Enters files in the zoo, the networks and references that the package ships."""
import json
from pathlib import Path

from s2dm_mini import checkpoints
from s2dm_mini.support.files import sole_writer, write_whole


def add_to_zoo(path: Path | str, name: str) -> Path:
    """Copy a trained network into the zoo and enter it, with its training record, in the manifest."""
    model, record = checkpoints.load_model(path)
    target = checkpoints.ZOO / f"{name}.safetensors"
    checkpoints.save_model(target, model, record)
    ship(name, target, {"parameters": sum(p.numel() for p in model.parameters()), "unet": model.config.to_dict(), "record": record})
    return target


def ship(name: str, path: Path, entry: dict) -> None:
    """Enter a file of the zoo's folder in the manifest."""
    with sole_writer(checkpoints.ZOO / "manifest.json", wait=True):
        entries = checkpoints.manifest() | {name: {"file": path.name, "sha256": checkpoints.sha256(path), **entry}}
        write_whole(checkpoints.ZOO / "manifest.json", (json.dumps(entries, indent=1, sort_keys=True) + "\n").encode())
