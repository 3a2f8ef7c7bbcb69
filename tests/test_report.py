"""The report on a ledger: the page of the book is of the committed rows, and the HTML file needs nothing beside it."""
import base64
import re
import sys
from pathlib import Path

import pytest

from s2dm_mini.study.changes import changes
from s2dm_mini.study.ledger import rows_of
from s2dm_mini.study.tables import ResultsError
from s2dm_mini.study.verdicts import other_results, verdict_table, verdicts

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "notebooks" / "book"))
import report  # noqa: E402


@pytest.fixture
def written(tmp_path, monkeypatch):
    other = other_results()
    monkeypatch.setattr(report, "other_results", lambda: other)
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    report.write_report("scratch", tmp_path / "book" / "results.md", tmp_path / "report.html")
    return tmp_path


def test_the_page_of_the_book_is_of_the_committed_ledger(written):
    page = (ROOT / "notebooks" / "book" / "results.md").read_text(encoding="utf-8")
    assert page == (written / "book" / "results.md").read_text(encoding="utf-8"), "run make report"
    rows = rows_of("scratch")
    assert verdict_table(verdicts(rows, **other_results())) in page and f"{len(rows)} measurements on" in page
    closed = {c.features: str(c) for c in changes(rows) if (c.setting, c.scale, *c.place) == ("l0", "s2dm50", "ddim", "quadratic", 10)}
    tables = page.partition("## Without training")[2].split("In the features ")[1:]
    assert len(closed) == 5 and all(closed[table.partition(":")[0]] in table for table in tables)
    assert "DDIM in 50 steps" in page, "what the plan has and the table lacks"


def test_the_html_file_holds_its_picture(written):
    html = (written / "report.html").read_text(encoding="utf-8")
    picture, = re.findall(r'<img src="([^"]*)"', html)
    assert base64.b64decode(picture.removeprefix("data:image/png;base64,")) == (written / "pictures" / "forest.png").read_bytes()
    assert html.count("<table>") >= 4 and "{{" not in html and "{%" not in html


def test_a_ledger_without_trained_networks_shows_the_closed_forms(tmp_path, monkeypatch):
    """As that of a pipeline of diffusers; a ledger of one training seed has no error and is refused."""
    alone = [row for row in rows_of("cpu") if row["setting"] == "l0"]
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "read_rows", lambda _: alone)
    report.write_report("cpu", tmp_path / "results.md", tmp_path / "report.html")
    assert "so does the factor s_t of S²-DM^10" in (tmp_path / "results.md").read_text(encoding="utf-8")
    one_seed = [row for row in rows_of("cpu") if row["training_seed"] == "0" and row["scale"] == "none"]
    monkeypatch.setattr(report, "read_rows", lambda _: one_seed)
    with pytest.raises(ResultsError, match="no change by S²-DM.* measure at least two training seeds"):
        report.write_report("cpu", tmp_path / "results.md", tmp_path / "report.html")
