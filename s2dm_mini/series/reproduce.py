"""Run the notebook series through papermill and gather its pictures and checks on one page.

A check is a printed line that starts with `check:`; it stands beside the claim that it tests.
"""
import ast
import hashlib
import html
import json
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import tyro

from .. import checkpoints
from ..study import tables
from ..support.files import sole_writer, write_whole

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


class ReproductionError(Exception):
    """The series cannot run, or a notebook failed; the message names the notebook, the cell and the reason."""


@dataclass
class Chapter:
    """The title, checks and pictures of an executed notebook."""

    name: str
    title: str
    promise: str
    seconds: float
    failure: str = ""
    checks: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)  # base64 PNG


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
    series = sorted(notebooks.glob("[0-9][0-9]*_*.ipynb"))
    if only:
        series = [path for path in series if path.name.startswith(only)]
    if not series:
        known = ", ".join(path.stem for path in sorted(notebooks.glob("[0-9][0-9]*_*.ipynb"))) or "none"
        raise ReproductionError(f"no notebook in {notebooks} starts with {' or '.join(only) or 'a number'}. There: {known}.")
    known = {path: parameter_names(path) for path in series}
    parameters = _parse(set, sorted({name for names in known.values() for name in names}))

    index, unfinished, basis = out / "index.html", out / "unfinished.json", _basis(series, parameters)
    with sole_writer(index, unfinished, *(out / path.name for path in series)):
        done = _done_before(unfinished, basis)
        chapters: list[Chapter] = []
        for number, path in enumerate(series, 1):
            target, label = out / path.name, f"[{number}/{len(series)}] {path.stem}"
            if path.name in done and target.exists():
                chapters.append(_chapter(path, target, done[path.name]))
                print(f"{label}: done before it was stopped", flush=True)
            else:
                chosen = {name: value for name, value in parameters.items() if name in known[path]}
                chapters.append(_execute(path, target, chosen, label))
            write_whole(index, _page(chapters, len(series)).encode())
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
        found = json.loads(unfinished.read_text())
        return dict(found["seconds"]) if found["basis"] == basis else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def parameter_names(notebook: Path) -> list[str]:
    """Names assigned in the notebook's `parameters` cell. Raises ReproductionError for an unreadable file."""
    import nbformat

    try:
        for cell in nbformat.read(notebook, as_version=4).cells:
            if "parameters" in cell.metadata.get("tags", []):
                targets = [target for line in ast.parse(cell.source).body if isinstance(line, ast.Assign) for target in line.targets]
                return [target.id for target in targets if isinstance(target, ast.Name)]
    except Exception as error:  # nbformat raises many kinds of exception for a damaged file
        reason = " ".join(str(error).split())
        raise ReproductionError(f"{notebook} is no notebook that can be read: {type(error).__name__}, {reason[:200]}") from error
    return []


