"""Sphinx's settings for the book: `make book`. Nothing is executed; pages show the stored outputs of the notebooks.

The source folder is the repository's root, so that links such as ../data/checkpoints/README.md mean the same here and there.
"""
import ast
import dataclasses
import inspect
import json
import re
import sys
import textwrap
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.addnodes import pending_xref
from sphinx.transforms import SphinxTransform

sys.path.insert(0, str(Path(__file__).parent))
from docstrings import to_rest
from formulas import to_mathml
from notebook_table import notebook_table
from rooms import ROOT, picture

project = "S²-DM, small and readable"
html_title = project
author = "the authors of s2dm_mini"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]

root_doc = "notebooks/book/index"
include_patterns = ["notebooks/book/*.md", "notebooks/[0-9][0-9]*_*.ipynb", "data/checkpoints/README.md", "notebooks/labs/README.md"]
# Folders without pages. The labs' notebooks hold solutions: only their README is a page.
exclude_patterns = [".*", "build", "runs", "tests", "s2dm_mini", "notebooks/labs/*.ipynb", "notebooks/labs/*/*"]

nb_execution_mode = "off"
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]  # it would need a kernel
nb_render_markdown_format = "myst"  # of cells' outputs: tables and formulas, as in the text
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # else every forward() repeats torch's
autodoc_preserve_defaults = True  # defaults as the code writes them, not their values on this machine
add_module_names = False
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["book.css"]
html_extra_path = [str(page)] if (page := ROOT / "build" / "explorer.html").exists() else []
html_additional_pages = {"index": "to_start.html"}  # a redirect to the start page, two folders down
templates_path = ["templates"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False

LONG_TYPES = {
    "~collections.abc.Callable[[~torch.Tensor, ~torch.Tensor], ~torch.Tensor]": "Denoiser",
    "~torch.Generator | list[~torch.Generator] | None": "NoiseSource",
}


class HtmlAnchors(SphinxTransform):
    """Make `<a id="question-4"></a>`, which JupyterLab and GitHub understand, a target that Sphinx checks links against.

    The target belongs to its page, like a heading: a link to #question-4 never leads to another page.
    """

    default_priority = 800  # before links are resolved

    def apply(self, **_) -> None:
        anchors = self.env.metadata[self.env.docname].setdefault("myst_slugs", {})
        for raw in list(self.document.findall(nodes.raw)):
            found = re.match(r'<a id="([\w-]+)">', raw.astext())
            if found and found[1] in anchors:
                raw.parent.remove(raw)  # a heading has this name already
            elif found:
                raw.replace_self(nodes.target("", "", ids=[found[1]]))
                anchors[found[1]] = (raw.line, found[1], "")
        self.document.myst_slugs = anchors


class OnlyPages(SphinxTransform):
    """Replace links to notebooks that are not pages, drafts and labs' masters, by their words."""

    default_priority = 800

    def apply(self, **_) -> None:
        for link in list(self.document.findall(pending_xref)):
            if link.get("refdomain") == "doc" and link["reftarget"] not in self.env.found_docs:
                link.replace_self(link.children)


class WithoutKernel(SphinxTransform):
    """Show the explorer's page that needs no kernel in place of its still picture, in the cell with the tag `explorer`.

    `make book` builds that page first; a book built without it keeps the picture.
    """

    default_priority = 800

    def apply(self, **_) -> None:
        if not self.app.config.html_extra_path:
            return
        place = "../" * self.env.docname.count("/") + Path(self.app.config.html_extra_path[0]).name
        frame = (f'<iframe class="explorer" src="{place}" title="The explorer without a kernel" loading="lazy"></iframe>'
                 f'<p><a href="{place}">The explorer on a page of its own</a></p><details><summary>As a still picture</summary>')
        for cell in self.document.findall(nodes.container):
            if "tag_explorer" in cell["classes"]:
                output = cell.children[-1]
                output.insert(0, nodes.raw("", frame, format="html"))
                output.append(nodes.raw("", "</details>", format="html"))


class Rooms(Directive):
    """The picture of the package's rooms, drawn from its code, inside the page."""

    def run(self) -> list[nodes.Node]:
        svg = picture()
        label = '<svg role="img" aria-label="The rooms of the package and their imports" '
        return [nodes.raw("", f'<div class="rooms">{svg[svg.index("<svg"):].replace("<svg ", label, 1)}</div>', format="html")]


def insert_modules(app, docname, source) -> None:
    """Replace the comment `modules: data plots` by a section for each module of these rooms, and `notebooks` by their table."""
    source[0] = source[0].replace("<!-- notebooks -->", notebook_table())
    source[0] = re.sub(r"<!-- modules: (.*) -->", lambda found: "\n".join(map(section, modules_of(found[1].split()))), source[0])


def modules_of(rooms: list[str]) -> list[str]:
    """Dotted names of the modules in these rooms, the folder itself before its files; a folder without a docstring is left out."""
    found = []
    for room in rooms:
        files = sorted((ROOT / "s2dm_mini" / room).glob("*.py")) or [ROOT / "s2dm_mini" / f"{room}.py"]
        names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files if path.stat().st_size]
        found += sorted(names)
    return found


