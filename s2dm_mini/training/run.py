"""A training under way: its networks, optimizer and clock, and their state on disk."""
import copy
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, fields
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from .. import checkpoints
from ..data.images import Images, fingerprint
from ..support.files import reason, sole_writer
from ..support.machine import device_name, git_commit, multiplies_bf16
from .config import TrainConfig
from .setup import TrainingError, is_first_process, new_model, open_images, open_processes, open_start

RECORD_SECONDS = 10  # the longest time between two records, so that a caller can stop a training of slow steps
# Settings that may change when a run is resumed.
FREE_ON_RESUME = ("steps", "images", "minutes", "device", "record_step", "log_every", "save_minutes", "keep_images", "out")


def files(config: TrainConfig) -> list[Path]:
    """The files of a training in config.out: its averaged networks, that of `ema_decay` first, and last its state."""
    names = ("model", *(f"model-ema-{decay:g}" for decay in config.ema_others), "state")
    return [Path(config.out) / f"{name}.safetensors" for name in names]


@contextmanager
def claimed(config: TrainConfig, resume: bool) -> Iterator[None]:
    """Be the only training into config.out. Raises TakenError, WriteError, and TrainingError rather than overwrite another training."""
    if resume and config.out is None:
        raise ValueError("to resume, set out to the folder of the run.")
    if resume and not files(config)[-1].exists():
        raise TrainingError(f"{config.out} holds no training to resume: begin one without resume, or name the folder of another.")
    with sole_writer(*files(config)) if config.out is not None and is_first_process() else nullcontext():
        if config.out is not None and not resume and files(config)[-1].exists():
            raise TrainingError(f"{config.out} already holds a training, which this one would overwrite: resume it, choose another folder, "
                                f"or delete its state.safetensors.")
        yield


