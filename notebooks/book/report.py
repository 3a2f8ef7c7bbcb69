"""Writes the report for those who will not open a notebook: python notebooks/book/report.py --size scratch

It is written from the ledger; no number in it is typed by hand.
"""
import base64
import io
import re
import sys
from pathlib import Path

import tyro
from jinja2 import Template
from nbconvert.filters import markdown2html

from s2dm_mini.plots import forest
from s2dm_mini.study.changes import Change, change_table, changes, title
from s2dm_mini.study.ledger import missing, table_of
from s2dm_mini.study.plan import FAMILIES, PAPER
from s2dm_mini.study.tables import RESULTS, ResultsError, read_rows
from s2dm_mini.study.verdicts import CLAIMED, other_results, verdict_table, verdicts
from s2dm_mini.support.files import write_whole

HERE = Path(__file__).parent
SHOWN = ("l0", *PAPER)
TEMPLATE = HERE / "templates" / "results.md"
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>S²-DM, judged</title>
<style>
 body { font: 16px/1.5 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
 img { max-width: 100% } table { border-collapse: collapse; display: block; overflow-x: auto } tr { border-bottom: 1px solid #ddd }
 .anchor-link { display: none } td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top }
</style>
"""


def forest_plot(cells: list[Change]) -> bytes:
    """PNG: the changes in each kind of features, with the paper's range."""
    panels: dict[str, dict] = {}
    for c in cells:
        row = f"{title(c.setting, c.scale)}, {FAMILIES[c.sampler]}, {c.spacing}, {c.steps}"
        panels.setdefault(c.features, {})[row] = tuple(100 * value for value in (c.mean, *c.interval))
    file = io.BytesIO()
    forest(panels, "change of the Fréchet distance against L₀, % (bars: 95 % intervals)", (100 * CLAIMED[0], 100 * CLAIMED[1])).savefig(
        file, format="png", dpi=200)
    return file.getvalue()


def lacking(size: str, table: Path) -> list[str]:
    """What the plan has and the table lacks, in words."""
    steps: dict[str, set[int]] = {}
    for group in missing(size, table):
        again = " from a second set of x_T" if group.sampling_seed else ""
        whose = "" if group.scale == "none" else f"{title(group.setting, group.scale)}, "
        name = whose + FAMILIES.get(group.sampler, group.sampler) + again
        steps.setdefault(name, set()).update(group.steps)
    return [f"{name} in {', '.join(map(str, sorted(counts)))} steps" for name, counts in steps.items()]


def same_signs(cells: list[Change], kid: list[Change]) -> str:
    """In how many of the cells KID changes in the same direction, by features, in words."""
    sign = {(c.setting, c.scale, c.features, *c.place): c.mean > 0 for c in kid}
    same: dict[str, list[bool]] = {}
    for c in cells:
        same.setdefault(c.features, []).append(sign[c.setting, c.scale, c.features, *c.place] == (c.mean > 0))
    return ", ".join(f"{kind} {sum(found)} of {len(found)}" for kind, found in same.items())


def write_report(size: str = "scratch", page: Path = HERE / "results.md", out: Path = Path("build/report.html")) -> str:
    """Write the report on a ledger: a page of the book with its picture, and one HTML file that holds both.

    Args:
        size: of the ledger, quick, cpu, scratch, full or hub
        page: Markdown file to write
        out: HTML file to write
    """
    table = table_of(size)
    rows = read_rows(table)
    found = changes(rows)
    known = [c for c in found if c.sampler in FAMILIES and c.error == c.error]
    main = ([c for c in known if c.setting in PAPER[1:] and c.scale == "none"]
            or [c for c in known if c.setting == "l0" and c.scale in PAPER[1:]])  # a pipeline of diffusers is not trained
    if not main:
        raise ResultsError(f"{table} has no change by S²-DM^10 or S²-DM^50 with an error: measure at least two training seeds.")
    judged = verdicts(rows, **other_results())
    closed = dict.fromkeys((c.features, *c.place) for c in found if c.setting == "l0" and c.sampler == "ddim")
    kinds = list(dict.fromkeys(row["features"] for row in rows))
    # The paper begins at 10 steps: what becomes of the claims about losses without fewer?
    of_losses = [v for v in verdicts([row for row in rows if int(row["steps"]) >= 10]) if v.by_features and "S²-DM^" in v.claim]
    text = Template(TEMPLATE.read_text(encoding="utf-8"), keep_trailing_newline=True).render(
        size=size, table=table.name, rows=rows, row=rows[0], verdict_table=verdict_table(judged),
        kinds=kinds, seeds=sorted({row["training_seed"] for row in rows}),
        devices=" and ".join(dict.fromkeys(row["device"] for row in rows)),
        closed={kind: change_table(c for c in found if (c.features, *c.place) in closed and c.features == kind and c.setting in SHOWN)
                for kind in kinds if closed},
        from_10=verdict_table(of_losses).partition("\n\n")[0] if any(row["steps"] == "5" for row in rows) else "",
        kid=same_signs(main, changes(rows, "kid")), lacking=lacking(size, table),
        untested=[verdict.claim for verdict in judged if verdict.verdict == "not tested here"])
    png, picture = forest_plot(main), RESULTS.parent / "pictures" / "forest.png"
    write_whole(picture, png)
    write_whole(page, text.encode())
    alone = re.sub(r"(?<!!)\[([^]]+)\]\((?!http)[^)]*\)", r"\1", text)  # links to other pages lead nowhere from one file
    inline = alone.replace("../../data/pictures/forest.png", "data:image/png;base64," + base64.b64encode(png).decode())
    write_whole(out, (PAGE + markdown2html(inline)).encode())
    return f"{page}, {out} and {picture}, from {len(rows)} rows of {table}"


if __name__ == "__main__":
    try:
        print(tyro.cli(write_report))
    except ResultsError as error:
        sys.exit(f"error: {error}")
