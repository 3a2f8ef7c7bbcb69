"""Translate the package's docstrings, plain prose with names in backticks, into the reStructuredText that autodoc reads.

Paragraphs stay paragraphs; words in backticks become code; indented lines and paragraphs in columns stay as typed. Characters that reST
takes for markup, such as |x|, x_ or *, are escaped.
"""
import re
from itertools import groupby

COLUMNS = re.compile(r"[\w-]+:? {2,}\S")  # a name, then a gap: the first column of a table


def to_rest(docstring: list[str]) -> list[str]:
    """The lines of a docstring, without common indentation, as lines of reST."""
    rest: list[str] = []
    for literal, block in _blocks(docstring):
        rest += ["::", "", *["    " + line for line in block], ""] if literal else [*_prose("\n".join(block)).split("\n"), ""]
    return rest


def _blocks(lines: list[str]) -> list[tuple[bool, list[str]]]:
    """(stays as typed, lines) of each paragraph. Neighbours that stay as typed become one, with the blank line between them."""
    blocks: list[tuple[bool, list[str]]] = []
    for kind, run in groupby(lines, key=lambda line: "blank" if not line.strip() else "indented" if line[0] == " " else "prose"):
        block = list(run)
        if kind == "blank":
            continue
        literal = kind == "indented" or (len(block) > 1 and any(COLUMNS.match(line) for line in block))
        if literal and blocks and blocks[-1][0]:
            blocks[-1][1].extend(["", *block])
        else:
            blocks.append((literal, block))
    return blocks


def _prose(text: str) -> str:
    parts = re.split(r"`([^`]+)`", text)  # prose at even places, code at odd ones
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([\\*`|_])", r"\\\1", parts[i])
    for i in range(1, len(parts), 2):
        before = "\\ " if re.search(r"\S$", parts[i - 1]) else ""  # reST needs space around code; an escaped space leaves no gap
        after = "\\ " if re.match(r"\S", parts[i + 1]) else ""
        parts[i] = f"{before}``{parts[i]}``{after}"
    text = "".join(parts)
    text = re.sub(r"::$", r":\\:", text)  # else reST takes the next paragraph for code
    return re.sub(r"^(?=[-+•.:=~^#>]|\w{1,3}[.)] )", r"\\", text)  # else reST begins a list, a comment or a rule