class Run:
    """The state of a training: all that the loop changes, saved in config.out and read back to resume."""

    def __init__(self, config: TrainConfig, images: Images | None, resume: bool):
        self.config = config
        self.accelerator, self.device, self.shards = open_processes(config)
        self.bf16 = config.precision == "bf16" or (config.precision == "auto" and multiplies_bf16(self.device))
        start, started_from, schedule = open_start(config)
        self.images = open_images(config, images, start)
        self.facts = {"data": self.images.name, "data_images": len(self.images), "data_sha256": fingerprint(self.images),
                      "device": device_name(self.device), "precision": "bf16" if self.bf16 else "fp32", "torch": torch.__version__,
                      "started_from": started_from, "commit": git_commit(),  # now, since files may change while it runs
                      **checkpoints.schedule_entry(schedule)}
        self.schedule = schedule.to(self.device)
        self.model = new_model(config, start, len(self.images.classes) if config.label_dropout < 1 else 0).to(self.device)
        self.emas = {decay: copy.deepcopy(self.model).eval().requires_grad_(False) for decay in (config.ema_decay, *config.ema_others)}
        others = {f"ema-{decay:g}": self.emas[decay] for decay in config.ema_others}
        self.networks = {"model": self.model, "ema": self.emas[config.ema_decay], **others}  # by their names in state.safetensors
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate, betas=(0.9, config.beta2), fused=True)
        self.step, self.minutes, self.loss = 0, 0.0, math.nan
        self.history: list[list[float]] = []  # a row a save: images seen, mean loss since the last save, minutes
        self.losses: list[float] = []  # of the records since the last save
        if resume:
            self._load()
        self.logged_step, self.tick = self.step, time.monotonic()
        self.saved_at = self.tick

    def progress(self, seconds: float = 0.0) -> float:
        """Share of the budget spent, 0..1; seconds: since the last record."""
        c = self.config
        return min(1.0, max(self.step / c.steps if c.steps else 0, self.step * c.batch / c.images if c.images else 0,
                            (self.minutes + seconds / 60) / c.minutes if c.minutes else 0))

    def due(self) -> bool:
        """Whether a record follows this step: every `log_every` steps, after RECORD_SECONDS, and at the end of the budget."""
        seconds = 0.0 if self.accelerator else time.monotonic() - self.tick  # several processes must agree, and their clocks do not
        return self.step % self.config.log_every == 0 or seconds >= RECORD_SECONDS or self.progress(seconds) >= 1

    def log(self, total: Tensor) -> float:
        """Read the loss, summed over the steps since the last record, and the clock; save if it is time. Returns images per second.

        Raises TrainingError for a loss that is not finite.
        """
        steps = self.step - self.logged_step
        mean = self.accelerator.reduce(total / steps, "mean") if self.accelerator else total / steps
        self.loss = float(mean)  # waits for the device, so that the clock counts its work
        seconds = time.monotonic() - self.tick
        if self.accelerator:  # all processes go by the slowest clock, to stop at the same step
            seconds = float(self.accelerator.gather(torch.tensor([seconds], device=self.device)).max())
        self.minutes += seconds / 60
        if not math.isfinite(self.loss):
            raise TrainingError(f"the loss became {self.loss} between steps {self.logged_step} and {self.step}; training stops. "
                                f"{self._mend()}")
        self.losses.append(self.loss)
        passed = [n for n in self.config.keep_images if self.logged_step < n / self.config.batch <= self.step]
        self.logged_step, self.tick = self.step, time.monotonic()
        finished = self.progress() >= 1
        span = 1 / (1 - self.config.ema_decay)
        if finished and not self.config.ema_ramp and self.step < span:
            warnings.warn(f"the averaged network still holds much of the first weights: ema_decay = {self.config.ema_decay} averages over "
                          f"{span:,.0f} steps, and the training had {self.step:,}; set ema_ramp, or a smaller ema_decay.", stacklevel=3)
        if finished or passed or self.tick - self.saved_at >= 60 * self.config.save_minutes:
            self.save(keep=passed)
            self.saved_at = time.monotonic()
        if finished and self.accelerator:
            self.accelerator.wait_for_everyone()  # so that each finds the files
        return steps * self.config.batch / max(seconds, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock while the caller holds a record; save if the caller closes the generator there."""
        try:
            yield
        except GeneratorExit:
            self.save()
            raise
        self.tick = time.monotonic()

    def save(self, keep: Sequence[int] = ()) -> None:
        """Write the averaged networks (fp16, to use), then state.safetensors (full precision, to resume from).

        Network first: if killed between the writes, the run resumes from the older state and writes both again. keep: also write
        the first averaged network under these numbers of images. Raises TrainingError for weights that are not finite.
        """
        if self.config.out is None or not is_first_process():
            return
        tensors = {f"{name}.{key}": value for name, network in self.networks.items() for key, value in network.state_dict().items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{name}": value for name, value in moments.items()}
        if not all(bool(value.isfinite().all()) for value in tensors.values()):  # the last step can spoil them after a finite loss
            raise TrainingError(f"the weights are not finite after step {self.step}; training stops. {self._mend()}")
        config = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self.config).items() if name != "out"}
        seen = self.step * self.config.batch
        if self.losses:
            self.history.append([seen, round(fmean(self.losses), 5), round(self.minutes, 2)])
            self.losses = []
        record = {**self.facts, "config": config, "steps": self.step, "images_seen": seen, "minutes": round(self.minutes, 2),
                  "loss": self.loss, "history": self.history}
        header = {"unet": self.model.config.to_dict(), "record": record, "minutes": self.minutes}  # JSON keeps floats exactly
        *networks, state = files(self.config)
        for path, ema in zip(networks, self.emas.values(), strict=True):
            checkpoints.save_model(path, ema, record)
        for n in keep:
            checkpoints.save_model(state.with_name(f"model-at-{n}.safetensors"), self.emas[self.config.ema_decay], record)
        checkpoints.write_tensors(state, tensors, header)

    def _load(self) -> None:
        """Continue from state.safetensors. Raises CheckpointError, and TrainingError for another training's state."""
        path = files(self.config)[-1]
        tensors, header = checkpoints.read_tensors(path)
        try:
            record = header["record"]
            self._check_same_training(path, record)
            if self.config.precision == "auto":  # goes on as it began, whatever this device prefers
                self.facts["precision"], self.bf16 = record["precision"], record["precision"] == "bf16"
            self.step, self.minutes, self.loss = record["steps"], header["minutes"], record["loss"]
            self.history = record.get("history", [])
            for name, network in self.networks.items():
                network.load_state_dict({key: tensors[f"{name}.{key}"] for key in network.state_dict()})
            adam = self.optimizer.state_dict()
            # The fused Adam needs its moments in the memory order of their weights.
            adam["state"] = {i: {"step": tensors[f"adam.{i}.step"]} | {
                name: torch.empty_like(weight).copy_(tensors[f"adam.{i}.{name}"]) for name in ("exp_avg", "exp_avg_sq")}
                for i, weight in enumerate(self.model.parameters()) if f"adam.{i}.step" in tensors}
            self.optimizer.load_state_dict(adam)
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise checkpoints.CheckpointError(f"{path} is not the state of a training: {reason(error)}") from error

    def _check_same_training(self, path: Path, record: dict) -> None:
        for field in fields(self.config):
            then, now = record["config"].get(field.name, field.default), getattr(self.config, field.name)  # a newer setting had its default
            then = tuple(then) if isinstance(then, list) else then  # JSON has no tuples
            if field.name not in FREE_ON_RESUME and then != now:
                raise TrainingError(f"{path} was trained with {field.name} = {then!r}, this run asks for {now!r}. "
                                    f"Resume with the same value, or train anew in another folder.")
        if record["data_sha256"] != self.facts["data_sha256"]:
            raise TrainingError(f"{path} was trained on other images than these ({record['data']}, hash {record['data_sha256']}).")
        if record.get("alpha_bar") != self.facts.get("alpha_bar"):
            raise TrainingError(f"{path} was trained with another noise schedule than the one that {self.config.start} has now.")

    def _mend(self) -> str:
        """Advice for a training whose numbers are not finite."""
        out, kept = self.config.out, ""
        if out is not None and files(self.config)[-1].exists():
            kept = f"The checkpoint in {out} from before is kept; start = {out}/model.safetensors begins another training from it. "
        return f"{kept}A smaller learning_rate than {self.config.learning_rate} usually helps."
