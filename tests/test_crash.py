"""What a kill, a full disk, a second process or a number that is not finite may do: never leave half a file, or lose what was there.

A few faults of each kind; `python tests/stress/crash.py` injects more.
"""
import math
import random
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch

from s2dm_mini import checkpoints, data, shapes
from s2dm_mini.checkpoints import load_model, read_tensors
from s2dm_mini.series.refresh import refresh
from s2dm_mini.series.reproduce import ReproductionError, reproduce
from s2dm_mini.study.evaluate import samples_picture
from s2dm_mini.study.tables import ResultsError, append_row, read_rows
from s2dm_mini.support import files
from s2dm_mini.support.files import TakenError, WriteError, sole_writer, write_whole
from s2dm_mini.support.machine import seed_of
from s2dm_mini.training.config import TrainConfig
from s2dm_mini.training.loop import train
from s2dm_mini.training.setup import TrainingError
from s2dm_mini.unet import PRESETS, UNetConfig

sys.path.insert(0, str(Path(__file__).parent / "stress"))
import crash

linux = pytest.mark.skipif(sys.platform != "linux", reason="kills processes and looks for them as Linux does")
SMALL = UNetConfig(image_size=8, channels=(8, 16), blocks_per_level=1, attention_levels=(1,), norm_groups=4, dropout=0.0)
BASE = TrainConfig(data="shapes", preset="tiny", batch=8, warmup=2, learning_rate=1e-3, steps=4, log_every=1, save_minutes=0,
                   device="cpu", precision="fp32")


@pytest.fixture
def images(monkeypatch):
    """Pictures for a network that is smaller than any that is for use."""
    monkeypatch.setitem(PRESETS, "tiny", SMALL)
    return shapes(28, size=8)


def numbers(folder):
    tensors, header = read_tensors(folder / "state.safetensors")
    return tensors, header["record"]["steps"]


def same(ours, theirs):
    return ours[1] == theirs[1] and set(ours[0]) == set(theirs[0]) and all(ours[0][name].equal(theirs[0][name]) for name in ours[0])


# ------------------------------------------------------------------------------------------------- killed, stopped

@linux
@pytest.mark.parametrize("kind", crash.KILLED, ids=["training", "fetch", "reproduce", "result"])
def test_killed_at_any_moment_everything_is_whole_and_goes_on(kind, tmp_path):
    assert crash.KILLED[kind](tmp_path, 3, random.Random(0)) == [""] * 3


@linux
def test_ctrl_c_and_sigterm_end_with_a_sentence(tmp_path):
    assert crash.stopped(tmp_path, 3, random.Random(0)) == [""] * 3


def test_a_training_killed_between_its_two_files_is_not_taken_for_finished(images, tmp_path, monkeypatch):
    """Of its last checkpoint only one file was written: whoever resumes it gets the network of the last step all the same."""
    whole, cut = replace(BASE, out=tmp_path / "whole"), replace(BASE, out=tmp_path / "cut")
    list(train(whole, images))
    list(train(replace(cut, steps=2), images))
    written, real = [], checkpoints.write_tensors

    def killed(path, *rest):
        if written:
            raise KeyboardInterrupt  # as good as any way to come no further
        written.append(path)
        real(path, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "write_tensors", killed)
        list(train(replace(cut, save_minutes=1e9), images, resume=True))
    list(train(cut, images, resume=True))
    assert same(numbers(cut.out), numbers(whole.out))
    networks = [load_model(folder / "model.safetensors") for folder in (cut.out, whole.out)]
    assert [record["steps"] for _, record in networks] == [4, 4]
    assert all(a.equal(b) for a, b in zip(networks[0][0].state_dict().values(), networks[1][0].state_dict().values(), strict=True))


def test_a_stopped_series_goes_on_unless_something_changed(tmp_path, capsys):
    series, out = tmp_path / "notebooks", tmp_path / "out"
    series.mkdir()
    crash.write_notebook(series / "00_first.ipynb", "print('check: first')")
    crash.write_notebook(series / "01_second.ipynb", "1 / 0")
    for _ in range(2):
        with pytest.raises(ReproductionError, match="01_second stopped in cell 2"):
            reproduce(out, (), [], series)
    said = capsys.readouterr().out
    assert said.count("00_first: done in") == 1 and said.count("00_first: done before it was stopped") == 1
    assert "<li>first</li>" in (out / "index.html").read_text(encoding="utf-8")
    crash.write_notebook(series / "01_second.ipynb", "print('check: second')")
    reproduce(out, (), [], series)
    assert "00_first: done in" in capsys.readouterr().out and not (out / "unfinished.json").exists()
    assert not list(out.glob("*.part*"))


