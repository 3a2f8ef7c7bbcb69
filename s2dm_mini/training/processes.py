"""The processes that share a training, started by `torchrun`; a single process needs no accelerate."""
import os

import torch
from torch import Tensor

from ..support.machine import open_device
from .config import TrainConfig


def is_first_process() -> bool:
    """Whether this process writes the files and reports the progress of all."""
    return os.environ.get("RANK", "0") == "0"


class Processes:
    """The device of this process, its shards of each batch, and agreement among the processes.

    Raises ValueError if the number of shards is no multiple of the number of processes.
    """

    def __init__(self, config: TrainConfig):
        self.count, self.accelerator = int(os.environ.get("WORLD_SIZE", 1)), None
        if self.count > 1:
            from accelerate import Accelerator

            self.accelerator = Accelerator(cpu=config.device == "cpu")
        if config.shards % self.count:
            raise ValueError(f"shards = {config.shards} must be a multiple of the number of processes, {self.count}.")
        self.shards = range(self.accelerator.process_index if self.accelerator else 0, config.shards, self.count)
        self.device = self.accelerator.device if self.accelerator else open_device(config.device)

    def mean(self, loss: Tensor) -> float:
        """Mean over the processes."""
        return float(self.accelerator.reduce(loss, "mean") if self.accelerator else loss)

    def slowest(self, seconds: float) -> float:
        """The longest time of any process, so that all reach a budget of minutes at the same step."""
        return float(self.accelerator.gather(torch.tensor([seconds], device=self.device)).max()) if self.accelerator else seconds

    def wait(self) -> None:
        """Wait until all processes have come this far."""
        if self.accelerator:
            self.accelerator.wait_for_everyone()