def section(module: str) -> str:
    options = "   :members:\n   :ignore-module-all:\n"
    return f"## {module.removeprefix('s2dm_mini.')}\n\n```{{eval-rst}}\n.. automodule:: {module}\n{options}```\n"


def leave_drafts_out(app, config) -> None:
    """Leave out notebooks marked as drafts, which have no outputs yet."""
    for path in Path(app.srcdir).glob("notebooks/[0-9][0-9]*_*.ipynb"):
        if json.loads(path.read_text(encoding="utf-8"))["metadata"].get("s2dm_mini", {}).get("draft"):
            config.exclude_patterns.append(f"notebooks/{path.name}")


def read_docstring(app, what, name, obj, options, lines) -> None:
    # autodoc removes indentation that all lines but the first share; in a module's docstring it is code.
    lines[:] = to_rest(obj.__doc__.splitlines() if what == "module" and obj.__doc__ else lines)
    fields = fields_as_written(obj) if dataclasses.is_dataclass(obj) else []
    if fields:
        lines += ["::", "", *["    " + line for line in fields], ""]


def fields_as_written(cls: type) -> list[str]:
    """The lines of a dataclass that define its fields, with the comments that say their meaning."""
    source = textwrap.dedent(inspect.getsource(cls))
    fields = [node for node in ast.parse(source).body[0].body if isinstance(node, ast.AnnAssign)]
    return textwrap.dedent("\n".join(source.splitlines()[fields[0].lineno - 1:fields[-1].end_lineno])).splitlines() if fields else []


def shorten_signature(app, what, name, obj, options, signature, returns):
    if dataclasses.is_dataclass(obj) and what == "class":
        return "", None
    for long, short in LONG_TYPES.items():
        signature = signature and signature.replace(long, short)
    return signature, returns


def leave_foreign_members_out(app, what, name, obj, skip, options):
    """Leave out members that come from another package, such as set() of a Figure, and the numbered fields of a tuple."""
    foreign = not (getattr(obj, "__module__", None) or "s2dm_mini").startswith("s2dm_mini")
    return True if foreign or str(obj.__doc__).startswith("Alias for field number") else None


def inline_mathml(writer, node) -> None:
    writer.body.append(to_mathml(node.astext()))
    raise nodes.SkipNode


def display_mathml(writer, node) -> None:
    writer.body.append(f'<div class="math">{to_mathml(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app) -> None:
    app.add_transform(HtmlAnchors)
    app.add_transform(OnlyPages)
    app.add_transform(WithoutKernel)
    app.add_directive("rooms", Rooms)
    app.connect("config-inited", leave_drafts_out)
    app.connect("source-read", insert_modules)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-skip-member", leave_foreign_members_out)
    app.add_html_math_renderer("mathml", (inline_mathml, None), (display_mathml, None))
