"""Slides of the notebooks: `make slides`, or

    python notebooks/book/slides.py build/slides notebooks/01_noise_and_denoising.ipynb

Each section of a notebook becomes a slide with the first sentence of each paragraph and the displayed formulas. Stored figures stand
below a single point, or on slides of their own. Code is left out. The deck needs no internet. It finds reveal.js beside it, formulas
are MathML, and figures are inside.
"""
import base64
import re
import shutil
import sys
from importlib.resources import files
from pathlib import Path

import nbformat
from nbconvert.exporters import SlidesExporter

sys.path.insert(0, str(Path(__file__).parent))
from formulas import to_mathml

TEMPLATES = Path(__file__).parent / "templates"
REVEAL = ("dist/reveal.js", "dist/reveal.css", "dist/reset.css", "LICENSE")  # of the copy that sphinx-revealjs brings
POINTS = 4  # on a slide; more go to a slide below


def main() -> None:
    out, notebooks = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
    copy_reveal(out / "reveal")
    for path in notebooks:
        (out / f"{path.stem}.html").write_text(deck(path), encoding="utf-8")
    links = "\n".join(f'<li><a href="{path.stem}.html">{title(path)}</a></li>' for path in notebooks)
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Slides</title><h1>Slides</h1><ul>\n{links}\n</ul></html>\n'
    (out / "index.html").write_text(page, encoding="utf-8")


def copy_reveal(folder: Path) -> None:
    """Put reveal.js and its licence into the folder."""
    source = files("sphinx_revealjs") / "_static" / "revealjs"
    for name in REVEAL:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((source / name).read_bytes())
    shutil.copy(Path(__file__).parent / "static" / "slides.css", folder / "slides.css")


def title(path: Path) -> str:
    """The notebook's own title, its first heading."""
    return re.search(r"^# (.*)", nbformat.read(path, as_version=4).cells[0].source, flags=re.MULTILINE)[1]


def deck(path: Path) -> str:
    """The notebook as one page of HTML with slides."""
    slides = nbformat.v4.new_notebook(cells=slide_cells(nbformat.read(path, as_version=4)))
    exporter = SlidesExporter(extra_template_basedirs=[str(TEMPLATES)], template_name="slides", exclude_input=True)
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    return exporter.from_notebook_node(slides, {"metadata": {"name": title(path)}})[0]


def slide_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Markdown cells, one a slide. A heading begins a slide; further points and figures go to slides below it."""
    heading, slides = "", []
    for cell in notebook.cells:
        for part in re.split(r"(?m)^(?=#+ )", cell.source) if cell.cell_type == "markdown" else []:
            found = re.match(r"(##?) (.*)\n?", part)  # deeper headings are left to the text
            heading = found[2] if found else heading
            points = [point for block in re.split(r"\n\s*\n", part[found.end():] if found else part) for point in shortened(block.strip())]
            first = [f"{found[1]} {heading}"] if found else []
            groups = [points[i:i + POINTS] for i in range(0, len(points), POINTS)] or [[]] * len(first)
            for i, group in enumerate(groups):
                new = bool(found) and i == 0
                slides.append(slide("\n\n".join([*(first if new else [f"### {heading}"]), *group]), "slide" if new else "subslide"))
        for picture in pictures(cell, plain(heading)):
            if slides and slides[-1].source.count("\n\n") <= 1 and "data:image" not in slides[-1].source:  # below a single point
                slides[-1].source += f"\n\n{picture}"
            else:
                slides.append(slide(f"### {heading}\n\n{picture}", "subslide"))
    return slides


def shortened(block: str) -> list[str]:
    """The points that stand for a paragraph: its first sentence, a formula as MathML, or the first sentences of a list's items.

    Nothing stands for tables, HTML, code, and the lines about time and order that only a reader of the notebook needs.
    """
    formula = re.match(r"\$\$(.*?)\$\$", block, flags=re.DOTALL)
    if formula:
        return [f'<div class="formula">{to_mathml(formula[1].strip(), display="block")}</div>']
    if not block or block.startswith(("|", "<", "```", "---", "**Time and hardware", "Before this", "**Before this")):
        return []
    if re.match(r"[-*] |\d+\. ", block):
        items = re.split(r"(?m)^(?=[-*] |\d+\. )", block)
        marked = [re.match(r"([-*] |\d+\. )(.*)", item, flags=re.DOTALL).groups() for item in items if item.strip()]
        return ["\n".join(mark + first_sentence(text) for mark, text in marked)]
    return [first_sentence(block)]


def first_sentence(text: str) -> str:
    """The first sentence, with formulas as MathML and links as their words. After a label in bold (**Note.**) it is the next one."""
    text = re.sub(r"\$\$.*", "", text, flags=re.DOTALL).strip()
    label = re.match(r"\*\*[^*]{1,40}[.:]\*\*\s+", text)
    start = label.end() if label else 0
    # It ends at a full stop, a question mark or a colon before a space and a capital, outside of formulas and code.
    end = re.compile(r"(?:\$[^$]*\$|`[^`]*`|[^$`])*?[.?!:][*_)\"]*(?=\s+[*_(\[]*[A-Z$`]|\s*$)", flags=re.DOTALL).match(text, start)
    first = text[:end.end()] if end else text
    first = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(first.split()))
    return re.sub(r"\$([^$]+)\$", lambda found: to_mathml(found[1]), first)


def plain(text: str) -> str:
    return re.sub(r"[\[\]()$*`\\]", "", text)


def pictures(cell: nbformat.NotebookNode, name: str) -> list[str]:
    """The figures that a cell stores, as Markdown, each with the first sentence of its caption.

    Sliders come as the HTML that moves them without a kernel.
    """
    found = []
    for data in (output.get("data", {}) for output in cell.get("outputs", [])):
        png = data.get("image/png", "").replace("\n", "")
        if '<div class="sliders"' in data.get("text/html", ""):
            found.append(data["text/html"])
        elif base64.b64decode(png[:16]).startswith(b"\x89PNG"):
            found.append(f"![{name}](data:image/png;base64,{png})")
        elif found and data.get("text/markdown", "").startswith("**Figure"):
            found[-1] += "\n\n" + first_sentence(data["text/markdown"])
    return found


def slide(text: str, kind: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_markdown_cell(text, metadata={"slideshow": {"slide_type": kind}})


if __name__ == "__main__":
    main()
