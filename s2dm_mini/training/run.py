"""The state of a training on disk: begun, saved, resumed."""
from dataclasses import asdict, fields, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import checkpoints
from ..data.images import Images, fingerprint
from ..schedule import NoiseSchedule
from ..support.machine import device_name, git_commit, seed_of
from ..unet import PRESETS, UNet
from .config import DIFFUSERS, TrainConfig

# What a resumed run may change without becoming another run.
FREE_ON_RESUME = ("steps", "images", "minutes", "device", "log_every", "save_minutes", "out")


class TrainingError(Exception):
    """Training cannot go on or be resumed; the message says why and what is kept."""


def _files(out: Path | str) -> tuple[Path, Path]:
    """What a training writes: the network to use, the state to go on from."""
    return Path(out) / "model.safetensors", Path(out) / "state.safetensors"


class _Run:
    """Where a training stands, and how that is written down and read back."""

    def __init__(self, config: TrainConfig, images: Images, device: torch.device, bf16: bool, started_from: dict | None,
                 schedule: NoiseSchedule):
        self.config, self.step, self.minutes, self.loss = config, 0, 0.0, float("nan")
        self.facts = {"data": images.name, "data_images": len(images), "data_sha256": fingerprint(images),
                      "device": device_name(device), "precision": "bf16" if bf16 else "fp32", "torch": torch.__version__,
                      "started_from": started_from, "commit": git_commit()}  # now: files may change while it runs
        self.facts |= checkpoints.schedule_entry(schedule)

    def progress(self) -> float:
        c = self.config
        parts = [self.step / c.steps if c.steps else 0, self.step * c.batch / c.images if c.images else 0,
                 self.minutes / c.minutes if c.minutes else 0]
        return min(1.0, max(parts))

    def mend(self) -> str:
        """What to say where numbers are not finite any more."""
        out = self.config.out
        kept = f"The checkpoint in {out} from before is kept; start = {_files(out)[0]} begins another training from it. " \
            if out and _files(out)[1].exists() else ""
        return f"{kept}A smaller learning_rate than {self.config.learning_rate} usually helps."

    def save(self, model: nn.Module, emas: dict[float, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        """model.safetensors to use (the averaged network, fp16), then state.safetensors to resume from (full precision).

        In this order: killed in between, a training is resumed from before and comes by here again. The other way round it could be
        found finished and its network missing.
        """
        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        for decay, ema in emas.items():
            tensors |= {f"{self.prefix(decay)}.{name}": value for name, value in ema.state_dict().items()}
        for i, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{name}": value for name, value in moments.items()}
        if not all(bool(value.isfinite().all()) for value in tensors.values()):  # the last step can spoil them after a finite loss
            raise TrainingError(f"the weights are not finite after step {self.step}; training stops. {self.mend()}")
        config = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self.config).items()}
        record = {**self.facts, "config": {k: v for k, v in config.items() if k != "out"}, "steps": self.step,
                  "images_seen": self.step * self.config.batch, "minutes": round(self.minutes, 2), "loss": self.loss}
        # Numbers go through the header as exact decimal texts: floats in JSON survive a round trip.
        header = {"unet": model.config.to_dict(), "record": record, "minutes": self.minutes}
        network, state = _files(self.config.out)
        for decay, ema in emas.items():
            path = network if decay == self.config.ema_decay else network.with_name(f"model-ema-{decay:g}.safetensors")
            checkpoints.save_model(path, ema, record)
        checkpoints.write_tensors(state, tensors, header)

    def prefix(self, decay: float) -> str:
        """Of an average's tensors in the state."""
        return "ema" if decay == self.config.ema_decay else f"ema-{decay:g}"

    def load(self, model: nn.Module, emas: dict[float, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        path = _files(self.config.out)[1]
        tensors, header = checkpoints.read_tensors(path)
        now = asdict(self.config)
        pick = lambda prefix: {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}  # noqa: E731
        try:
            record = header["record"]
            before = record["config"]
            for name, default in ((f.name, f.default) for f in fields(self.config) if f.name not in FREE_ON_RESUME):
                then = before.get(name, default)  # a setting younger than the file was at its default
                then = tuple(then) if isinstance(then, list) else then  # JSON knows no tuples
                if then != now[name]:
                    raise TrainingError(f"{path} was trained with {name} = {then!r}, this run asks for {now[name]!r}. "
                                        f"Resume with the same value, or train anew in another folder.")
            if record["data_sha256"] != self.facts["data_sha256"]:
                raise TrainingError(f"{path} was trained on other images than these ({record['data']}, hash {record['data_sha256']}).")
            if record.get("alpha_bar") != self.facts.get("alpha_bar"):
                raise TrainingError(f"{path} was trained with another noise schedule than the one that {self.config.start} has now.")
            self.step, self.minutes, self.loss = record["steps"], header["minutes"], record["loss"]
            model.load_state_dict(pick("model."))
            for decay, ema in emas.items():
                ema.load_state_dict(pick(f"{self.prefix(decay)}."))
            adam = optimizer.state_dict()
            adam["state"] = {i: {name: _laid_out_like(weight, value) for name, value in pick(f"adam.{i}.").items()}
                             for i, weight in enumerate(optimizer.param_groups[0]["params"])}
            optimizer.load_state_dict(adam)
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise checkpoints.CheckpointError(f"{path} is not the state of a training: {type(error).__name__}, "
                                              f"{' '.join(str(error).split())[:300]}") from error


def _laid_out_like(weight: Tensor, value: Tensor) -> Tensor:
    """A moment of Adam in its weight's order of memory: the fused Adam walks through both side by side."""
    return torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value  # the step count is one number


def _opened(config: TrainConfig) -> tuple[nn.Module | None, dict | None, NoiseSchedule]:
    """What `start` names, if anything, its training record, and the schedule to train with."""
    if config.start is None:
        return None, None, NoiseSchedule.linear(config.T)
    start, diffusers, known = config.start, config.preset == DIFFUSERS, config.start in checkpoints.zoo()
    if diffusers and not known and Path(start).suffix != ".safetensors":
        model, schedule = checkpoints.interop().open_pipeline(start, config.T)
        record = {"pipeline": start, "network_sha256": checkpoints.network_hash(model)}
    elif not known and not Path(start).is_file():
        raise checkpoints.CheckpointError(f"{start} cannot be read: no shipped network has that name, and it is no file such as "
                                          f"runs/x/model.safetensors; for a pipeline of diffusers set preset = {DIFFUSERS}.")
    else:
        model, record = checkpoints.load_model(checkpoints.pretrained_file(start) if known else start)
        if isinstance(model, UNet) == diffusers:
            mend = "the one it was trained as" if diffusers else DIFFUSERS
            raise TrainingError(f"{start} is not a {config.preset} network: set preset to {mend}.")
        schedule = checkpoints.schedule_of(record) if diffusers else NoiseSchedule.linear(config.T)
    if schedule.T != config.T:
        raise TrainingError(f"{start} was trained with T = {schedule.T} timesteps, not {config.T}: set T = {schedule.T}.")
    return model, record, schedule


def _new_model(config: TrainConfig, start: nn.Module | None, classes: int) -> nn.Module:
    """The network to train: fresh weights drawn from the seed, or the one to start from.

    A `UNet` that takes no labels may be taught them.
    """
    if config.preset == DIFFUSERS:
        return start.requires_grad_(True)
    unet = replace(PRESETS[config.preset], classes=classes)
    if start is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(config.seed, 2))
            return UNet(unet)
    if classes and not start.config.classes:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(config.seed, 2))
            start = start.with_classes(classes)
    if replace(start.config, dropout=unet.dropout) != unet:
        raise TrainingError(f"{config.start} is not a {config.preset} network{f' of {classes} classes' if classes else ''}: "
                            f"it has {start.config}.")
    return start.requires_grad_(True)
