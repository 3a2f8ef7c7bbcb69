"""The course in a folder: what is laid out, what is never touched, and what JupyterLab and Voilà are started with."""
import json

import pytest

from s2dm_mini.series import shipped
from s2dm_mini.support.files import TakenError, WriteError, sole_writer


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A small package to lay out, as a wheel holds it."""
    for name in ("notebooks/00_start_here.ipynb", "notebooks/01_x.ipynb", "notebooks/explorer/latent_explorer.ipynb",
                 "notebooks/labs/lab1.ipynb", "build/labs/student/lab1.ipynb", "build/explorer.html", "data/results/t.csv",
                 "data/checkpoints/README.md"):
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"first {name}", encoding="utf-8")
    monkeypatch.setattr(shipped, "SOURCE", tmp_path / "source")
    return tmp_path / "source"


def test_everything_is_laid_out_but_the_masters_of_the_labs(source, tmp_path):
    folder = tmp_path / "my course"
    assert shipped.lay_out(folder).startswith("7 files laid out in")
    laid = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")}
    assert laid == {"notebooks/00_start_here.ipynb", "notebooks/01_x.ipynb", "notebooks/explorer/latent_explorer.ipynb",
                    "notebooks/labs/lab1.ipynb", "explorer.html", "data/results/t.csv", "data/checkpoints/README.md",
                    "data/laid_out.json"}
    assert (folder / "notebooks/labs/lab1.ipynb").read_text(encoding="utf-8") == "first build/labs/student/lab1.ipynb"
    assert shipped.lay_out(folder).startswith("0 files")


def test_a_changed_file_is_never_touched_and_an_unchanged_one_follows_the_package(source, tmp_path):
    folder = tmp_path / "course"
    shipped.lay_out(folder)
    (folder / "notebooks/01_x.ipynb").write_text("my answers", encoding="utf-8")
    for name in ("00_start_here", "01_x"):
        (source / "notebooks" / f"{name}.ipynb").write_text("second", encoding="utf-8")
    for _ in range(2):
        said = shipped.lay_out(folder)
        assert (folder / "notebooks/01_x.ipynb").read_text(encoding="utf-8") == "my answers" and "notebooks/01_x.ipynb. Rename" in said
        assert (folder / "notebooks/00_start_here.ipynb").read_text(encoding="utf-8") == "second"
    (folder / "notebooks/01_x.ipynb").rename(folder / "notebooks/mine.ipynb")
    assert "Kept" not in shipped.lay_out(folder) and (folder / "notebooks/01_x.ipynb").read_text(encoding="utf-8") == "second"
    assert (folder / "notebooks/mine.ipynb").read_text(encoding="utf-8") == "my answers"


@pytest.mark.parametrize("record", [None, "", "[1, 2]", "{"])
def test_without_a_record_every_file_that_differs_is_kept(source, tmp_path, record):
    folder = tmp_path / "course"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "notebooks/01_x.ipynb").write_text("was here before", encoding="utf-8")
    if record is not None:
        (folder / "data").mkdir()
        (folder / "data" / shipped.LAID).write_text(record, encoding="utf-8")
    assert "Kept because changed there: notebooks/01_x.ipynb." in shipped.lay_out(folder)
    assert (folder / "notebooks/01_x.ipynb").read_text(encoding="utf-8") == "was here before"
    assert "notebooks/01_x.ipynb" not in json.loads((folder / "data" / shipped.LAID).read_text(encoding="utf-8"))


def test_a_folder_in_the_place_of_a_notebook_is_a_sentence(source, tmp_path):
    (tmp_path / "course" / "notebooks" / "01_x.ipynb").mkdir(parents=True)
    with pytest.raises(WriteError, match="01_x.ipynb cannot be written"):
        shipped.lay_out(tmp_path / "course")


def test_two_at_once_are_refused(source, tmp_path):
    with sole_writer(tmp_path / "course" / "data" / shipped.LAID), pytest.raises(TakenError, match="another process is writing"):
        shipped.lay_out(tmp_path / "course")


def test_lab_and_explorer_answer_this_machine_only(source, tmp_path, monkeypatch, capsys):
    from jupyterlab.labapp import LabApp
    from voila.app import Voila

    started = []
    for app in (LabApp, Voila):
        monkeypatch.setattr(app, "launch_instance", lambda argv, app=app: started.append((app, argv)))
    folder = tmp_path / "my course"
    shipped.open_lab(folder)
    shipped.open_explorer(folder)
    assert "pip install" not in capsys.readouterr().out
    monkeypatch.setattr(shipped, "find_spec", lambda name: None)
    shipped.open_explorer(folder)
    said = capsys.readouterr().out
    assert 'pip install "s2dm-mini[labs]"' in said and 'pip install "s2dm-mini[explorer]"' in said
    apps, arguments = zip(*started, strict=True)
    assert apps == (LabApp, Voila, LabApp) and all(any(a.endswith(".ip=127.0.0.1") for a in argv) for argv in arguments)
    first, voila, without_voila = arguments
    assert f"--ServerApp.root_dir={folder}" in first and "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb" in first
    assert voila[0] == str(folder / "notebooks" / "explorer" / "latent_explorer.ipynb") and "--token" in voila
    assert "--LabApp.default_url=/lab/tree/notebooks/explorer/latent_explorer.ipynb" in without_voila