def test_what_killed_writers_left_is_swept_up_and_nothing_else(tmp_path):
    mine, others = tmp_path / "a.csv.1f.part", [tmp_path / "b.csv.1f.part", tmp_path / "a.csv", tmp_path / "xa.csv.1f.part"]
    for path in (mine, *others):
        path.write_text("half", encoding="utf-8")
    with sole_writer(tmp_path / "a.csv"):
        assert not mine.exists() and all(path.exists() for path in others)


# ---------------------------------------------------------------------------------------------- no room, not allowed

class Disk:
    """Lets so many calls through that write something, and fails all after them; counts them."""

    def __init__(self, monkeypatch, calls=10**9):
        self.left = calls

        def counted(real):
            def call(*arguments, **options):
                self.left -= 1
                if self.left < 0:
                    raise OSError(28, "No space left on device")
                return real(*arguments, **options)
            return call

        class File:
            def __init__(file, *arguments):
                file.real = open(*arguments)  # noqa: SIM115
                file.write, file.flush, file.fileno = counted(file.real.write), counted(file.real.flush), file.real.fileno

            def __enter__(file):
                return file

            def __exit__(file, *exc):
                file.real.close()

        monkeypatch.setattr(files, "open", counted(File), raising=False)
        monkeypatch.setattr(files.os, "fsync", counted(files.os.fsync))
        monkeypatch.setattr(files.Path, "replace", counted(files.Path.replace))


def at_each_write(monkeypatch, work, check):
    """Do the work again and again, the disk full one call later each time, until it gets through; returns how many calls it made."""
    for calls in range(1000):
        with monkeypatch.context() as patch:
            disk = Disk(patch, calls)
            try:
                work()
            except (WriteError, ResultsError) as error:
                assert "cannot be written (No space left on device)" in str(error) and "\n" not in str(error)
            else:
                assert disk.left >= 0
                return calls
        check()
    raise AssertionError("the disk was never large enough")


def test_a_training_on_a_full_disk_keeps_its_checkpoint_and_goes_on(images, tmp_path, monkeypatch):
    """Two steps are saved, the disk is full from some call on: step 2, 3 or 4 is there, whole, and the rest comes out the same."""
    whole, starved = replace(BASE, out=tmp_path / "whole"), replace(BASE, out=tmp_path / "starved")
    list(train(whole, images))
    list(train(replace(starved, steps=2), images))
    steps = []

    def check():
        tensors, step = numbers(starved.out)
        assert all(value.isfinite().all() for value in tensors.values())
        assert load_model(starved.out / "model.safetensors")[1]["steps"] in (step, step + 1)
        assert not list(starved.out.glob("*.part"))
        steps.append(step)

    # What a try has saved the next one finds: of the two checkpoints to come each is cut short at each of its calls.
    calls = at_each_write(monkeypatch, lambda: list(train(starved, images, resume=True)), check)
    assert calls >= 10 and set(steps) == {2, 3}, (calls, steps)
    assert same(numbers(starved.out), numbers(whole.out))


def test_a_row_and_a_picture_on_a_full_disk_leave_the_old_ones(tmp_path, monkeypatch):
    table, picture = tmp_path / "table.csv", tmp_path / "a.png"
    append_row(table, {"fd": 1})
    calls = at_each_write(monkeypatch, lambda: append_row(table, {"fd": 2}, ("fd",)), lambda: read_rows(table) == [{"fd": "1"}] or 1 / 0)
    assert calls == 5 and read_rows(table) == [{"fd": "1"}, {"fd": "2"}]
    draw = lambda seed: samples_picture("tiny-shapes-l0", picture, n=1, steps=1, seed=seed, device="cpu")  # noqa: E731
    draw(0)
    before = picture.read_bytes()
    assert at_each_write(monkeypatch, lambda: draw(1), lambda: picture.read_bytes() == before or 1 / 0) == 5
    assert picture.read_bytes() != before and {p.name for p in tmp_path.iterdir() if p.suffix != ".lock"} == {"table.csv", "a.png"}


