"""Execute notebooks in place, so that the outputs stored in them are those of their present code.

The hash of the code goes into each notebook's metadata as s2dm_mini.source_sha256; tests/test_notebooks.py fails where the code has changed
since.
"""
import hashlib
import re
import time
from pathlib import Path

from ..support.files import sole_writer, write_whole
from ..support.progress import bar


class RefreshError(Exception):
    """A notebook failed; the message names the notebook, the cell and the reason. Its file is unchanged."""


def source_sha256(notebook) -> str:
    """SHA-256 of the sources of a notebook's code cells, in their order; prose does not count. notebook: as nbformat reads it."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


def refresh_all(notebooks: tuple[Path, ...], timeout: float = 900) -> None:
    """Execute notebooks in place and store their outputs, with a hash of the code that made them.

    Args:
        notebooks: files, e.g. notebooks/05_samplers.ipynb
        timeout: largest number of seconds for one cell
    """
    for path in notebooks:
        print(f"{path}: {refresh(path, timeout):.0f} s", flush=True)


def refresh(path: Path, timeout: float = 900) -> float:
    """Execute a notebook in its folder and store its outputs; returns the seconds taken. timeout: seconds for one cell.

    Cells keep their ids. Timings, widget state and the Python version are not stored. Raises RefreshError; TakenError if another process
    refreshes the notebook.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellControlSignal, CellExecutionError, DeadKernelError

    with sole_writer(path):
        notebook = nbformat.read(path, as_version=4)
        # The log level silences a kernel that is shut down while a cell runs; exceptions in cells are reported in another way.
        client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}},
                                record_timing=False, coalesce_streams=True, extra_arguments=["--IPKernelApp.log_level=CRITICAL"])
        start, where = time.monotonic(), ""
        try:
            client.reset_execution_trackers()
            # Cell by cell: at Ctrl-C, the client's own `execute` kills the kernel and then waits for it.
            with client.setup_kernel():
                for index, cell in enumerate(bar(path.stem, iterable=notebook.cells)):
                    where = f" in cell {index + 1}"
                    client.execute_cell(cell, index, execution_count=client.code_cells_executed + 1)
        except (CellExecutionError, CellControlSignal, DeadKernelError) as error:
            text = f"{error.ename}: {error.evalue}" if hasattr(error, "ename") else str(error)
            said = re.sub(r"\x1b\[[0-9;]*m", "", text).strip().rstrip(".")
            raise RefreshError(f"{path.name} stopped{where}: {said}. The file is left as it was.") from None
        seconds = time.monotonic() - start

        for metadata in [notebook.metadata, *[cell.metadata for cell in notebook.cells]]:
            for key in ("widgets", "papermill", "execution"):
                metadata.pop(key, None)
        notebook.metadata.language_info = {"name": "python"}
        notebook.metadata.s2dm_mini = {"source_sha256": source_sha256(notebook)}
        write_whole(path, (nbformat.writes(notebook) + "\n").encode())
    return seconds
