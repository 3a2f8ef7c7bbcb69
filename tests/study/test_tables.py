"""The ledger: rows are appended whole, by several processes at once, and never lost."""
import csv
import subprocess
import sys

import pytest

from s2dm_mini.study import tables
from s2dm_mini.study.tables import ResultsError, append_row, read_rows


def test_rows_come_back_as_they_went_in(tmp_path):
    path = tmp_path / "new" / "table.csv"
    rows = [{"name": "a, with comma", "fd": 1.5}, {"name": 'a "quoted"\nline', "fd": -2}, {"name": "ε τ ²", "fd": float("nan")}]
    for row in rows:
        append_row(path, row)
    assert read_rows(path) == [{name: str(value) for name, value in row.items()} for row in rows]
    assert path.read_text(encoding="utf-8").splitlines()[0] == "name,fd"


def test_columns_may_come_in_another_order_but_must_be_the_same(tmp_path):
    path = tmp_path / "table.csv"
    append_row(path, {"a": 1, "b": 2})
    append_row(path, {"b": 4, "a": 3})
    assert read_rows(path) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    before = path.read_bytes()
    with pytest.raises(ResultsError, match=r"table\.csv has other columns than this row: b, c stand only in one"):
        append_row(path, {"a": 1, "c": 2})
    assert path.read_bytes() == before


def test_two_processes_lose_no_row(tmp_path):
    path = tmp_path / "table.csv"
    code = ("import sys; from s2dm_mini.study.tables import append_row\n"
            "for i in range(15): append_row(sys.argv[1], {'who': sys.argv[2], 'i': i})")
    processes = [subprocess.Popen([sys.executable, "-c", code, path, who]) for who in "xy"]
    assert [process.wait() for process in processes] == [0, 0]
    assert sorted((row["who"], int(row["i"])) for row in read_rows(path)) == [(who, i) for who in "xy" for i in range(15)]


def test_a_failed_write_keeps_the_table_and_tells_the_row(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    append_row(path, {"fd": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables, "write_whole", full)
    with pytest.raises(ResultsError, match=r"table\.csv cannot be written \(No space left on device\); the row was \{'fd': 2\}"):
        append_row(path, {"fd": 2})
    assert read_rows(path) == [{"fd": "1"}]


@pytest.mark.parametrize(("content", "said"), [
    (b"a,b\n1,2\n3\n", "line 3, has not as many cells"),
    (b"a,b\n1,2,3\n", "line 2, has not as many cells"),
    (b"\xff\xfe", "cannot be read as a table"),
    (b'a,b\n"1,2\n', "cannot be read as a table"),
])
def test_a_damaged_table_is_refused_and_left_alone(tmp_path, content, said):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=said):
        append_row(path, {"a": 1, "b": 2})
    assert path.read_bytes() == content


def test_every_table_of_the_repository_can_be_read():
    for path in tables.RESULTS.glob("*.csv"):
        rows = read_rows(path)
        assert rows and all(all(row.values()) for row in rows), f"{path.name} has an empty cell"
        with open(path, newline="", encoding="utf-8") as file:
            assert len({tuple(row) for row in csv.reader(file)}) == len(rows) + 1, f"{path.name} holds a row twice"


def test_a_table_saved_by_a_spreadsheet_is_read_and_added_to(tmp_path):
    """With a byte-order mark in front."""
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n")
    append_row(path, {"a": 3, "b": 4})
    assert read_rows(path) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_a_row_goes_through_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link, table = tmp_path / "link.csv", tmp_path / "elsewhere" / "table.csv"
    append_row(table, {"a": 1})
    link.symlink_to(table)
    append_row(link, {"a": 2})
    assert link.is_symlink() and [row["a"] for row in read_rows(table)] == ["1", "2"]