@linux
@pytest.mark.parametrize(("scenario", "faults"), [(crash.full_disk, 2), (crash.read_only, 3)], ids=["full", "read-only"])
def test_a_disk_of_its_own(scenario, faults, tmp_path):
    try:
        assert scenario(tmp_path, faults, random.Random(0)) == [""] * faults
    except PermissionError as error:
        pytest.skip(str(error))


def test_a_folder_that_cannot_be_made_is_a_sentence(images, tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    for work in (lambda: write_whole(tmp_path / "file" / "a.csv", b""), lambda: list(train(replace(BASE, out=tmp_path / "file"), images))):
        with pytest.raises(WriteError, match=r"file.* cannot be written \((Not a directory|File exists)\)\. What was there before"):
            work()
    assert (tmp_path / "file").read_text(encoding="utf-8") == "in the way"


# --------------------------------------------------------------------------------------------------- two at once

@linux
def test_a_second_training_in_the_folder_is_refused_and_a_killed_one_locks_nothing(tmp_path):
    assert crash.doubled(tmp_path, 1, random.Random(0)) == [""]


def test_a_training_holds_its_folder_until_it_is_closed(images, tmp_path):
    config = replace(BASE, out=tmp_path)
    first = train(config, images)
    next(first)
    before = (tmp_path / "state.safetensors").read_bytes()
    for resume in (False, True):
        with pytest.raises(TakenError, match="another process is writing .*wait until it has finished, or name another place"):
            next(train(config, images, resume))
    assert (tmp_path / "state.safetensors").read_bytes() == before
    first.close()
    *_, last = train(config, images, resume=True)
    assert last.step == 4


def test_reproduce_and_refresh_are_refused_where_another_one_is_at_work(tmp_path):
    notebook = tmp_path / "00_story.ipynb"
    crash.write_notebook(notebook, "1")
    work = {notebook: lambda: refresh(notebook),
            tmp_path / "out" / "index.html": lambda: reproduce(tmp_path / "out", (), [], tmp_path)}
    for taken, second in work.items():
        with sole_writer(taken), pytest.raises(TakenError, match=f"another process is writing {taken}"):
            second()
    assert nbformat.read(notebook, as_version=4).cells[1].outputs == []


# --------------------------------------------------------------------------------------- numbers that are not finite

def test_a_picture_that_is_not_finite_stops_the_training(images, tmp_path):
    """The third batch holds a NaN: the steps before it are kept, finite, and with sound pictures it goes on from there."""
    class Spoilt(data.Images):
        def augment(self, pixels, generator=None):
            return super().augment(pixels, generator) + torch.where((pixels == 255).flatten(1).all(1), math.nan, 0.0)[:, None, None, None]

    pixels = images.pixels.clone()
    pixels[torch.randperm(28, generator=torch.Generator().manual_seed(seed_of(0, 1, 0)))[16:24]] = 255
    spoilt = Spoilt(images.name, pixels, images.labels, images.classes, images.factors)
    with pytest.raises(TrainingError, match=r"loss became nan between steps 2 and 3; training stops\. The checkpoint in .* is kept"):
        list(train(replace(BASE, out=tmp_path), spoilt))
    tensors, step = numbers(tmp_path)
    assert step == 2 and all(value.isfinite().all() for value in tensors.values())
    assert load_model(tmp_path / "model.safetensors")[1]["steps"] == 2


@pytest.mark.parametrize("learning_rate", [1e39, 1e25, 1e18])
def test_an_exploding_learning_rate_leaves_the_last_finite_checkpoint(images, tmp_path, learning_rate):
    config = replace(BASE, steps=300, warmup=0, learning_rate=learning_rate, out=tmp_path)
    with pytest.raises(TrainingError, match=r"(after step|between steps) \d+.*training stops.*smaller learning_rate than 1e\+\d\d usually"):
        list(train(config, images))
    if learning_rate > 1e38:  # more than a float32 holds: the first step spoils all, and nothing is written
        assert not list(tmp_path.glob("*.safetensors"))
        return
    tensors, step = numbers(tmp_path)
    assert step >= 1 and all(value.isfinite().all() for value in tensors.values())
    with pytest.raises(TrainingError, match="is kept"):  # it is read, and does what it did
        list(train(config, images, resume=True))
    assert same(numbers(tmp_path), (tensors, step))
