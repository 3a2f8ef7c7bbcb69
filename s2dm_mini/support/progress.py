"""Progress bars with the time left."""
import sys


def bar(title: str, total: float | None = None, **options):
    """A tqdm bar; without a terminal, as in a log, a line every half minute, and none before two seconds."""
    from tqdm import tqdm

    screen = sys.stderr.isatty()
    return tqdm(total=total, desc=title, mininterval=0.5 if screen else 30, delay=0 if screen else 2,
                bar_format="{l_bar}{bar}| {elapsed} gone, {remaining} left{postfix}", **options)