def _parse(assignments: Iterable[str], known: list[str]) -> dict[str, object]:
    """{name: value} from texts `name=value`; a value that is no Python literal is a text."""
    parameters = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise ReproductionError(f"a parameter is given as name=value, not {text!r}.")
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ReproductionError(f"no notebook has a parameter called {name!r}.{hint} Known: {', '.join(known)}.")
        try:
            parameters[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            parameters[name] = value
    return parameters


def _execute(source: Path, target: Path, parameters: dict[str, object], label: str) -> Chapter:
    import papermill
    from nbclient.exceptions import CellControlSignal, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    part = target.with_name(f"{target.stem}.part.ipynb")  # papermill rewrites it after each cell, in place
    bar = {"desc": label, "file": sys.stderr, "mininterval": 0.5 if sys.stderr.isatty() else 15, "ascii": not sys.stderr.isatty(),
           "bar_format": "{desc}: {n_fmt}/{total_fmt} cells |{bar:20}| {elapsed} gone, {remaining} left"}
    start = time.monotonic()
    try:
        papermill.execute_notebook(source, part, parameters, kernel_name="python3", language="python", progress_bar=bar,
                                   cwd=source.parent, request_save_on_cell_execute=True,
                                   # Kernels' messages at start and stop would break the bar.
                                   extra_arguments=["--IPKernelApp.log_level=CRITICAL"])
    except PapermillExecutionError as error:
        reason = re.sub(r"\x1b\[[0-9;]*m", "", f"{error.ename}: {error.evalue}").strip()
        failure = (f"{source.stem} stopped in cell {error.cell_index + 1} (In [{error.exec_count}]): {reason}. "
                   f"What ran is kept in {target}.")
    except (DeadKernelError, CellControlSignal, RuntimeError) as error:
        failure = f"{source.stem} stopped, its kernel did not answer: {error}. What ran is kept in {target}."
    except OSError as error:
        raise ReproductionError(f"{source.stem} stopped: {error.strerror or error}. The notebooks before it are kept in {target.parent}; "
                                f"the same command goes on with this one.") from error
    else:
        failure = ""
    finally:
        ran = part.read_bytes() if part.exists() else b""
        part.unlink(missing_ok=True)
    if ran:
        write_whole(target, ran)
    chapter = _chapter(source, target, time.monotonic() - start, failure)
    print(f"{label}: {'failed' if failure else 'done'} in {chapter.seconds:.0f} s, {len(chapter.checks)} checks, "
          f"{len(chapter.pictures)} pictures", flush=True)
    return chapter


def _chapter(source: Path, executed: Path, seconds: float, failure: str = "") -> Chapter:
    """The chapter of an executed notebook; without outputs if none was written."""
    import nbformat

    chapter = Chapter(source.stem, *_title(source), seconds, failure)
    for cell in nbformat.read(executed, as_version=4).cells if executed.exists() else []:
        outputs = cell.get("outputs", [])
        printed = "".join(output.get("text", "") for output in outputs if output.get("name") == "stdout")  # slow lines come in pieces
        chapter.checks += [line for line in printed.splitlines() if line.startswith("check:")]
        for output in outputs:
            picture = output.get("data", {}).get("image/png")
            chapter.pictures += [picture.replace("\n", "")] if picture else []
    return chapter


def _title(notebook: Path) -> tuple[str, str]:
    """The heading and the first paragraph of a notebook's first Markdown cell."""
    import nbformat

    first = next((cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "markdown"), "")
    heading, *paragraphs = [part.strip() for part in first.split("\n\n") if part.strip()] or [notebook.stem]
    return heading.lstrip("# "), re.sub(r"[*_`]", "", paragraphs[0]) if paragraphs else ""


def _page(chapters: list[Chapter], total: int) -> str:
    """The page, as HTML."""
    e = html.escape
    rows, sections = [], []
    for c in chapters:
        state = "failed" if c.failure else "ok"
        rows.append(f'<tr><td><a href="#{e(c.name)}">{e(c.title)}</a></td><td class="{state}">{state}</td>'
                    f"<td>{c.seconds:.0f} s</td><td>{len(c.checks)}</td></tr>")
        pictures = "".join(f'<img alt="Picture {i} of {e(c.title)}" src="data:image/png;base64,{p}">' for i, p in enumerate(c.pictures, 1))
        checks = "".join(f"<li>{e(line.removeprefix('check:').strip())}</li>" for line in c.checks)
        failure = f'<p class="failed">{e(c.failure)}</p>' if c.failure else ""
        sections.append(f'<section id="{e(c.name)}"><h2>{e(c.title)}</h2><p>{e(c.promise)}</p>{failure}'
                        f'<p><a href="{e(c.name)}.ipynb">executed notebook</a></p>{pictures}<ul>{checks}</ul></section>')
    waiting = f"<p>{total - len(chapters)} of {total} notebooks not yet run.</p>" if len(chapters) < total else ""
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>S²-DM, reproduced</title>
<style>
 body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
 img {{ max-width: 100%; display: block; margin: 1rem 0 }}
 table {{ border-collapse: collapse }} td, th {{ padding: .2rem .8rem .2rem 0; text-align: left }}
 section {{ border-top: 1px solid #ccc; margin-top: 2.5rem }}
 li {{ list-style: "✓  " }} .ok {{ color: #00664b }} .failed {{ color: #a63c00; font-weight: bold }}
</style>
<h1>S²-DM, reproduced</h1>
<p>Every picture and every check of the notebook series, as it came out of this run.</p>
<table><tr><th>notebook</th><th>state</th><th>time</th><th>checks</th></tr>{"".join(rows)}</table>
{waiting}{"".join(sections)}
</html>
"""
