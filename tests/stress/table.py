"""How hard the package is to break, from what was measured: python tests/stress/table.py

The scripts beside this one (crash.py, fuzz.py, mutants.py, covered.py) each leave a row in data/results/hardness.csv through `record`;
this prints them as a table.
"""
from datetime import UTC, datetime

import torch

from s2dm_mini.study.tables import RESULTS, read_rows, write_rows
from s2dm_mini.support.machine import device_name, git_commit

HARDNESS = RESULTS / "hardness.csv"


def record(what: str, tried: int, survived: int, seconds: float, command: str) -> None:
    """Write down one measurement in place of an earlier one of the same thing.

    what: in words, such as "mutants killed by the tests"; tried, survived: of so many, in how many all went as it should: a fault did
    no harm, a bad input got its sentence, a mutant was noticed, a line was run.
    """
    row = {"what": what, "tried": tried, "survived": survived, "seconds": round(seconds), "command": command,
           "device": device_name(torch.device("cpu")), "commit": git_commit(), "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M")}
    others = [old for old in read_rows(HARDNESS) if old["what"] != what] if HARDNESS.exists() else []
    write_rows(HARDNESS, [*others, row])


def main() -> None:
    if not HARDNESS.exists():
        raise SystemExit(f"{HARDNESS} is not there: nothing has been measured yet; make stress measures it all.")
    print("| what | tried | as it should | | minutes | command | commit |\n| --- | ---: | ---: | ---: | ---: | --- | --- |")
    for row in read_rows(HARDNESS):
        tried, survived = int(row["tried"]), int(row["survived"])
        print(f"| {row['what']} | {tried:,} | {survived:,} | {survived / tried:.1%} | {int(row['seconds']) / 60:.0f} | "
              f"`{row['command']}` | {row['commit']} |")


if __name__ == "__main__":
    main()
