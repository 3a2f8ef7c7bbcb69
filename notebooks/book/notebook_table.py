"""The notebooks for who plans a course, as a Markdown table: `python notebooks/book/notebook_table.py`."""
import re
from pathlib import Path

import nbformat

NOTEBOOKS = Path(__file__).resolve().parents[1]


def notebook_table() -> str:
    """Words, code cells, stored pictures, sliders and a student's minutes, as the first cell states them, of each notebook."""
    lines = ["| notebook | words | cells | pictures | sliders | minutes |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]*_*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        code = [cell for cell in cells if cell.cell_type == "code"]
        words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
        pictures = sum("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)
        sliders = sum(cell.source.count("Sliders(") for cell in code)
        minutes = re.search(r"about (\d+) minutes", cells[0].source)
        lines.append(f"| {path.stem} | {words:,} | {len(code)} | {pictures} | {sliders} | {minutes[1] if minutes else '?'} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(notebook_table())
