"""Run a training with a bar, and end it cleanly at Ctrl-C."""
import os
import signal
import sys
from dataclasses import dataclass

from .train import TrainConfig, TrainRecord, train


@dataclass
class Outcome:
    """How a training ended."""

    record: TrainRecord | None  # the last one; None where there was nothing left to train
    stopped: bool  # at Ctrl-C, after a checkpoint was written


def train_with_bar(config: TrainConfig, resume: bool = False, title: str = "") -> Outcome:
    """`train`, watched. The first Ctrl-C stops after a checkpoint, a second at once."""
    from tqdm import tqdm

    stop: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda *_: stop.append(1) if not stop else signal.default_int_handler(*_))
    first_rank = os.environ.get("RANK", "0") == "0"  # of several processes only one speaks
    records, record = train(config, resume=resume), None
    try:
        with tqdm(total=100, desc=title or None, bar_format="{l_bar}{bar}| {elapsed} gone, {remaining} left{postfix}",
                  disable=not first_rank, mininterval=0.5 if sys.stderr.isatty() else 30) as bar:
            for record in records:
                state = f"step {record.step:,}, loss {record.loss:.4f}, {record.images_per_second:,.0f} images/s"
                bar.set_postfix_str(state, refresh=False)
                bar.update(100 * record.progress - bar.n)
                if stop:
                    records.close()
                    return Outcome(record, stopped=True)
    finally:
        signal.signal(signal.SIGINT, previous)
    return Outcome(record, stopped=False)
