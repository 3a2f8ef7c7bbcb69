"""Bars with the time left, one look for all of them; and a training that ends cleanly at Ctrl-C."""
import sys


def bar(title: str, total: float | None = None, **options):
    """A bar of tqdm; in a log, where there is no screen, a line every half minute, and none for what takes under two seconds."""
    from tqdm import tqdm

    screen = sys.stderr.isatty()
    return tqdm(total=total, desc=title, mininterval=0.5 if screen else 30, delay=0 if screen else 2,
                bar_format="{l_bar}{bar}| {elapsed} gone, {remaining} left{postfix}", **options)
