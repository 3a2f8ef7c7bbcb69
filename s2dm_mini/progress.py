"""Bars with the time left, one look for all of them; and a training that ends cleanly at Ctrl-C."""
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from .losses import Denoiser
from .train import TrainConfig, TrainRecord, train


def bar(title: str, total: float | None = None, **options):
    """A bar of tqdm; in a log, where there is no screen, a line every half minute, and none for what takes under two seconds."""
    from tqdm import tqdm

    screen = sys.stderr.isatty()
    return tqdm(total=total, desc=title, mininterval=0.5 if screen else 30, delay=0 if screen else 2,
                bar_format="{l_bar}{bar}| {elapsed} gone, {remaining} left{postfix}", **options)


@contextmanager
def watched(denoiser: Denoiser, evaluations: int, title: str) -> Iterator[Denoiser]:
    """The denoiser under a bar that counts its evaluations, one an image and step, of which there will be so many."""
    with bar(title, evaluations) as progress:
        def counted(x: Tensor, t: Tensor) -> Tensor:
            eps = denoiser(x, t)
            progress.update(len(x))
            return eps

        yield counted


@dataclass
class Outcome:
    """How a training ended."""

    record: TrainRecord | None  # the last one; None where there was nothing left to train
    stopped: bool  # by Ctrl-C or SIGTERM, after a checkpoint was written


def train_with_bar(config: TrainConfig, resume: bool = False, title: str = "") -> Outcome:
    """`train`, watched. The first Ctrl-C, or SIGTERM as Slurm and `docker stop` send it, stops after a checkpoint, a second at once."""
    stop: list[int] = []
    handler = lambda *_: stop.append(1) if not stop else signal.default_int_handler(*_)  # noqa: E731
    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    first_rank = os.environ.get("RANK", "0") == "0"  # of several processes only one speaks
    records, record = train(config, resume=resume), None
    try:
        with bar(title or "training", 100, disable=not first_rank) as progress:
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
