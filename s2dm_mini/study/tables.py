"""The ledger: tables of measurements in data/results, one row a measurement, appended by commands only."""
import csv
import io
from pathlib import Path

from ..support.checks import shown
from ..support.files import sole_writer, write_whole

_CHECKOUT = Path(__file__).resolve().parents[2] / "data"
RESULTS = (_CHECKOUT if _CHECKOUT.is_dir() else Path("data")) / "results"  # in a checkout its own; else below the working folder


class ResultsError(Exception):
    """A table of results that cannot be read or does not fit; the message says which file and why."""


def append_row(path: Path | str, row: dict, key: tuple[str, ...] = ()) -> bool:
    """Add a row to a CSV table, which is made with the row's keys as columns if it is not there; True if it was added.

    key: columns that tell measurements apart; a row that agrees with an earlier one in all of them is not added. Without, all are.
    The table is rewritten whole under a lock: a crash loses no row and leaves no half one, and of two processes one waits.
    Raises ResultsError if the table has other columns.
    """
    path = Path(path)
    _check_row(row)
    if odd := [column for column in key if column not in row]:
        raise ValueError(f"key must name columns of the row, {', '.join(row)}, not {shown(odd)}.")
    try:
        with sole_writer(path, wait=True):
            rows = read_rows(path) if path.exists() else []
            columns = list(rows[0]) if rows else list(row)
            if odd := sorted(set(columns) ^ set(row)):
                raise ResultsError(f"{path} has other columns than this row: {', '.join(odd)} stand only in one of them. "
                                   f"Give another file.")
            if key and holds(rows, {column: row[column] for column in key}):
                return False
            write_rows(path, [*rows, row])
            return True
    except OSError as error:
        raise ResultsError(f"{path} cannot be written ({error.strerror or error}); the row was {row}.") from error


def write_rows(path: Path | str, rows: list[dict]) -> None:
    """Write a CSV table whole; its columns are the keys of the first row."""
    if not rows:
        raise ValueError(f"a table has at least one row, whose keys are its columns; there is none for {path}.")
    for row in rows:
        _check_row(row)
        if row.keys() != rows[0].keys():
            raise ValueError(f"rows must have the same columns, not {', '.join(rows[0])} and {', '.join(row)}.")
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_whole(Path(path), text.getvalue().encode())


def _check_row(row: dict) -> None:
    """Cells are written as Python prints them. Refused is what would not come back: None, carriage returns, no Unicode, too long a text."""
    if not isinstance(row, dict) or not row or not all(isinstance(column, str) and column for column in row):
        raise ValueError(f"row must be {{column: value}}, columns being texts and at least one, not {shown(row)}.")
    for column, value in row.items():
        text = f"{column}{value}"
        longest = csv.field_size_limit() // 2
        if value is None or len(text) > longest or any("\ud800" <= letter <= "\udfff" or letter == "\r" for letter in text):
            raise ValueError(f"the cell {column!r} must be a value that can be written as a text of at most {longest:,} letters, "
                             f"none of them a carriage return, not {shown(value)}.")


def read_rows(path: Path | str) -> list[dict[str, str]]:
    """The rows of a table, as texts by column. Raises ResultsError if a row has more or fewer cells than there are columns."""
    path = Path(path)
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResultsError(f"{path} cannot be read as a table ({error}).") from error
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise ResultsError(f"{path}, line {number}, has not as many cells as there are columns; restore the file.")
    return rows


def holds(rows: list[dict[str, str]], wanted: dict) -> bool:
    """Whether some row has these values."""
    return any(all(row.get(column) == str(value) for column, value in wanted.items()) for row in rows)
