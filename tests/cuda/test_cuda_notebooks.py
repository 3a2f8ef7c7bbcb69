"""Every notebook's code, in `quick`, where PyTorch finds the emulated device: make test-cuda-notebooks."""
import contextlib
import io
import os
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"

pytestmark = pytest.mark.skipif(not os.environ.get("S2DM_CUDA_NOTEBOOKS"), reason="some minutes: make test-cuda-notebooks")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("[0-9][0-9]*_*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, monkeypatch):
    """In this process: a kernel of its own would not have the device. Cells that show an error are left out."""
    pytest.importorskip("matplotlib").use("Agg")
    from IPython.core.interactiveshell import InteractiveShell
    from matplotlib import pyplot

    monkeypatch.chdir(path.parent)
    shell = InteractiveShell.instance()
    shell.reset()
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells, 1):
        if cell.cell_type != "code" or "raises-exception" in cell.metadata.get("tags", []):
            continue
        said = io.StringIO()
        source = cell.source.replace('device: str = "cpu"', 'device: str = "cuda"') if "parameters" in cell.metadata.get("tags", []) \
            else cell.source
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            done = shell.run_cell(source, silent=True)
        pyplot.close("all")
        assert done.success, f"cell {number} of {path.name}: {done.error_in_exec or done.error_before_exec!r}\n{said.getvalue()[-2000:]}"
