"""The book: built once from the stored notebooks, and looked at; and that a link which leads nowhere fails the build."""
import html
import json
import re
import subprocess
import sys
from pathlib import Path

import grimp
import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "notebooks" / "book"
sys.path.insert(0, str(CONF))
import rooms  # noqa: E402
from docstrings import to_rest  # noqa: E402
from formulas import to_mathml  # noqa: E402

SERIES = [path for path in sorted(ROOT.glob("notebooks/[0-9][0-9]*_*.ipynb"))
          if not json.loads(path.read_text(encoding="utf-8"))["metadata"].get("s2dm_mini", {}).get("draft")]


def build(source: Path, out: Path) -> subprocess.CompletedProcess:
    options = ["-W", "--keep-going", "-q", "-c", str(CONF)]
    return subprocess.run([sys.executable, "-m", "sphinx", *options, str(source), str(out)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The folder of the finished book."""
    out = tmp_path_factory.mktemp("book")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stderr
    return out


def text_of(page: Path) -> str:
    """What a reader sees of a page's main part."""
    main = re.search(r'<article role="main".*?</article>', page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", "", main[0]))


def test_every_notebook_has_a_page_with_its_title_and_pictures(book):
    for path in SERIES:
        notebook = nbformat.read(path, as_version=4)
        page = book / "notebooks" / f"{path.stem}.html"
        assert notebook.cells[0].source.splitlines()[0].removeprefix("# ") in text_of(page)
        stored = [output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
        sliders = [output for output in stored if "data-frames" in output["data"].get("text/html", "")]  # which hold their pictures
        content = page.read_bytes()
        assert content.count(b'class="sliders"') == len(sliders), f"{page.name} lacks sliders that the notebook stores"
        assert content.count(b"../_images/") >= len(stored) - len(sliders), f"{page.name} shows fewer pictures than the notebook stores"
    start = (book / "notebooks" / "book" / "index.html").read_text(encoding="utf-8")
    places = [start.index(f"{path.stem}.html") for path in SERIES]
    assert places == sorted(places)
    assert "notebooks/book/index.html" in (book / "index.html").read_text(encoding="utf-8")


def test_links_lead_to_pages_and_to_anchors_in_them(book):
    seen = 0
    for page in [*book.glob("notebooks/**/*.html"), *book.glob("data/**/*.html")]:
        for link in re.findall(r'<a [^>]*href="([^"]+)"', page.read_text(encoding="utf-8")):
            if re.match(r"https?:|mailto:", link):
                continue
            file, _, anchor = link.partition("#")
            target = (page.parent / file).resolve() if file else page
            assert not file.endswith(".ipynb") and target.exists(), f"{page.name} links to {link}, which is not there"
            assert not anchor or f'id="{anchor}"' in target.read_text(encoding="utf-8"), f"{page.name} links to {link}: no such anchor"
            seen += bool(re.match(r"question-\d+$", anchor))
    assert seen >= 3  # among them those to the notebooks' own anchors


def test_nothing_is_loaded_from_the_network_and_no_path_of_this_machine_is_shown(book):
    for page in book.rglob("*.html"):
        content = page.read_text(encoding="utf-8")
        assert not re.search(r'<(script|img|link|iframe)[^>]*(src|href)="(https?:)?//', content), page.name
        assert str(ROOT) not in content, page.name


def test_search_finds_words_of_notebooks_and_names_of_the_library(book):
    index = json.loads((book / "searchindex.js").read_text(encoding="utf-8").removeprefix("Search.setIndex(").removesuffix(")"))
    assert {f"notebooks/{path.stem}" for path in SERIES} <= set(index["docnames"])
    assert "shrinkag" in index["terms"]  # words are stored by their stems
    assert (book / "search.html").exists()


def test_the_reference_has_every_module_once_and_the_key_functions(book):
    pages = {page.stem: page.read_text(encoding="utf-8") for page in book.glob("notebooks/book/api_*.html")}
    whole = "".join(pages.values())
    for name in ("samplers.sample", "samplers.trajectory", "losses.s2dm_loss", "losses.shrinkage", "schedule.NoiseSchedule.linear",
                 "training.config.TrainConfig", "unet.UNet", "measure.metrics.frechet_distance"):
        assert f'id="s2dm_mini.{name}"' in whole, f"the reference lacks {name}"
    for path in (ROOT / "s2dm_mini").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if path.read_text(encoding="utf-8") and not module.endswith(("__main__", "s2dm_mini")):
            places = whole.count(f'id="module-{module}"')
            assert places == 1, f"{module} is on {places} pages of the reference: name its room in one of notebooks/book/api_*.md"
    assert "‖ε₁ − c_t·f‖²" in html.unescape(pages["api_core"])  # a table of the docstring, as typed
    assert "weight of L_0; 1 trains the baseline" in html.unescape(pages["api_training"])  # what a field means


def imports_by_another_tool() -> set[tuple[str, str]]:
    """(room, room it imports), as import-linter's own reader of imports sees them."""
    graph = grimp.build_graph("s2dm_mini", cache_dir=None)
    modules = {room: {room, *graph.find_descendants(room)} for room in graph.find_children("s2dm_mini")}
    return {(a.removeprefix("s2dm_mini."), b.removeprefix("s2dm_mini.")) for a in modules for b in modules
            if a != b and any(graph.direct_import_exists(importer=one, imported=other) for one in modules[a] for other in modules[b])}


def test_the_picture_of_the_house_shows_every_room_and_every_import(book):
    places = {path.stem for path in (ROOT / "s2dm_mini").iterdir() if path.suffix == ".py" or list(path.glob("*.py"))} - {"__init__"}
    order = [room for layer in rooms.layers() for room in layer]
    assert sorted(order) == sorted(places)
    found = rooms.arrows()
    assert found == imports_by_another_tool()
    layer_of = {room: i for i, layer in enumerate(rooms.layers()) for room in layer}
    assert all(layer_of[a] < layer_of[b] for a, b in found), "arrows run down"
    assert set(rooms.CORE) <= places
    for svg in (rooms.picture(), (book / "notebooks" / "book" / "house.html").read_text(encoding="utf-8")):
        assert re.findall(r'id="room-([\w-]+)"', svg) == order
        assert set(re.findall(r'id="(\w+)-imports-(\w+)"', svg)) == found


def test_the_way_in_names_files_that_are_there():
    text = (ROOT / "s2dm_mini" / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    for file in re.findall(r"`([\w/]+(?:\.py|/))`", text):
        assert "NAME" in file or any((ROOT / place / file).exists() for place in ("s2dm_mini", "s2dm_mini/samplers", ".")), file
    for name in re.findall(r"`([A-Z]{4,})`", text):
        assert any(f"\n{name}" in path.read_text(encoding="utf-8") for path in (ROOT / "s2dm_mini").rglob("*.py")), name


def assert_no_solution(book: Path) -> None:
    assert not [path for path in book.rglob("*") if path.suffix in (".ipynb", ".zip")]
    pages = {path.stem for path in book.rglob("*.html") if "labs" in path.relative_to(book).parts or b"BEGIN SOLUTION" in path.read_bytes()}
    assert pages <= {"README"}


def test_no_solution_of_a_lab_gets_in(book):
    assert_no_solution(book)


def small_source(folder: Path, **cells: str) -> Path:
    """A source of the book: a start page, a notebook of one Markdown cell for each keyword, and a lab with its master."""
    (folder / "notebooks" / "book").mkdir(parents=True)
    contents = "# Small\n\n```{toctree}\n:glob:\n\n../[0-9][0-9]*_*\n../*/README\n```\n"
    (folder / "notebooks" / "book" / "index.md").write_text(contents, encoding="utf-8")
    for i, (name, text) in enumerate(cells.items()):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# {name}\n\n{text}")])
        nbformat.write(notebook, folder / "notebooks" / f"{i:02}_{name}.ipynb")
    labs = folder / "notebooks" / "labs"
    labs.mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A master\n\n# BEGIN SOLUTION")]), labs / "lab1.ipynb")
    (labs / "README.md").write_text("# For teachers\n\nThe master is [lab 1](lab1.ipynb); see [a](../00_a.ipynb).\n", encoding="utf-8")
    return folder


ANSWER = '<a id="question-4"></a>\n## The fourth question\n\nAnswer.\n\n<a id="try-it"></a>\n## Try it\n\nDo.'


def test_links_between_notebooks_and_to_their_anchors_are_followed(tmp_path):
    good = '[b](01_b.ipynb), [its anchor](01_b.ipynb#question-4), [its heading](01_b.ipynb#try-it), [my own](#here) <a id="here"></a>'
    source = small_source(tmp_path / "source", a=good, b=ANSWER, c="[b](01_b.ipynb), [a draft](03_d.ipynb#question-4)", d="Not ready.")
    draft = nbformat.read(source / "notebooks" / "03_d.ipynb", as_version=4)
    draft.metadata.s2dm_mini = {"draft": True}
    nbformat.write(draft, source / "notebooks" / "03_d.ipynb")
    done = build(source, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "notebooks" / "00_a.html").read_text(encoding="utf-8")
    assert all(f'href="{link}"' in page for link in ("01_b.html", "01_b.html#question-4", "01_b.html#try-it", "#here"))
    assert not (tmp_path / "out" / "notebooks" / "03_d.html").exists()
    teachers = (tmp_path / "out" / "notebooks" / "labs" / "README.html").read_text(encoding="utf-8")
    assert "The master is lab 1; see" in re.sub(r"<[^>]+>", "", teachers) and 'href="../00_a.html"' in teachers
    assert_no_solution(tmp_path / "out")


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path):
    broken = {"c": "[no such notebook](08_x.ipynb)", "d": "[no such anchor](01_b.ipynb#question-5)",
              "e": "[an anchor of another notebook](#question-4)", "f": "![no such picture](missing.png)"}
    done = build(small_source(tmp_path / "source", a="Good.", b=ANSWER, **broken), tmp_path / "out")
    assert done.returncode != 0
    for name, complaint in [("02_c", "08_x.ipynb"), ("03_d", "question-5"), ("04_e", "question-4"), ("05_f", "missing.png")]:
        assert re.search(rf"{name}\.ipynb.*{re.escape(complaint)}", done.stderr), f"nothing was said about {complaint}: {done.stderr}"
    assert "00_a.ipynb" not in done.stderr and "01_b.ipynb" not in done.stderr


def test_docstrings_keep_their_words_and_layout():
    rest = to_rest(["|x| of x_t and `s_t`s, 2*3:", "", "    a  b", "", "    c", "End::", "", "one:    1", "two:    2"])
    assert rest == [r"\|x\| of x\_t and ``s_t``\ s, 2\*3:", "", "::", "", "        a  b", "    ", "        c", "", "End:\\:", "",
                    "::", "", "    one:    1", "    two:    2", ""]


def test_formulas_use_letters_that_browsers_draw():
    assert [re.sub(r"<[^>]+>", "", to_mathml(tex)) for tex in (r"\mathbb E", r"\mathcal N", r"\mathbb R")] == ["𝔼", "𝒩", "ℝ"]
    assert "<mo>&#x0223C;</mo>" in to_mathml(r"x \sim y")
