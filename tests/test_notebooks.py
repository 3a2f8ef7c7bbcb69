"""What a stored notebook must be, so that a reader without a kernel sees everything, and sees what its code does today."""
import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

from s2dm_mini.series.refresh import RefreshError, refresh, source_sha256
from s2dm_mini.series.reproduce import parameter_names

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
SERIES = sorted(NOTEBOOKS.glob("[0-9][0-9]*_*.ipynb"))
STORED = [*SERIES, *sorted(NOTEBOOKS.glob("explorer/*.ipynb"))]
ALL = sorted(NOTEBOOKS.rglob("*.ipynb"))
TEXT_LIMIT, PICTURE_LIMIT, TOTAL_LIMIT = 200_000, 500_000, 12_000_000  # characters of a cell's outputs; of a picture, in base64; bytes
MEND = "python -m s2dm_mini refresh"

each = pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
each_stored = pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
each_of_the_series = pytest.mark.parametrize("path", SERIES, ids=lambda path: path.stem)


def is_draft(notebook) -> bool:
    return notebook.metadata.get("s2dm_mini", {}).get("draft", False)


def outputs(notebook):
    """(number of the cell, output) for all outputs."""
    return [(i, output) for i, cell in enumerate(notebook.cells, 1) for output in cell.get("outputs", [])]


def is_picture(kind: str, value) -> bool:
    """Whether an output's data are a picture, or the page of a slider, which consists of pictures."""
    return kind.startswith("image/") or "data-frames" in str(value)


def texts(output) -> list[str]:
    """What of an output is text, pictures left aside."""
    data = [json.dumps(value) for kind, value in output.get("data", {}).items() if not is_picture(kind, value)]
    return [output.get("text", ""), *output.get("traceback", []), *data]


def pictures(output) -> list[str]:
    return [str(value) for kind, value in output.get("data", {}).items() if is_picture(kind, value)]


@each
def test_outputs_are_clean(path):
    for i, output in outputs(nbformat.read(path, as_version=4)):
        assert output.output_type != "error", f"cell {i} of {path.name} stores an error: {output.get('ename')}: {output.get('evalue')}."
        assert output.get("name") != "stderr", f"cell {i} of {path.name} stores a warning: {output.text[:200]}"
        found = re.search(r"(?<![\w.])/(work|root|home|tmp|Users)/\S*", "\n".join(texts(output)))
        assert not found, f"cell {i} of {path.name} printed a path of one machine, {found.group(0)}."


@each
def test_outputs_are_small(path):
    for i, cell in enumerate(nbformat.read(path, as_version=4).cells, 1):
        size = sum(len(text) for output in cell.get("outputs", []) for text in texts(output))
        assert size <= TEXT_LIMIT, f"cell {i} of {path.name} stores {size:,} characters, more than {TEXT_LIMIT:,}: print less."
        for picture in (p for output in cell.get("outputs", []) for p in pictures(output)):
            assert len(picture) <= PICTURE_LIMIT, (f"cell {i} of {path.name} stores a picture of {len(picture):,} characters, more than "
                                                   f"{PICTURE_LIMIT:,}: draw fewer points, or at fewer dots an inch.")


def test_all_notebooks_together_are_small():
    size = sum(path.stat().st_size for path in ALL)
    assert size <= TOTAL_LIMIT, f"the notebooks have {size:,} bytes, more than {TOTAL_LIMIT:,}."


@each
def test_no_widget_state_is_stored(path):
    """It would show as sliders that move nothing; the picture beside the widget is what a reader without a kernel sees."""
    notebook = nbformat.read(path, as_version=4)
    assert "widgets" not in notebook.metadata, f"{path.name} stores the state of widgets: {MEND} leaves it out."
    for i, output in outputs(notebook):
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
            assert pictures(output), f"cell {i} of {path.name} shows a widget without a picture beside it."


