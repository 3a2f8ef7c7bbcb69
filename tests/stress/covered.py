"""Which lines and branches of the library the unit tests run: python tests/stress/covered.py [test files]

One test file after the other, processes that tests start included; what each has found lies in build/coverage, so that a second start
goes on where the first was stopped. Once all are there: a report, and a row in data/results/hardness.csv.
"""
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from table import record

ROOT = Path(__file__).resolve().parents[2]
FOUND = ROOT / "build" / "coverage"


def main() -> None:
    FOUND.mkdir(parents=True, exist_ok=True)
    everything = sorted((ROOT / "tests").glob("test_*.py"))
    for file in map(Path, sys.argv[1:] or everything):
        place = FOUND / file.stem
        if (place / "seconds").exists():
            continue
        place.mkdir(exist_ok=True)
        start = time.perf_counter()
        command = [sys.executable, "-m", "coverage", "run", f"--data-file={place / 'data'}", "-m", "pytest", "-q", file.resolve()]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
        if done.returncode not in (0, 5):  # 5: every test of the file was skipped
            raise SystemExit(f"{file.name} fails; coverage is counted of passing tests only.")
        (place / "seconds").write_text(str(time.perf_counter() - start), encoding="utf-8")
    if missing := [file.name for file in everything if not (FOUND / file.stem / "seconds").exists()]:
        print(f"{len(missing)} of {len(everything)} test files still to run: {', '.join(missing)}")
        return
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.run([*coverage, "combine", "--keep", "--quiet", *FOUND.glob("*/data.*")], cwd=ROOT, check=True)
    subprocess.run([*coverage, "report", "--show-missing", "--skip-covered"], cwd=ROOT, check=True)
    subprocess.run([*coverage, "json", "--quiet", "-o", FOUND / "report.json"], cwd=ROOT, check=True)
    total = json.loads((FOUND / "report.json").read_text(encoding="utf-8"))["totals"]
    record("lines and branches run by the unit tests", total["num_statements"] + total["num_branches"],
           total["covered_lines"] + total["covered_branches"], sum(float(file.read_bytes()) for file in FOUND.glob("*/seconds")),
           "python tests/stress/covered.py")


if __name__ == "__main__":
    main()
