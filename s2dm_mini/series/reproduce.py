"""Run the notebook series through papermill and gather its pictures and checks on one page.

A check is a printed line that starts with `check:`; it stands beside the claim that it tests.
"""
import ast
import hashlib
import json
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .. import checkpoints
from ..study import tables
from ..support.checks import similar
from ..support.files import reason, sole_writer, write_whole
from .shipped import SOURCE

PAGE = Path(__file__).with_name("page.html")  # the template of index.html
NOTEBOOKS = SOURCE / "notebooks"


class ReproductionError(Exception):
    """The series cannot run, or a notebook failed; the message names the notebook, the cell and the reason."""


@dataclass
class Chapter:
    """What an executed notebook shows."""

    name: str
    title: str
    promise: str  # its first paragraph
    seconds: float
    failure: str  # empty if it ran to its end
    checks: list[str]
    pictures: list[str]  # base64 PNG


def reproduce(out: Path = Path("build/reproduction"), only: tuple[str, ...] = (), set: tuple[str, ...] = (),
              notebooks: Annotated[Path, tyro.conf.Suppress] = NOTEBOOKS) -> Path:
    """Run the notebook series and gather its pictures and checks in index.html.

    After a stop, the same call goes on with the notebook that it had reached, unless the notebooks, parameters, package, checkpoints or
    tables have changed since. A parameter that no chosen notebook has is refused before anything runs.

    Args:
        out: folder for the executed notebooks and index.html
        only: notebooks to run, by the beginning of their names, e.g. 01 02
        set: papermill parameters for the notebooks that have them, e.g. profile=quick seed=1
        notebooks: folder of the series

    Returns:
        The path of index.html. Raises ReproductionError; the notebooks finished before are kept.
    """
    from jinja2 import Template  # here, because other commands do not need it

    page = Template(PAGE.read_text(encoding="utf-8"), autoescape=True, keep_trailing_newline=True)
    every = sorted(notebooks.glob("[0-9][0-9]*_*.ipynb"))
    series = [path for path in every if not only or path.name.startswith(only)]
    if not series:
        raise ReproductionError(f"no notebook in {notebooks} starts with {' or '.join(only) or 'a number'}. "
                                f"There: {', '.join(path.stem for path in every) or 'none'}.")
    known = {path: parameter_names(path) for path in series}
    parameters = _parse(set, sorted({name for names in known.values() for name in names}))

    index, unfinished, basis = out / "index.html", out / "unfinished.json", _basis(series, parameters)
    with sole_writer(index, unfinished, *(out / path.name for path in series)):
        done = _done_before(unfinished, basis)
        chapters: list[Chapter] = []
        for number, path in enumerate(series, 1):
            target, label = out / path.name, f"[{number}/{len(series)}] {path.stem}"
            if path.name in done and target.exists():
                chapters.append(_chapter(target, done[path.name]))
                print(f"{label}: done before it was stopped", flush=True)
            else:
                chosen = {name: value for name, value in parameters.items() if name in known[path]}
                chapters.append(_execute(path, target, chosen, label))
            write_whole(index, page.render(chapters=chapters, waiting=len(series) - len(chapters)).encode())
            if chapters[-1].failure:
                raise ReproductionError(chapters[-1].failure)
            done[path.name] = chapters[-1].seconds
            write_whole(unfinished, json.dumps({"basis": basis, "seconds": done}).encode())
        unfinished.unlink()
    return index


def _basis(series: list[Path], parameters: dict[str, object]) -> str:
    """SHA-256 of everything a series depends on: notebooks, parameters, this package, its checkpoints and its tables."""
    package, measured = Path(__file__).parents[1].rglob("*.py"), tables.RESULTS.glob("*.csv")
    files = [*series, *sorted(package), checkpoints.ZOO / "manifest.json", *sorted(measured)]
    digest = hashlib.sha256(repr(sorted(parameters.items())).encode())
    for path in files:
        digest.update(path.name.encode() + (path.read_bytes() if path.exists() else b""))
    return digest.hexdigest()


