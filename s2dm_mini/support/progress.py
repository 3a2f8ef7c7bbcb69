"""Progress bars with the time left, and text for any terminal."""
import io
import os
import sys
import warnings


def bar(title: str, total: float | None = None, **options):
    """A tqdm bar; without a terminal, as in a log, a line every half minute, and none before two seconds; nothing without stderr."""
    from tqdm import tqdm

    screen = sys.stderr is not None and sys.stderr.isatty()
    if sys.stderr is None:
        options["disable"] = True
    return tqdm(total=total, desc=title, mininterval=0.5 if screen else 30, miniters=0, delay=0 if screen else 2,
                bar_format="{l_bar}{bar}| {elapsed} gone, {remaining} left{postfix}", **options)


def set_up_terminal() -> None:
    """Let every text reach every terminal: a character that it lacks becomes ?, and a closed stdout or stderr loses the text.

    Warnings become sentences, without the line of code that they come from.
    """
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
