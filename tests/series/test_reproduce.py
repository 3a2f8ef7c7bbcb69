"""The reproduction command on notebooks that the tests write: order, parameters, checks, pictures, failures."""
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from s2dm_mini.checkpoints import load_model
from s2dm_mini.series.reproduce import ReproductionError, parameter_names, reproduce

PICTURE = "import io, IPython.display, PIL.Image\nbuffer = io.BytesIO()\nPIL.Image.new('RGB', (1, 1)).save(buffer, 'PNG')\n" \
          "IPython.display.Image(buffer.getvalue())"


def write_notebook(path, *cells, parameters="profile = 'quick'\nseed = 0"):
    nb = nbformat.v4.new_notebook()
    nb.cells = [nbformat.v4.new_markdown_cell(f"# Story of {path.stem}\n\nA *promise*.\n\nMore."),
                nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}), *map(nbformat.v4.new_code_cell, cells)]
    nbformat.write(nb, path)


@pytest.fixture
def series(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write_notebook(folder / "00_first.ipynb", "print('check: seed is', seed)\nprint('not a check')", PICTURE)
    write_notebook(folder / "01_second.ipynb", "print('check: tau is', tau)", parameters="profile = 'quick'\ntau: float = 0.99  # how far")
    write_notebook(folder / "scratch.ipynb", "1 / 0")
    return folder


def test_series_runs_in_order_with_parameters_and_one_page(series, tmp_path, capsys):
    index = reproduce(tmp_path / "out", (), ["seed=7", "tau=0.5", "profile=quick"], series)
    page = index.read_text(encoding="utf-8")
    assert "seed is 7" in page and "tau is 0.5" in page and "not a check" not in page
    assert page.count("data:image/png;base64,") == 1
    assert page.index("Story of 00_first") < page.index("Story of 01_second") and "A promise." in page
    listed = sorted(p.name for p in (tmp_path / "out").iterdir() if p.suffix != ".lock")
    assert listed == ["00_first.ipynb", "01_second.ipynb", "index.html"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[1/2] 00_first: done") and lines[1].startswith("[2/2] 01_second: done")


def test_a_failing_notebook_is_named_with_cell_and_reason_and_the_rest_kept(series, tmp_path):
    write_notebook(series / "01_second.ipynb", "print('check: so far')", "raise ValueError('tau is bent')", "print('check: never')")
    with pytest.raises(ReproductionError, match=r"01_second stopped in cell 4 \(In \[3\]\): ValueError: tau is bent"):
        reproduce(tmp_path / "out", (), [], series)
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "so far" in page and "never" not in page and "tau is bent" in page and "seed is 0" in page
    assert "so far" in (tmp_path / "out" / "01_second.ipynb").read_text(encoding="utf-8")


def test_a_dying_kernel_is_a_sentence(series, tmp_path):
    write_notebook(series / "01_second.ipynb", "import os\nos._exit(3)")
    with pytest.raises(ReproductionError, match="01_second stopped, its kernel did not answer"):
        reproduce(tmp_path / "out", ("01",), [], series)


def test_a_mistyped_parameter_lists_the_right_names(series, tmp_path):
    sentence = r"no notebook has a parameter called 'sed'\. Did you mean 'seed'\? Known: profile, seed, tau\."
    with pytest.raises(ReproductionError, match=sentence):
        reproduce(tmp_path / "out", (), ["sed=1"], series)
    with pytest.raises(ReproductionError, match="name=value, not 'seed'"):
        reproduce(tmp_path / "out", (), ["seed"], series)
    assert not (tmp_path / "out").exists()


def test_only_chooses_and_an_unknown_name_lists_what_there_is(series, tmp_path):
    reproduce(tmp_path / "out", ("01",), [], series)
    assert not (tmp_path / "out" / "00_first.ipynb").exists()
    with pytest.raises(ReproductionError, match=r"starts with 07\. There: 00_first, 01_second\."):
        reproduce(tmp_path / "out", ("07",), [], series)


def test_parameter_names_come_from_the_tagged_cell(series):
    assert parameter_names(series / "01_second.ipynb") == ["profile", "tau"]


def run(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "s2dm_mini", *map(str, arguments)], capture_output=True, text=True, **options)


@pytest.mark.parametrize("arguments, sentence", [
    (["sample", "no-such-net"], "no checkpoint is called 'no-such-net'"),
    (["reproduce", "--set", "tua=1"], "no notebook has a parameter called 'tua'"),
    (["fetch", "imagenet"], "dataset must be one of cifar10, celeba, not 'imagenet'"),
    (["train", "--steps", "3", "--data", "cifar10"], "CIFAR-10 is not at"),
    (["train", "--steps", "3", "--data", "shapes", "--resume"], "to resume, set out"),
])
def test_command_errors_are_one_sentence(arguments, sentence, tmp_path):
    done = run(*arguments, env={"PATH": "/usr/bin:/bin", "S2DM_DATA": str(tmp_path), "HOME": str(tmp_path)})
    assert done.returncode == 1
    assert sentence in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="SIGINT reaches a child process by another way on Windows")
def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(tmp_path):
    command = [sys.executable, "-m", "s2dm_mini", "train", "--data", "shapes", "--preset", "tiny", "--batch", "8", "--device", "cpu",
               "--minutes", "30", "--log-every", "1", "--save-minutes", "0", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "model.safetensors").exists() and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped after step" in err and "--resume goes on" in err and "Traceback" not in err, err
    assert load_model(tmp_path / "run" / "model.safetensors")[1]["steps"] >= 1


def test_train_resume_and_sample_from_the_command_line(tmp_path):
    out = tmp_path / "run"
    common = ["train", "--data", "shapes", "--preset", "tiny", "--batch", "16", "--device", "cpu", "--out", out]
    first = run(*common, "--steps", 10)
    assert first.returncode == 0 and "Trained 10 steps, 160 images" in first.stdout, first.stderr
    more = run(*common, "--steps", 20, "--resume")
    assert more.returncode == 0 and "Trained 20 steps, 320 images" in more.stdout, more.stderr
    again = run(*common, "--steps", 20, "--resume")
    assert again.returncode == 0 and "Nothing left to train" in again.stdout, again.stderr
    drawn = run("sample", out / "model.safetensors", "--n", 5, "--steps", 2, "--columns", 3, "--enlarge", 2, "--out", tmp_path / "x.png")
    assert drawn.returncode == 0, drawn.stderr
    from PIL import Image

    assert Image.open(tmp_path / "x.png").size == (3 * 16 * 2, 2 * 16 * 2)