def _done_before(unfinished: Path, basis: str) -> dict[str, float]:
    """The notebooks that an unfinished run has executed on the same basis: name → seconds."""
    try:
        found = json.loads(unfinished.read_text(encoding="utf-8"))
        return dict(found["seconds"]) if found["basis"] == basis else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def parameter_names(notebook: Path) -> list[str]:
    """Names assigned in the notebook's `parameters` cell. Raises ReproductionError for an unreadable file."""
    import nbformat

    try:
        for cell in nbformat.read(notebook, as_version=4).cells:
            if "parameters" in cell.metadata.get("tags", []):
                return [node.id for line in ast.parse(cell.source).body for node in ast.walk(line)
                        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    except Exception as error:  # nbformat raises many kinds of exception for a damaged file
        raise ReproductionError(f"{notebook} is no notebook that can be read: {reason(error)}") from error
    return []


def _parse(assignments: Iterable[str], known: list[str]) -> dict[str, object]:
    """{name: value} from texts `name=value`; a value that is no Python literal is a text."""
    parameters = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise ReproductionError(f"a parameter is given as name=value, not {text!r}.")
        if name not in known:
            raise ReproductionError(f"no notebook has a parameter called {name!r}.{similar(name, known)} Known: {', '.join(known)}.")
        try:
            parameters[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            parameters[name] = value
    return parameters


def _execute(source: Path, target: Path, parameters: dict[str, object], label: str) -> Chapter:
    import papermill
    from nbclient.exceptions import CellControlSignal, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    part, failure = target.with_name(f"{target.stem}.part.ipynb"), ""  # papermill rewrites it after each cell, in place
    bar = {"desc": label, "file": sys.stderr, "mininterval": 0.5 if sys.stderr.isatty() else 15, "ascii": not sys.stderr.isatty(),
           "bar_format": "{desc}: {n_fmt}/{total_fmt} cells |{bar:20}| {elapsed} gone, {remaining} left"}
    start = time.monotonic()
    try:
        papermill.execute_notebook(source, part, parameters, kernel_name="python3", language="python", progress_bar=bar,
                                   cwd=source.parent, request_save_on_cell_execute=True,
                                   # Kernels' messages at start and stop would break the bar.
                                   extra_arguments=["--IPKernelApp.log_level=CRITICAL"])
    except PapermillExecutionError as error:
        said = re.sub(r"\x1b\[[0-9;]*m", "", f"{error.ename}: {error.evalue}").strip()
        failure = f"{source.stem} stopped in cell {error.cell_index + 1} (In [{error.exec_count}]): {said}. What ran is kept in {target}."
    except (DeadKernelError, CellControlSignal, RuntimeError) as error:
        failure = f"{source.stem} stopped, its kernel did not answer: {error}. What ran is kept in {target}."
    except OSError as error:
        raise ReproductionError(f"{source.stem} stopped: {error.strerror or error}. The notebooks before it are kept in {target.parent}; "
                                f"the same command goes on with this one.") from error
    finally:
        if part.exists():
            write_whole(target, part.read_bytes())
            part.unlink()
    chapter = _chapter(target, time.monotonic() - start, failure)
    print(f"{label}: {'failed' if failure else 'done'} in {chapter.seconds:.0f} s, {len(chapter.checks)} checks, "
          f"{len(chapter.pictures)} pictures", flush=True)
    return chapter


def _chapter(executed: Path, seconds: float, failure: str = "") -> Chapter:
    import nbformat

    cells = nbformat.read(executed, as_version=4).cells
    text = next((cell.source for cell in cells if cell.cell_type == "markdown"), executed.stem)
    title, promise, *_ = [*(part.strip() for part in text.split("\n\n") if part.strip()), "", ""]
    outputs = [cell.get("outputs", []) for cell in cells]
    printed = ["".join(output.text for output in cell if output.get("name") == "stdout") for cell in outputs]  # slow lines come in pieces
    checks = [line.removeprefix("check:").strip() for text in printed for line in text.splitlines() if line.startswith("check:")]
    pictures = [output.data["image/png"].replace("\n", "") for cell in outputs for output in cell if "image/png" in output.get("data", {})]
    return Chapter(executed.stem, title.lstrip("# "), re.sub(r"[*_`]", "", promise), seconds, failure, checks, pictures)
