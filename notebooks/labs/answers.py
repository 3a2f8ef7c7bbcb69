"""The written answers of a lab: the model answer and rubric of each question, and what a submission says.

    python notebooks/labs/answers.py build/labs/answers        # one answer sheet a lab, for the teacher
"""
import re
import sys
from pathlib import Path
from typing import NamedTuple

import nbformat

FOLDER = Path(__file__).resolve().parent
EMPTY = "_Type your answer here, replacing this text._"  # what otter-grader puts into student copies


class Question(NamedTuple):
    text: str
    key: str  # the model answer and the rubric
    points: int


def questions(lab: str) -> dict[str, Question]:
    """Name → question, for the questions of a lab's master that are answered in words. Empty if the lab has no master here."""
    path = FOLDER / f"{lab}.ipynb"
    cells = {cell.id: cell.source for cell in nbformat.read(path, as_version=4).cells} if path.exists() else {}
    names = [id.removesuffix("-text") for id in cells if re.fullmatch(r"w\d+-text", id)]
    return {name: Question(cells[f"{name}-text"], cells[f"{name}-solution"], int(re.search(r"points: (\d+)", cells[f"{name}-begin"])[1]))
            for name in names}


def answers(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Name → answer, for a submission: all cells between a written question and the comment that ends it. "" if nothing is there."""
    found, name = {}, None
    for cell in notebook.cells:
        asked = re.search(r"\*\*Written (\d+) ·", cell.source)
        if "<!-- END QUESTION -->" in cell.source:
            name = None
        if asked and "<!-- BEGIN QUESTION -->" in cell.source:
            name = f"w{asked[1]}"
            found[name] = ""
        elif name:
            found[name] = f"{found[name]}\n\n{cell.source.replace(EMPTY, '')}".strip()
    return found


def marking_sheet(lab: str, answered: dict[str, dict[str, str]]) -> str:
    """Markdown with each written question, its rubric, and the answer of each submission. answered: submission → name → answer."""
    parts = [f"# {lab}: written answers"]
    for name, question in questions(lab).items():
        parts += [f"## {name} ({question.points} points)", question.text, question.key]
        for submission, texts in answered.items():
            answer = texts.get(name) or "(no answer)"
            parts += [f"### {submission}: {name}", "\n".join(f"> {line}" for line in answer.splitlines())]
    return "\n\n".join(parts) + "\n"


def answer_sheet(lab: str) -> str:
    """Markdown with every question of a lab, its points, its solution and, for written ones, its rubric."""
    cells = nbformat.read(FOLDER / f"{lab}.ipynb", as_version=4).cells
    parts = []
    for cell in cells:
        source = cell.source
        if cell.cell_type == "raw" and source.startswith("# BEGIN QUESTION"):
            points = re.search(r"points: \[?([\d, ]+)", source)[1]
            parts.append(f"**Points:** {sum(map(int, points.split(',')))}, name `{re.search(r'name: (.*)', source)[1]}`")
        elif cell.cell_type == "markdown":
            parts.append(source)
        elif cell.id.endswith("-solution"):
            kept = "\n".join(line for line in source.splitlines() if "SOLUTION" not in line)
            parts.append(f"```python\n{kept}\n```")
        elif source.startswith("# HIDDEN"):
            parts.append(f"Hidden test: {re.search(r'def test_(.*)[(]', source)[1].split('(')[0].replace('_', ' ')}.")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for master in sorted(FOLDER.glob("lab*.ipynb")):
        (out / f"{master.stem}.md").write_text(answer_sheet(master.stem), encoding="utf-8")


if __name__ == "__main__":
    main()
