"""What the notebooks share: a check that can fail, figures with names at their lines, sliders that redraw."""
import io
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from s2dm_mini import plots
from s2dm_mini.series.course import Sliders, check, label_lines, png, show

CHROMIUM = shutil.which("chromium")


@pytest.mark.parametrize(("value", "bounds", "said"), [
    (True, {}, "check: so\n"), (0.5, {"below": 1}, "check: so (below 1)\n"),
    (torch.tensor([2.0, 3.0]), {"above": 1, "below": 4}, "check: so (below 4, above 1)\n"),
    (torch.tensor([1.0, 2.0]), {"near": torch.tensor([1.1, 1.9]), "within": 0.2}, "check: so (within 0.2)\n")])
def test_a_check_that_holds_prints_its_claim(value, bounds, said, capsys):
    check("so", value, **bounds)
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(("value", "bounds", "found"), [
    (False, {}, "Found 0."), (1.0, {"below": 1}, "Found 1, not below 1."), (float("nan"), {"above": 0}, "Found nan, not above 0."),
    (torch.tensor([0.0, 9.0]), {"below": 1}, "Found 9, not below 1."), (torch.tensor([True, False]), {}, "Found 0."),
    (3.0, {"near": 1.0, "within": 1.0}, "Found 3, not within 1.")])
def test_a_check_that_fails_names_the_value(value, bounds, found, capsys):
    with pytest.raises(AssertionError) as raised:
        check("so", value, **bounds)
    assert str(raised.value) == f"not true: so. {found}" and capsys.readouterr().out == ""


def test_a_check_of_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing to check: so"):
        check("so", torch.empty(0), below=1)


def test_lines_are_named_at_their_ends_without_overlap():
    picture = plots.curves({"a": ([0, 1], [0, 1]), "b": ([0, 1], [1, 1.001]), "c": ([0, 1], [2, 3])}, "x", "y", level=1.5)
    axes, = picture.axes
    label_lines(picture, "half")
    assert axes.get_legend() is None
    assert {text.get_text(): text.get_color() for text in axes.texts} == {
        "half": plots.BLACK, **{line.get_label(): line.get_color() for line in axes.lines[:3]}}
    heights = sorted(text.get_window_extent().y0 for text in axes.texts)
    assert all(b - a > 12 for a, b in zip(heights, heights[1:], strict=False))


def test_a_legend_of_dots_stays():
    picture = plots.dots({"a": ([0.0], [1.0], [0.1]), "b": ([1.0], [0.0], [0.1])}, "x", "y")
    label_lines(picture)
    assert [text.get_text() for text in picture.axes[0].get_legend().get_texts()] == ["a", "b"]


def test_figures_have_200_dots_an_inch():
    width, height = Image.open(io.BytesIO(png(plots.curves({"a": ([0, 1], [0, 1])}, "x", "y")))).size
    assert (width, height) == (1600, 760)


def drawing(height=2.0, width=1.0):
    return plots.curves({"a": ([0, width], [0, height])}, "x", "y")


def test_sliders_start_at_the_defaults_and_redraw():
    live = Sliders(drawing, height=(1.0, 2.0, 3.0), width=(1.0, 5.0))
    assert live.image.value == png(drawing())
    live.controls["height"].value = 3.0
    assert live.image.value == png(drawing(height=3.0))
    assert {"image/png", "text/html", "application/vnd.jupyter.widget-view+json"} <= live._repr_mimebundle_()[0].keys()
    assert live._repr_mimebundle_()[1] == {"image/png": {"width": 800, "height": 380}}


def test_a_figure_is_shown_with_its_number(monkeypatch):
    shown = []
    monkeypatch.setattr("s2dm_mini.series.course.display", lambda what, **options: shown.append(what))
    show(drawing(), "1.1", "A line rises.")
    show(Sliders(drawing, height=(1.0, 2.0)), "1.2", "Move it.")
    assert shown[0].keys() == {"image/png", "text/plain"} and [shown[1].data, shown[3].data] == [
        "**Figure 1.1.** A line rises.", "**Figure 1.2.** Move it."]


def test_the_page_holds_at_most_twelve_pictures_and_starts_at_the_defaults():
    def frames(**options):
        page = Sliders(drawing, **options).page()
        return re.search('data-frames="([^"]*)"', page)[1].split(), re.search('src="data:image/png;base64,([^"]*)"', page)[1]

    all_six, shown = frames(height=(1.0, 2.0, 3.0), width=(1.0, 5.0))
    assert len(set(all_six)) == 6 and shown == all_six[2]
    first_only, shown = frames(height=(1.0, 2.0, 3.0, 4.0, 5.0), width=(1.0, 5.0, 7.0))
    assert len(first_only) == 5 and shown == first_only[1]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_moves_without_a_kernel(tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    page = Sliders(drawing, height=(1.0, 2.0, 3.0), width=(1.0, 5.0)).page()
    frames = re.search('data-frames="([^"]*)"', page)[1].split()
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.goto((tmp_path / "page.html").as_uri())
        tab.locator("input").nth(0).fill("2")
        tab.locator("input").nth(1).fill("1")
        assert tab.locator("output").all_inner_texts() == ["3.0", "5.0"]
        assert tab.locator("img").get_attribute("src") == f"data:image/png;base64,{frames[5]}"
        assert tab.evaluate("document.querySelector('img').naturalWidth") == 800
        browser.close()


def test_the_table_counts_each_notebook_and_eight_carry_sliders(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "notebooks" / "book")
    from notebook_table import notebook_table

    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in notebook_table().splitlines()[2:]]
    assert all(row[5].isdigit() and int(row[1].replace(",", "")) <= 2_000 for row in rows)
    assert sum(row[4] != "0" for row in rows) >= 8


def test_a_dashed_level_has_its_name_under_sliders(monkeypatch):
    drawn = []
    monkeypatch.setattr("s2dm_mini.series.course.png", lambda picture, *_: drawn.append(picture) or b"")
    lines = lambda n=1: {"rising": ([1, 2], [0, n]), "falling": ([1, 2], [n, 0])}  # noqa: E731
    show(Sliders(lambda n=1: plots.curves(lines(n), "x", "y", level=0), n=[1, 2]), "1.1", "Move it.", level="zero")
    named = [{text.get_text() for text in picture.axes[0].texts} for picture in drawn]
    assert "zero" not in named[0] and {"zero", "rising", "falling"} <= named[-1]
