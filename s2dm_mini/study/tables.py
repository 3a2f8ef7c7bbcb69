"""Tables of measurements, data/results/*.csv: their columns, and how rows are made, appended and read. Only commands write them."""
import csv
import io
import re
from pathlib import Path

from torch import Tensor

from ..measure import metrics
from ..measure.references import Reference
from ..samplers import SAMPLERS
from ..schedule import NoiseSchedule
from ..support.checks import check_name, require
from ..support.files import sole_writer, write_whole

# Of the checkout, else of the working folder, else of the folder above it: a kernel works in notebooks/ of a course.
_PLACES = (Path(__file__).resolve().parents[2] / "data", Path("data"), Path("../data"))
RESULTS = next(filter(Path.is_dir, _PLACES), Path("data")) / "results"
COLUMNS = {
    "evaluations": "checkpoint data preset skip tau reading training_seed images_seen network_sha256 sampler spacing eta steps nfe samples "
                   "sampling_seed features features_sha256 fd fd_infinite kid kid_deviation precision recall seconds device torch commit "
                   "date",
    "conditional": "checkpoint skip tau training_seed images_seen network_sha256 weight scale sampler spacing steps nfe samples "
                   "sampling_seed features features_sha256 class accuracy kid precision recall seconds device torch commit date command",
    "interpolation": "checkpoint network_sha256 way against against_sha256 against_way pairs frames sampler steps spacing sampling_seed "
                     "features features_sha256 measure mean error against_mean against_error difference difference_error paired seconds "
                     "device torch commit date",
    "ledger": "setting skip tau reading data training_seed images_seen network_sha256 scale sampler spacing steps nfe samples "
              "sampling_seed seconds device torch commit date features features_sha256 fd fd_left_out fd_infinite kid kid_deviation "
              "precision recall pixel_variance command",
    "signals": "start start_sha256 setting how training_seed images sampler spacing steps samples sampling_seed distance spectrum residual "
               "rate width r t device torch commit date",
    "tune": "checkpoint network_sha256 sampler spacing steps nfe role scale lambda_first lambda_last samples sampling_seed fd kid features "
            "features_sha256 seconds device torch commit date command",
}


class ResultsError(Exception):
    """A table of results cannot be read or written, or does not fit the row; the message names the file and the reason."""


def sampling_facts(schedule: NoiseSchedule, sampler: str, spacing: str, steps: int, samples: int, seed: int) -> dict:
    """Columns on a set of samples; nfe counts network evaluations an image."""
    check_name("sampler", sampler, SAMPLERS)
    return {"sampler": sampler, "spacing": spacing, "steps": steps, "nfe": SAMPLERS[sampler].nfe(len(schedule.timesteps(steps, spacing))),
            "samples": samples, "sampling_seed": seed}


def distances(real: Reference, x: Tensor) -> dict:
    """Columns on the distances of samples' features x (N, D) from the reference; fd_infinite is nan for N below 4·D."""
    kid, deviation = metrics.kernel_distance(real.features, x)
    precision, recall = metrics.precision_recall(real.features, x)
    infinite = metrics.frechet_distance_infinite(real.moments, x) if len(x) >= 4 * x.shape[1] else float("nan")
    fd, fd_infinite = (float(f"{value:.6g}") for value in (metrics.frechet_distance(real.moments, x), infinite))
    return {"fd": fd, "fd_infinite": fd_infinite, "kid": round(kid, 7), "kid_deviation": round(deviation, 7),
            "precision": round(precision, 4), "recall": round(recall, 4)}


def add(name: str, facts: dict, table: Path | None = None, key: tuple[str, ...] = ()) -> dict:
    """Append a row with the columns of the table NAME, out of facts that may hold more, to `table`, data/results/NAME.csv by default.

    Returns the row. key: as in `append_row`.
    """
    row = {column: facts[column] for column in COLUMNS[name].split()}
    append_row(table or RESULTS / f"{name}.csv", row, key)
    return row


def append_row(path: Path | str, row: dict, key: tuple[str, ...] = ()) -> None:
    """Append a row to a CSV table, which is created with the row's keys as columns.

    A row that agrees with an earlier one in all columns of `key` is not added. The table is rewritten whole under a lock: a crash leaves
    the old table or the new one, and concurrent processes wait. Raises ResultsError if the table has other columns.
    """
    path = Path(path)
    try:
        with sole_writer(path, wait=True):
            rows = read_rows(path) if path.exists() else []
            columns = list(rows[0]) if rows else list(row)
            if odd := sorted(set(columns) ^ set(row)):
                raise ResultsError(f"{path} has other columns than this row: {', '.join(odd)} stand only in one of them. "
                                   f"Give another file.")
            if not key or not holds(rows, {column: row[column] for column in key}):
                write_rows(path, [*rows, row])
    except OSError as error:
        raise ResultsError(f"{path} cannot be written ({error.strerror or error}); the row was {row}.") from error


def write_rows(path: Path | str, rows: list[dict]) -> None:
    """Write a CSV table whole; its columns are the keys of the first row. Raises ValueError for cells that would be read back otherwise."""
    longest = csv.field_size_limit() // 2
    for column, value in (cell for row in rows for cell in row.items()):
        require(value is not None and len(str(value)) <= longest and not re.search("[\r\ud800-\udfff]", str(value)),
                f"the cell {column!r} must be a value that can be written as a text of at most {longest:,} letters, "
                f"none of them a carriage return", value)
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_whole(Path(path), text.getvalue().encode())


def read_rows(path: Path | str) -> list[dict[str, str]]:
    """The rows of a table, {column: text}; a byte-order mark, as spreadsheets write it, is skipped.

    Raises ResultsError if a row has more or fewer cells than there are columns.
    """
    path = Path(path)
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResultsError(f"{path} cannot be read as a table ({error}).") from error
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise ResultsError(f"{path}, line {number}, has not as many cells as there are columns; restore the file.")
    return rows


def holds(rows: list[dict[str, str]], wanted: dict) -> bool:
    """Whether some row has these values."""
    return any(all(row.get(column) == str(value) for column, value in wanted.items()) for row in rows)
