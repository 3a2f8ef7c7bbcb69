"""A training with a progress bar, which ends cleanly at Ctrl-C."""
import signal
import threading

from ..support.progress import bar
from .config import TrainConfig
from .loop import TrainRecord, train
from .setup import is_first_process


def train_with_bar(config: TrainConfig, resume: bool = False, title: str = "training") -> TrainRecord | None:
    """Train with a progress bar. Returns the last record, None if the run was finished before.

    The first Ctrl-C, or SIGTERM as Slurm and `docker stop` send it, raises KeyboardInterrupt after a checkpoint, a second one at once.
    """
    stop: list[int] = []
    handler = lambda *_: stop.append(1) if not stop else signal.default_int_handler(*_)  # noqa: E731
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()  # Python allows no others
    previous = {number: signal.signal(number, handler) for number in numbers}
    records, record = train(config, resume=resume), None
    try:
        with bar(title, 100, disable=not is_first_process()) as progress:
            for record in records:
                state = f"step {record.step:,}, loss {record.loss:.4f}, {record.images_per_second:,.0f} images/s"
                progress.set_postfix_str(state, refresh=False)
                if resume and not progress.n:  # else the time left would count what an earlier run did
                    progress.n = progress.initial = progress.last_print_n = 100 * record.progress
                progress.update(100 * record.progress - progress.n)
                if stop:
                    records.close()
                    raise KeyboardInterrupt(f"stopped after step {record.step:,}")
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
    return record
