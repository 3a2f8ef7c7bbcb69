"""The sliders of the notebooks: each position draws, and no two positions of a slider draw the same."""
import ast
from pathlib import Path

import nbformat
import pytest

from s2dm_mini.series import course

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
WITH_SLIDERS = [path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]*_*.ipynb")) if "show(Sliders(" in path.read_text(encoding="utf-8")]


def needed(cells: list[str], position: int) -> list[str]:
    """The cells that cell `position` needs, itself last: those that bind a name which a needed cell reads, and the imports."""
    trees = [ast.parse(cell) for cell in cells]
    binds = [{node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
             | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.alias)} for tree in trees]
    reads = [{node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)} for tree in trees]
    wanted, chosen = reads[position], [position]
    for i in reversed(range(position)):
        if i == 0 or binds[i] & wanted:
            chosen.insert(0, i)
            wanted = wanted | reads[i]
    return [cells[i] for i in chosen]


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_SLIDERS, ids=lambda path: path.stem)
def test_every_slider_changes_the_picture(path, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(course, "show", lambda picture, *rest, **options: shown.append(picture))
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    position = next(i for i, cell in enumerate(cells) if "show(Sliders(" in cell)
    names = {}
    for cell in needed(cells, position):
        exec(compile(cell, path.name, "exec"), names)
    live = shown[-1]
    for name, control in live.controls.items():
        seen = set()
        for value in (control.options[0], control.options[-1]):
            control.value = value
            seen.add(live.image.value)
        assert len(seen) == 2, f"{name} changes nothing in {path.name}"
