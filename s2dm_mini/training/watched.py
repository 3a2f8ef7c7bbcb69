"""A training with a progress bar, which ends cleanly at Ctrl-C."""
import signal
import threading
from dataclasses import dataclass

from ..support.progress import bar
from .config import TrainConfig
from .loop import TrainRecord, train
from .setup import is_first_process


@dataclass
class Outcome:
    """The end of a training."""

    record: TrainRecord | None  # the last one; None if the run was finished before
    stopped: bool  # by Ctrl-C or SIGTERM, after a checkpoint was written


def train_with_bar(config: TrainConfig, resume: bool = False, title: str = "") -> Outcome:
    """Train with a progress bar.

    The first Ctrl-C, or SIGTERM as Slurm and `docker stop` send it, stops after a checkpoint, a second one at once.
    """
    stop: list[int] = []
    handler = lambda *_: stop.append(1) if not stop else signal.default_int_handler(*_)  # noqa: E731
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()  # Python allows no others
    previous = {number: signal.signal(number, handler) for number in numbers}
    records, record = train(config, resume=resume), None
    try:
        with bar(title or "training", 100, disable=not is_first_process()) as progress:
            for record in records:
                state = f"step {record.step:,}, loss {record.loss:.4f}, {record.images_per_second:,.0f} images/s"
                progress.set_postfix_str(state, refresh=False)
                progress.update(100 * record.progress - progress.n)
                if stop:
                    records.close()
                    return Outcome(record, stopped=True)
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
    return Outcome(record, stopped=False)
