"""Runs the unit tests with another Python or other versions of what the package needs, and notes how many pass:

    python tests/stress/portability.py --python python3.12
    python tests/stress/portability.py --versions lowest schedule losses    # only test_schedule.py and test_losses.py

--versions: `pinned` are those of constraints.txt, `lowest` the lower ends of pyproject.toml's ranges for the package's own needs, `newest`
whatever pip finds. Each combination gets an environment of its own in build/portability, which stays there for the next time: several
GiB where pip finds only the CUDA build of torch. Unless test files are named, all are run but those of notebooks, labs, book and browser,
which test files more than versions; tests marked slow are left out. A row goes into data/results/portability.csv.
"""
import argparse
import subprocess
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime
from pathlib import Path

from packaging.requirements import Requirement

from s2dm_mini.study.tables import RESULTS, append_row
from s2dm_mini.support.machine import git_commit

ROOT = Path(__file__).resolve().parents[2]
# What the unit tests themselves need; the rest of the extra `test` asks for newer versions of some of the package's own needs.
TOOLS = ("pytest", "hypothesis", "mpmath", "diffusers", "nbval", "pyyaml", "py-rattler", "packaging")
LEFT_OUT = ("notebooks", "labs", "book", "browser")


def lower_ends() -> str:
    """A constraints file: each of the package's needs at the lowest version it declares."""
    needs = map(Requirement, tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"])
    return "".join(f"{need.name}=={specifier.version}\n" for need in needs for specifier in need.specifier if specifier.operator == ">=")


def environment(python: str, versions: str, folder: Path) -> Path:
    """The Python of an environment with those versions, made if it is not there."""
    inside = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([python, "-m", "venv", folder], check=True)
        constraints = {"pinned": (ROOT / "constraints.txt").read_text(encoding="utf-8"), "lowest": lower_ends(), "newest": ""}[versions]
        (folder / "constraints.txt").write_text(constraints, encoding="utf-8")
        install = [inside, "-m", "pip", "install", "--quiet", "-c", folder / "constraints.txt"]
        subprocess.run([*install, "-e", f"{ROOT}[test]" if versions != "lowest" else ROOT], check=True)
        if versions == "lowest":
            subprocess.run([*install, *TOOLS], check=True)
        (folder / "complete").touch()
    return inside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default="python3.11", help="an interpreter, by name or path")
    parser.add_argument("--versions", choices=("pinned", "lowest", "newest"), default="pinned")
    parser.add_argument("tests", nargs="*", help="names of test files, without test_ and .py")
    args = parser.parse_args()
    ask = "import platform; print(platform.python_version())"
    version = subprocess.run([args.python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()
    folder = ROOT / "build" / "portability" / f"{version}-{args.versions}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    inside = environment(args.python, args.versions, folder)
    ask = "import numpy, torch; print(torch.__version__, numpy.__version__)"
    torch_version, numpy_version = subprocess.run([inside, "-c", ask], check=True, capture_output=True, text=True).stdout.split()
    files = {file.stem.removeprefix("test_"): file for file in sorted((ROOT / "tests").rglob("test_*.py"))}
    tests = [files[name] for name in args.tests or files if args.tests or name not in LEFT_OUT]
    report, start = folder / "report.xml", time.perf_counter()
    subprocess.run([inside, "-m", "pytest", "-q", "-m", "not slow", f"--junit-xml={report}", *tests])
    found = ElementTree.parse(report).find("testsuite").attrib
    failed = int(found["failures"]) + int(found["errors"])
    row = {"python": version, "versions": args.versions, "torch": torch_version, "numpy": numpy_version,
           "tests": " ".join(args.tests) or f"all but {' '.join(LEFT_OUT)} and slow ones",
           "passed": int(found["tests"]) - failed - int(found["skipped"]), "failed": failed, "skipped": int(found["skipped"]),
           "seconds": round(time.perf_counter() - start), "command": f"tests/stress/portability.py --versions {args.versions}",
           "commit": git_commit(), "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M")}
    append_row(RESULTS / "portability.csv", row)
    print(row)


if __name__ == "__main__":
    main()
