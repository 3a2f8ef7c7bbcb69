"""Estimate a student's minutes for each lab from its words, cells and lines to write.

    python notebooks/labs/minutes.py

The estimate adds, for what a student copy holds,

    reading      100 words a minute; a formula in a line counts as 3 words, a displayed one as 10
    cells        1 minute to run a given code cell and look at its result
    writing      1.5 minutes for each line of the solution, checks and mending included
    derivations  8 minutes each; predictions and interpretations 4 minutes each

The rates are assumptions, and no class was timed. A teacher who knows better changes the five numbers below.
"""
import re
from pathlib import Path
from typing import NamedTuple

import nbformat

FOLDER = Path(__file__).resolve().parent
WORDS, CELL, LINE, DERIVE, ANSWER = 1 / 100, 1.0, 1.5, 8.0, 4.0  # minutes


class Work(NamedTuple):
    """What one lab asks for."""

    words: int
    cells: int  # of code, given in full
    lines: int  # of the solutions' code
    derivations: int
    answers: int  # predictions and interpretations

    @property
    def minutes(self) -> float:
        return self.words * WORDS + self.cells * CELL + self.lines * LINE + self.derivations * DERIVE + self.answers * ANSWER


def work(master: Path) -> Work:
    """Count the words, cells and lines of a lab's master."""
    cells = nbformat.read(master, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown" and not cell.id.endswith("-solution"))
    code = [cell for cell in cells if cell.cell_type == "code" and "-test-" not in cell.id]
    given = sum(not cell.id.endswith("-solution") for cell in code)
    lines = sum(len(solution_lines(cell.source)) for cell in code)
    written = re.findall(r"\*\*Written \d · (\w+)", text)
    derivations = written.count("derive")
    return Work(count_words(text), given, lines, derivations, len(written) - derivations)


def count_words(text: str) -> int:
    """Words of Markdown, with formulas counted as words: 10 for a displayed one, 3 for one in a line."""
    text = re.sub(r"\$\$.*?\$\$", " x" * 10, text, flags=re.DOTALL)
    return len(re.sub(r"\$[^$]+\$", "x x x", text).split())


def solution_lines(source: str) -> list[str]:
    """The lines that a student has to write in this cell."""
    inside = re.findall(r"# BEGIN SOLUTION\n(.*?)# END SOLUTION", source, flags=re.DOTALL)
    return [line for part in inside for line in part.splitlines() if line.strip() and not line.strip().startswith("#")]


def main() -> None:
    print(f"{'lab':24}{'words':>7}{'cells':>7}{'lines':>7}{'derive':>8}{'answer':>8}{'minutes':>9}")
    for master in sorted(FOLDER.glob("lab*.ipynb")):
        found = work(master)
        print(f"{master.stem:24}{found.words:7}{found.cells:7}{found.lines:7}{found.derivations:8}{found.answers:8}{found.minutes:9.0f}")


if __name__ == "__main__":
    main()
