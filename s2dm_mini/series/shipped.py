"""From an installed package to a course: lay the notebooks out in a folder, and open JupyterLab or the explorer there."""
import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

from ..support.files import sole_writer, write_whole

_PACKAGED = Path(__file__).resolve().parents[1] / "course"  # in a wheel; it has the layout of the checkout
SOURCE = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).resolve().parents[2]
# Files of a course → their folder there. Student copies and the explorer's page exist where they have been built.
FILES = {"notebooks/*.ipynb": "notebooks", "notebooks/explorer/*.ipynb": "notebooks/explorer",
         "build/labs/student/*.ipynb": "notebooks/labs", "data/results/*": "data/results", "data/pictures/run-*.png": "data/pictures",
         "data/pictures/left-noise.png": "data/pictures", "data/checkpoints/README.md": "data/checkpoints", "build/explorer.html": ""}
FOLDER = Path("s2dm-mini-course")
LAID = "laid_out.json"  # in data/: name → SHA-256 of each file as it was laid out


def lay_out(folder: Path = FOLDER, /) -> str:
    """Lay the notebooks, the labs and their tables out in a folder; files changed there are never touched.

    A file of an earlier version is replaced only if it is as it was laid out. Raises WriteError and TakenError.

    Args:
        folder: a new folder, or one laid out before
    """
    record = folder / "data" / LAID
    written, kept = 0, []
    with sole_writer(record):
        laid = _read(record)
        for name, source in files().items():
            content, target = source.read_bytes(), folder / name
            there = _sha256(target.read_bytes()) if target.is_file() else None
            if there not in (None, laid.get(name), _sha256(content)):
                kept.append(name)
                continue
            if there != _sha256(content):
                write_whole(target, content)
                written += 1
            laid[name] = _sha256(content)
        write_whole(record, json.dumps(laid, indent=1).encode())
    said = f"{written} files laid out in {folder}; `s2dm-mini lab {folder}` opens them."
    if find_spec("otter") is None:
        said += ' The labs\' checks need otter-grader: pip install "s2dm-mini[labs]".'
    return said + (f" Kept because changed there: {', '.join(kept)}. Rename one to get the package's." if kept else "")


def files() -> dict[str, Path]:
    """The files of a course: place in its folder, with /, → file of this package."""
    return {f"{place}/{path.name}".lstrip("/"): path for pattern, place in FILES.items() for path in sorted(SOURCE.glob(pattern))}


def _read(record: Path) -> dict[str, str]:
    try:
        return dict(json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def open_lab(folder: Path = FOLDER, /) -> None:
    """Lay the notebooks out in a folder and open JupyterLab at the first one; it answers this machine only.

    Args:
        folder: as for notebooks
    """
    print(lay_out(folder), flush=True)
    _open_lab(folder, "00_start_here.ipynb")


def open_explorer(folder: Path = FOLDER, /) -> None:
    """Open the latent explorer: as a page of Voilà's where that is installed, else in JupyterLab.

    Args:
        folder: as for notebooks
    """
    print(lay_out(folder), flush=True)
    notebook = "explorer/latent_explorer.ipynb"
    if find_spec("voila") is None:
        print('Voilà is not installed (pip install "s2dm-mini[explorer]"): run the three cells in JupyterLab.', flush=True)
        _open_lab(folder, notebook)
        return
    from voila.app import Voila

    print("The explorer is at the address with a token that Voilà prints now; open it in a browser. Ctrl-C ends.", flush=True)
    # Voilà would open a browser without the token, and keep the kernels of pages that were closed.
    Voila.launch_instance([str(folder / "notebooks" / notebook), "--Voila.ip=127.0.0.1", "--token", "--no-browser",
                           "--MappingKernelManager.cull_idle_timeout=300", "--MappingKernelManager.cull_interval=60"])


def _open_lab(folder: Path, notebook: str) -> None:
    from jupyterlab.labapp import LabApp

    # The address that is printed leads to the notebook too.
    LabApp.launch_instance([f"--ServerApp.root_dir={folder.resolve()}", f"--LabApp.default_url=/lab/tree/notebooks/{notebook}",
                            "--ServerApp.ip=127.0.0.1"])
