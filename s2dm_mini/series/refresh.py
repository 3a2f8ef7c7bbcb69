"""Execute notebooks in place, so that what is stored is what their code prints and draws today.

A hash of the code goes into each notebook's metadata, s2dm_mini.source_sha256. Where it is not that of the cells, somebody changed
code and did not run it: tests/test_notebooks.py says so.
"""
import hashlib
import re
import time
from pathlib import Path

from ..support.files import sole_writer, write_whole
from ..support.progress import bar


class RefreshError(Exception):
    """A notebook did not run to its end; the message names notebook, cell and reason. Its file is left as it was."""


def source_sha256(notebook) -> str:
    """SHA-256 of the code cells' sources, in their order: what stored outputs are the outputs of. Prose does not count.

    notebook: as nbformat reads it.
    """
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


def refresh(path: Path, timeout: float = 900) -> float:
    """Execute a notebook in the folder it lies in, write its outputs into it, and return the seconds that took.

    timeout: seconds that one cell may take. Cells keep their ids. Left out is what differs from run to run or needs a kernel:
    times, the state of widgets, the version of Python. Raises RefreshError; TakenError if another process is doing the same.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellControlSignal, CellExecutionError, DeadKernelError

    with sole_writer(path):
        notebook = nbformat.read(path, as_version=4)
        # A kernel that is shut down in the midst of a cell would log how; what a cell raises comes back by another way.
        client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}},
                                record_timing=False, coalesce_streams=True, extra_arguments=["--IPKernelApp.log_level=CRITICAL"])
        start = time.monotonic()
        try:
            client.reset_execution_trackers()
            # Cell by cell and not by its `execute`, which would answer Ctrl-C by killing the kernel and then wonder where it is.
            with client.setup_kernel():
                for index, cell in enumerate(bar(path.stem, iterable=notebook.cells)):
                    client.execute_cell(cell, index, execution_count=client.code_cells_executed + 1)
        except (CellExecutionError, CellControlSignal, DeadKernelError) as error:
            raise RefreshError(f"{path.name} stopped{_where(notebook)}: {_reason(error)}. The file is left as it was.") from None
        seconds = time.monotonic() - start

        for metadata in [notebook.metadata, *[cell.metadata for cell in notebook.cells]]:
            for key in ("widgets", "papermill", "execution"):
                metadata.pop(key, None)
        notebook.metadata.language_info = {"name": "python"}
        notebook.metadata.s2dm_mini = {"source_sha256": source_sha256(notebook)}
        write_whole(path, (nbformat.writes(notebook) + "\n").encode())
    return seconds


def _where(notebook) -> str:
    for i, cell in enumerate(notebook.cells, 1):
        if any(output.output_type == "error" for output in cell.get("outputs", [])):
            return f" in cell {i}"
    return ""


def _reason(error: Exception) -> str:
    text = f"{error.ename}: {error.evalue}" if hasattr(error, "ename") else str(error)
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip().rstrip(".")
