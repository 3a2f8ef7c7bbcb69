"""The slides: one deck from a notebook, looked at in its HTML and, where Chromium is installed, in a browser without a network."""
import base64
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("sphinx_revealjs")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "notebooks" / "book"))
import slides  # noqa: E402

NOTEBOOK = ROOT / "notebooks" / "01_noise_and_denoising.ipynb"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder with the deck of one notebook, reveal.js and a start page."""
    out = tmp_path_factory.mktemp("slides")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["slides.py", str(out), str(NOTEBOOK)])
        slides.main()
    return out


def test_every_section_is_a_slide_and_every_figure_is_there(folder):
    page = (folder / f"{NOTEBOOK.stem}.html").read_text(encoding="utf-8")
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    sections = re.findall(r"^##? (.*)", "\n".join(cell.source for cell in cells if cell.cell_type == "markdown"), flags=re.MULTILINE)
    assert len(re.findall(r"<h[12]\b", page)) == len(sections) >= 5
    figures = [png for cell in cells for png in slides.pictures(cell, "")]
    assert len(figures) >= 3 and page.count("<img") == len(figures) == page.count("<strong>Figure ")
    assert "<math" in page and "$" not in re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.DOTALL)
    assert NOTEBOOK.name.replace(".ipynb", ".html") in (folder / "index.html").read_text(encoding="utf-8")


def test_nothing_is_loaded_from_elsewhere(folder):
    for page in folder.glob("*.html"):
        linked = re.findall(r'<(?:script|link|img)[^>]*?(?:src|href)="([^"]{1,80})', page.read_text(encoding="utf-8"))
        assert all(link.startswith("data:") or (folder / link).exists() for link in linked), page.name
    assert "Permission is hereby granted" in (folder / "reveal" / "LICENSE").read_text(encoding="utf-8")


def test_a_paragraph_becomes_its_first_sentence():
    assert slides.shortened("It falls, e.g. by 0.5 at $t$. Then more.") == [f"It falls, e.g. by 0.5 at {slides.to_mathml('t')}."]
    assert slides.shortened("**Note.** Use [this](a.md). Not that.") == ["**Note.** Use this."]
    assert slides.shortened("- one. Two.\n- three") == ["- one.\n- three"]
    assert slides.shortened("$$x$$") == [f'<div class="formula">{slides.to_mathml("x", display="block")}</div>']
    for block in ("| a | b |", "**Time and hardware.** Minutes.", "Before this: 01.", ""):
        assert slides.shortened(block) == []


def test_long_sections_go_on_below():
    cells = [nbformat.v4.new_markdown_cell("# A\n\n" + "\n\n".join(f"Point {i}." for i in range(6))),
             nbformat.v4.new_code_cell("plot()", outputs=[nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(
                 b"\x89PNG\r\n\x1a\n0123456789").decode()})])]
    found = slides.slide_cells(nbformat.v4.new_notebook(cells=cells))
    assert [cell.metadata.slideshow.slide_type for cell in found] == ["slide", "subslide", "subslide"]
    assert "Point 3." in found[0].source and "Point 4." in found[1].source and "data:image/png" in found[2].source


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed")
def test_slides_fit_on_the_screen_and_ask_for_nothing(folder):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-quic"])
        page, asked, errors = browser.new_page(viewport={"width": 1280, "height": 720}), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((folder / f"{NOTEBOOK.stem}.html").as_uri())
        page.wait_for_function("window.Reveal && Reveal.isReady()")
        heights = []
        for _ in range(page.evaluate("Reveal.getTotalSlides()")):
            heights.append(page.evaluate("Reveal.getCurrentSlide().scrollHeight"))
            page.evaluate("Reveal.next()")
        browser.close()
    assert not errors and all(url.startswith(("file:", "data:")) for url in asked), (errors, asked)
    assert len(heights) > 10 and max(heights) <= 720, heights
