"""What keeps a notebook readable: its size, its figures in order, and no result typed by hand."""
import ast
import re
from pathlib import Path

import nbformat
import pytest

from s2dm_mini.study.tables import RESULTS, read_rows
from s2dm_mini.study.tune import summary

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SERIES = sorted(NOTEBOOKS.glob("[0-9][0-9]*_*.ipynb"))
CELLS, WORDS, LINES, CHARACTERS, COLONS = 30, 2_000, 16, 110, 8  # at most; colons and semicolons in 1,000 words
# Numbers of prose that no cell prints: of the literature, of settings, and of questions.
QUOTED = {"00": {"1.5", "10"}, "01": {"0.0001"}, "03": {"0.5"}, "03b": {"3.27", "14.06"}, "03c": {"10.36", "5.15"}, "04": {"35.7"},
          "05b": {"10"}, "06": {"0.995"}, "07": {"17"}, "08": {"1.5", "3.27", "14.06", "5"}, "10": {"3"}, "11": {"0.13"}}
RESULT = re.compile(r"(?<![\w.,/])(\d+(?:\.\d+)?)(?=\s?%)|(?<![\w.,/])(\d+\.\d+)(?![\w.])")  # a percentage or a decimal

each = pytest.mark.parametrize("path", SERIES, ids=lambda path: path.stem)


def cells_of(path: Path, kind: str) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def prose(path: Path) -> str:
    """Markdown without its references, formulas, code, addresses and headings' figure numbers."""
    text = "\n\n".join(cell.source for cell in cells_of(path, "markdown")).split("**References.**")[0]
    for hidden in (r"```.*?```", r"\$\$.*?\$\$", r"\$[^$]*\$", r"`[^`]*`"):
        text = re.sub(hidden, " ", text, flags=re.DOTALL)
    return re.sub(r"\]\([^)]*\)|arXiv [\d.]+|Figures? \d+\w?\.\d+", "]", text)


def figures(source: str) -> list[tuple[str, list[str]]]:
    """(number, texts of the caption) for each call of `show`, in order; what an f-string computes is left out."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "show"]
    calls.sort(key=lambda call: call.lineno)
    texts = [[part.value for part in ast.walk(call.args[2]) if isinstance(getattr(part, "value", 0), str)] for call in calls]
    return list(zip((call.args[1].value for call in calls), texts, strict=True))


def typed_results(text: str, evidence: str) -> set[str]:
    """Percentages and decimals of a text that stand nowhere in the evidence."""
    found = {(percent or decimal, r"\s?%" if percent else r"(?!\.?\d)") for percent, decimal in RESULT.findall(text)}
    return {number for number, after in found if not re.search(rf"(?<![\d.]){re.escape(number)}{after}", evidence)}


@each
def test_a_notebook_is_short(path):
    words = sum(len(cell.source.split()) for cell in cells_of(path, "markdown"))
    assert words <= WORDS and len(cells_of(path, "code")) <= CELLS
    text = "\n".join(line for line in prose(path).splitlines() if not line.lstrip().startswith("|"))
    assert len(re.findall("[:;]", text)) <= COLONS * words / 1_000


@each
def test_a_notebook_opens_with_goals_and_closes_with_a_summary(path):
    first, *_, last = (cell.source for cell in cells_of(path, "markdown"))
    goals = first.partition("**You will be able to**")[2].partition("**You need**")[0]
    assert len(re.findall(r"^- ", goals, flags=re.MULTILINE)) == 3
    assert re.search(r"\*\*Your time\*\* is about \d+ minutes", first)
    summary_lines = last.partition("## Summary")[2].partition("**Think about it.**")[0]
    assert len(re.findall(r"^(?:- |\| (?!respect|---))", summary_lines, flags=re.MULTILINE)) == 5
    assert re.search(r"\*\*Think about it\.\*\* \(a\) .+ \(b\) .+", last), "two questions to think about"


@each
def test_a_cell_is_short(path):
    for cell in cells_of(path, "code"):
        lines = cell.source.splitlines()
        assert len(lines) <= LINES, f"{path.name} has a cell of {len(lines)} lines, more than {LINES}: split {lines[0]!r}"
        wide = [line for line in lines if len(line) > CHARACTERS]
        assert not wide, f"{path.name} has a line of {len(wide[0])} characters, more than {CHARACTERS}: {wide[0]!r}"


@each
def test_figures_are_numbered_in_order(path):
    number = path.stem.partition("_")[0].lstrip("0") or "0"
    found = [figure for cell in cells_of(path, "code") for figure, _ in figures(cell.source)]
    assert found == [f"{number}.{i}" for i in range(1, len(found) + 1)]


@each
def test_every_dashed_level_has_a_name(path):
    for cell in cells_of(path, "code"):
        calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
        named = {getattr(call.func, "attr", getattr(call.func, "id", "")) for call in calls for key in call.keywords if key.arg == "level"}
        assert named in (set(), {"curves", "show"}), f"{path.name}, cell {cell.id}: plots.curves draws a level that show does not name"


@each
def test_every_slider_page_has_a_slider_that_moves(path):
    """More than 12 positions of the first slider would leave a page without a kernel a picture alone."""
    pages = [output["data"]["text/html"] for cell in cells_of(path, "code") for output in cell.outputs
             if "data-frames" in output.get("data", {}).get("text/html", "")]
    assert all('type="range"' in page for page in pages)


@each
def test_no_result_is_typed_by_hand(path):
    """A number of the prose stands in the code, in what it prints, or is quoted: else it would stay when the result changes."""
    code = cells_of(path, "code")
    shown = [text for cell in code for _, caption in figures(cell.source) for text in caption]
    source = "\n".join(cell.source for cell in code)
    for text in shown:
        source = source.replace(text, "")
    printed = [output.get("text", "") + str(output.get("data", {}).get("text/markdown", "")) for cell in code for output in cell.outputs
               if "**Figure" not in str(output.get("data", {}).get("text/markdown", ""))]
    evidence = source + "\n" + "\n".join(printed)
    assert not typed_results(prose(path) + " ".join(shown), evidence) - QUOTED.get(path.stem.partition("_")[0], set())


def test_a_typed_result_is_found():
    assert typed_results("a gain of 45 %, or 0.21, at τ = 0.99", "tau = 0.99, gain +44.6 % of 45 runs") == {"0.21", "45"}
    assert figures('show(curves(4), "1.1", f"3 % of {x}" " and 7 %", level="5 %")') == [("1.1", ["3 % of ", " and 7 %"])]


def test_the_readme_is_short():
    assert len((NOTEBOOKS.parent / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_the_page_on_measuring_repeats_the_table_of_tune():
    page, rows = (NOTEBOOKS / "book" / "measuring.md").read_text(encoding="utf-8"), read_rows(RESULTS / "tune.csv")
    for steps in ("5", "10"):
        found = {s.scale: f"{100 * s.fd_change:+.1f} ± {100 * s.fd_change_error:.1f} %"
                 for s in summary([row for row in rows if row["steps"] == steps])}
        assert f"| {steps} steps | {found['line']} | {found['s2dm50']} |" in page


def test_figures_that_a_text_names_exist():
    there = {number for path in SERIES for cell in cells_of(path, "code") for number, _ in figures(cell.source)}
    named = {number: path.name for path in SERIES for cell in cells_of(path, "markdown")
             for number in re.findall(r"Figures? (\d+\w?\.\d+)", cell.source)}
    assert named.keys() <= there, {number: name for number, name in named.items() if number not in there}
