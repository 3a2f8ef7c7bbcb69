"""Grade a folder of submissions of one lab, say which could not be graded, and collect the written answers on one sheet.

    python notebooks/labs/grade.py lab1_noise_schedule submissions/     # after `make labs`

Each submission, a notebook or the zip file that its last cell exports, goes through `otter run` in a process of its own, in the kernel of
this Python, whatever kernel the student worked with. `otter run` exits with 0 in any case, so the points are read from the results.json
that it leaves. Every file of the folder gets a row in grades.csv, with its points or with the reason why it has none. Written answers go to
written.md, beside their rubrics; their columns in grades.csv (w1, w2, …) are left empty for your points. The total is that of the tests.
"""
import argparse
import csv
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parent))
from answers import answers, marking_sheet, questions

LABS = Path(__file__).resolve().parent.parent.parent / "build" / "labs"
MAX_BYTES = 100 << 20  # of a notebook
UNREADABLE = (OSError, zipfile.BadZipFile, UnicodeDecodeError, nbformat.reader.NotJSONError, nbformat.ValidationError,
              AttributeError, KeyError, TypeError, RecursionError)


def read_submission(path: Path) -> nbformat.NotebookNode:
    """The notebook of a submission, set to the kernel of this Python. Raises ValueError with the reason if there is none."""
    if not path.is_file():
        raise ValueError("it is a folder; put the notebook itself beside the other submissions.")
    if path.suffix.lower() not in (".ipynb", ".zip"):
        raise ValueError("it is neither a notebook (.ipynb) nor a zip file.")
    try:
        text = read_zip(path) if path.suffix.lower() == ".zip" else path.read_bytes()
        notebook = nbformat.reads(text.decode("utf-8-sig"), as_version=4)
        nbformat.validate(notebook)
    except UNREADABLE as error:
        raise ValueError(f"its notebook cannot be read ({type(error).__name__}).") from error
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook


def read_zip(path: Path) -> bytes:
    """The one notebook in a zip file."""
    with zipfile.ZipFile(path) as archive:
        inside = [entry for entry in archive.infolist() if entry.filename.lower().endswith(".ipynb") and "__MACOSX" not in entry.filename]
        if len(inside) != 1:
            raise ValueError(f"the zip file holds {len(inside)} notebooks; it must hold one.")
        if inside[0].file_size > MAX_BYTES:
            raise ValueError(f"its notebook has {inside[0].file_size:,} bytes; at most {MAX_BYTES:,} are read.")
        return archive.read(inside[0])


def grade(submission: Path, grader: Path, out: Path, seconds: float = 600) -> dict[str, float] | str:
    """Points by question of one submission; a sentence if there are none. results.json is left in `out`."""
    try:
        notebook = read_submission(submission)
    except ValueError as error:
        return str(error)
    out.mkdir(parents=True, exist_ok=True)
    results = out / "results.json"
    results.unlink(missing_ok=True)  # of an earlier run
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "submission.ipynb"
        nbformat.write(notebook, copy)
        command = [sys.executable, "-m", "otter", "run", "--no-logo", "-a", str(grader), "-o", str(out), str(copy)]
        try:
            done = subprocess.run(command, capture_output=True, errors="replace", timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"stopped after {seconds:g} seconds: does it contain an endless loop?"
    if not results.exists():
        return (done.stderr.strip().splitlines() or ["no results.json, and no reason given"])[-1]
    tests = json.loads(results.read_text(encoding="utf-8"))["tests"]
    points = {test["name"]: test["score"] for test in tests if "max_score" in test}
    return points or "its kernel died before the end, see results.json."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lab", help="name of the lab, such as lab1_noise_schedule")
    parser.add_argument("folder", type=Path, help="where the submissions are: notebooks and zip files")
    parser.add_argument("--graders", type=Path, default=LABS / "graders", help="where `make labs` put the graders")
    parser.add_argument("--out", type=Path, default=LABS / "grades", help="where results go, a folder a submission")
    parser.add_argument("--seconds", type=float, default=600, help="time that one submission may take")
    arguments = parser.parse_args()
    grader = arguments.graders / f"{arguments.lab}.zip"
    submissions = sorted(path for path in arguments.folder.glob("*") if not path.name.startswith("."))
    if not grader.exists():
        print(f"{grader} is missing: run `make labs`, and check the name of the lab.")
        return 1
    if not submissions:
        print(f"{arguments.folder} holds no files.")
        return 1

    rows = []
    for submission in submissions:
        found = grade(submission, grader, arguments.out / arguments.lab / submission.name, arguments.seconds)
        note, points = (found, {}) if isinstance(found, str) else ("", found)
        rows.append({"submission": submission.name, **points, "total": sum(points.values()) if points else "", "note": note})
        print(f"{submission.name}: {note and 'NOT GRADED, ' + note or rows[-1]['total']}", flush=True)
    tested = sorted({name for row in rows for name in row} - {"submission", "total", "note"})
    written = list(questions(arguments.lab))
    table = arguments.out / arguments.lab / "grades.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["submission", *tested, "total", *written, "note"], restval="")
        writer.writeheader()
        writer.writerows(rows)
    sheet = table.with_name("written.md")
    readable = {row["submission"]: answers(read_submission(arguments.folder / row["submission"])) for row in rows if not row["note"]}
    sheet.write_text(marking_sheet(arguments.lab, readable), encoding="utf-8")
    print(f"Points of the tests are in {table}, written answers with their rubrics in {sheet}.")
    return 1 if any(row["note"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
