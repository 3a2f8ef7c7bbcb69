"""Grade a folder of submissions of one lab, and say which could not be graded.

    python notebooks/labs/grade.py lab1_noise_schedule submissions/     # after `make labs`

Each submission, a notebook or the zip file that its last cell exports, goes through `otter run` in a process of its own. That
exits with 0 whatever it finds, so everything here is read from the results.json that it leaves. Points go to grades.csv.
"""
import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

LABS = Path(__file__).resolve().parent.parent.parent / "build" / "labs"


def grade(submission: Path, grader: Path, out: Path, seconds: float = 600) -> dict[str, float] | str:
    """Points by question of one submission; a sentence if there are none. results.json is left in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    results = out / "results.json"
    results.unlink(missing_ok=True)  # of an earlier run
    command = [sys.executable, "-m", "otter", "run", "--no-logo", "-a", str(grader), "-o", str(out), str(submission)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:g} seconds: does it contain an endless loop?"
    if not results.exists():
        return (done.stderr.strip().splitlines() or ["no results.json, and no reason given"])[-1]
    tests = json.loads(results.read_text())["tests"]
    points = {test["name"]: test["score"] for test in tests if "max_score" in test}
    return points or "its kernel died before the end, see results.json."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lab", help="name of the lab, such as lab1_noise_schedule")
    parser.add_argument("folder", type=Path, help="where the submissions are: *.ipynb and *.zip")
    parser.add_argument("--graders", type=Path, default=LABS / "graders", help="where `make labs` put the graders")
    parser.add_argument("--out", type=Path, default=LABS / "grades", help="where results go, a folder a submission")
    parser.add_argument("--seconds", type=float, default=600, help="time that one submission may take")
    arguments = parser.parse_args()
    grader = arguments.graders / f"{arguments.lab}.zip"
    submissions = sorted(path for path in arguments.folder.glob("*") if path.suffix in (".ipynb", ".zip"))
    if not grader.exists():
        print(f"{grader} is missing: run `make labs`, and check the name of the lab.")
        return 1
    if not submissions:
        print(f"{arguments.folder} holds no .ipynb and no .zip file.")
        return 1

    rows = []
    for submission in submissions:
        found = grade(submission, grader, arguments.out / arguments.lab / submission.stem, arguments.seconds)
        note, points = (found, {}) if isinstance(found, str) else ("", found)
        rows.append({"submission": submission.name, **points, "total": sum(points.values()) if points else "", "note": note})
        print(f"{submission.name}: {note and 'NOT GRADED, ' + note or rows[-1]['total']}", flush=True)
    questions = sorted({name for row in rows for name in row} - {"submission", "total", "note"})
    table = arguments.out / arguments.lab / "grades.csv"
    with open(table, "w", newline="") as file:
        writer = csv.DictWriter(file, ["submission", *questions, "total", "note"], restval="")
        writer.writeheader()
        writer.writerows(rows)
    print(f"Points are in {table}.")
    return 1 if any(row["note"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