@each_stored
def test_one_cell_of_parameters(path):
    tagged = [cell for cell in nbformat.read(path, as_version=4).cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1, f"{path.name} has {len(tagged)} cells tagged parameters; papermill wants one."


@each_of_the_series
def test_the_first_cell_has_a_title_and_says_what_running_takes(path):
    first = nbformat.read(path, as_version=4).cells[0]
    number = path.stem.partition("_")[0]  # 02, or 02b for what belongs to 02
    assert first.cell_type == "markdown" and first.source.startswith(f"# {number} · "), f"{path.name} must begin with its title."
    time = re.search(r"^\*+Time.*", first.source, flags=re.MULTILINE)
    assert time and "`quick`" in time[0] and re.search(r"CPU|GPU", time[0]), \
        f"the first cell of {path.name} must say, in a paragraph that begins with *Time*, how long `quick` takes and on what hardware."


@each_stored
def test_stored_outputs_are_those_of_the_code(path):
    notebook, mend = nbformat.read(path, as_version=4), f"{MEND} {path.relative_to(NOTEBOOKS.parent)}"
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    if is_draft(notebook):
        assert not any(counts), f"{path.name} says that it is a draft, yet it has been run: {mend}"
        pytest.skip(f"{path.name} is a draft")
    assert counts == list(range(1, len(counts) + 1)), f"{path.name} was not run from top to bottom: {mend}"
    assert notebook.metadata.get("s2dm_mini", {}).get("source_sha256") == source_sha256(notebook), \
        f"code of {path.name} has changed since its outputs were stored: {mend}"


@pytest.fixture
def tiny(tmp_path):
    """A notebook never run, which prints in two pieces, shows a widget and reads a file beside it."""
    (tmp_path / "word.txt").write_text("skip", encoding="utf-8")
    notebook = nbformat.v4.new_notebook(metadata={"s2dm_mini": {"draft": True}})
    notebook.cells = [nbformat.v4.new_markdown_cell("# 99 · Tiny"),
                      nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["parameters"]}),
                      nbformat.v4.new_code_cell("import sys\nprint('one', flush=True)\nprint(open('word.txt').read())"),
                      nbformat.v4.new_code_cell("import ipywidgets\nipywidgets.IntSlider()")]
    nbformat.write(notebook, tmp_path / "99_tiny.ipynb")
    return tmp_path / "99_tiny.ipynb"


def test_refresh_runs_in_place_and_leaves_out_what_differs_from_run_to_run(tiny):
    before = nbformat.read(tiny, as_version=4)
    refresh(tiny)
    after = nbformat.read(tiny, as_version=4)
    assert [cell.id for cell in after.cells] == [cell.id for cell in before.cells]
    assert [output.text for output in after.cells[2].outputs] == ["one\nskip\n"]
    assert after.metadata.s2dm_mini == {"source_sha256": source_sha256(before)}
    assert "widgets" not in after.metadata and all(set(cell.metadata) <= {"tags"} for cell in after.cells)
    first = [cell.get("outputs") for cell in after.cells[:3]]
    refresh(tiny)
    again = nbformat.read(tiny, as_version=4)
    assert [cell.get("outputs") for cell in again.cells[:3]] == first and again.metadata == after.metadata


def test_the_hash_follows_code_and_not_prose(tiny):
    notebook = nbformat.read(tiny, as_version=4)
    recorded = source_sha256(notebook)
    notebook.cells[0].source += "\n\nA sentence more."
    assert source_sha256(notebook) == recorded
    notebook.cells[1].source = "seed = 1"
    assert source_sha256(notebook) != recorded
    notebook.cells[1].source = "seed = 0"
    notebook.cells[2], notebook.cells[3] = notebook.cells[3], notebook.cells[2]
    assert source_sha256(notebook) != recorded


def test_a_notebook_that_fails_is_left_as_it_was(tiny):
    notebook = nbformat.read(tiny, as_version=4)
    notebook.cells[2].source = "raise ValueError('tau is bent.')"
    nbformat.write(notebook, tiny)
    before = tiny.read_bytes()
    with pytest.raises(RefreshError, match=r"99_tiny\.ipynb stopped in cell 3: ValueError: tau is bent\. The file is left as it was\."):
        refresh(tiny)
    assert tiny.read_bytes() == before
    notebook.cells[2].source = "import os\nos._exit(1)"
    nbformat.write(notebook, tiny)
    done = subprocess.run([sys.executable, "-m", "s2dm_mini", "refresh", str(tiny)], capture_output=True, text=True)
    assert done.returncode == 1 and "error: 99_tiny.ipynb stopped" in done.stderr and "Traceback" not in done.stderr


@each_stored
def test_papermill_knows_every_parameter_with_type_and_comment(path):
    """As `papermill --help-notebook` reads them: it takes one assignment a line."""
    cell, = (cell for cell in nbformat.read(path, as_version=4).cells if "parameters" in cell.metadata.get("tags", []))
    names = [target.id for line in ast.parse(cell.source).body for target in ast.walk(line)
             if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store)]
    found = papermill.inspect_notebook(str(path))
    assert list(found) == names == parameter_names(path)  # the last: those that `s2dm-mini reproduce --set` takes
    for name, parameter in found.items():
        assert parameter["inferred_type_name"] not in ("", "None"), f"{name} has no type"
        assert parameter["help"], f"{name} has no comment"
