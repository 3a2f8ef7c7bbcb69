"""The command line: options come from the functions that do the work, and every result is told in words."""
import inspect
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from s2dm_mini import __main__ as commands
from s2dm_mini.study import classes, evaluate, interpolations, ledger, tune
from s2dm_mini.study.plan import Group
from s2dm_mini.study.tables import RESULTS, read_rows
from s2dm_mini.training.config import PAPER


class Handed(Exception):
    """Raised in place of the work."""


def run(monkeypatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["s2dm_mini", *words])
    commands.main()


@pytest.mark.parametrize(("words", "wanted"), [
    ("train --steps 3 --skip 49 --evaluate 10 20 --no-resume",
     {"config.steps": 3, "config.skip": 49, "evaluate": (10, 20), "resume": False}),
    ("train-paper --resume --data celeba",
     {"config.data": "celeba", "config.preset": PAPER.preset, "config.steps": PAPER.steps, "resume": True}),
    ("sample a-net --n 5 --spacing logsnr", {"checkpoint": "a-net", "n": 5, "spacing": "logsnr", "steps": 50}),
    ("evaluate a-net --samples 7", {"checkpoint": "a-net", "samples": 7, "spacing": "quadratic"}),
    ("evaluate-classes a-net --weight 3", {"checkpoint": "a-net", "weight": 3.0, "scale": "none"}),
    ("interpolate a b --against c --real", {"checkpoints": ["a", "b"], "against": "c", "real": True, "pairs": 200}),
    ("tune a-net --against s2dm50 b1.017 --held-out 3", {"checkpoint": "a-net", "against": ("s2dm50", "b1.017"), "held_out": 3}),
    ("ledger sample --setting s2dm10 --seed 2 --steps 5 10 --size cpu",
     {"stage": "sample", "group": Group("s2dm10", 2, steps=(5, 10)), "size": "cpu"}),
    ("reproduce --only 01 02 --set seed=1", {"only": ("01", "02"), "set": ("seed=1",)}),
    ("notebooks here", {"folder": Path("here")}), ("lab", {"folder": Path("s2dm-mini-course")}), ("explore x", {"folder": Path("x")}),
    ("fetch celeba", {"dataset": "celeba", "folder": None}),
])
def test_options_reach_the_function(words, wanted, monkeypatch):
    name = words.split()[0]
    function = commands.COMMANDS[name]
    signature = inspect.signature(function)

    def work(*args, **kwargs):
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        raise Handed(given.arguments)

    work.__signature__, work.__doc__, work.__annotations__ = signature, function.__doc__, function.__annotations__
    monkeypatch.setitem(commands.COMMANDS, name, work)
    with pytest.raises(Handed) as handed:
        run(monkeypatch, *words.split())
    found = handed.value.args[0]
    for path, value in wanted.items():
        first, *rest = path.split(".")
        assert (getattr(found[first], rest[0]) if rest else found[first]) == value, path


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_option_is_explained(name, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, name, "--help")
    said, documented = capsys.readouterr().out, commands.COMMANDS[name].__doc__.split("Args:")[1]
    for option, parameter in inspect.signature(commands.COMMANDS[name]).parameters.items():
        assert f"{option}: " in documented, f"{name} does not explain {option}"
        positional = parameter.default is parameter.empty or parameter.kind is parameter.POSITIONAL_ONLY
        if not positional and option not in ("config", "group", "notebooks"):  # groups of options, and the folder that only tests change
            assert f"--{option.replace('_', '-')} " in said or f"--{option.replace('_', '-')}," in said


@pytest.mark.parametrize(("wrong", "words"), [("--evaluate 0", "evaluate must be an integer in 1..1000"),
                                               ("--evaluate 5 --samples 3", "samples must be an integer of at least 4")])
def test_wrong_measurements_are_refused_before_a_training(wrong, words, monkeypatch, tmp_path):
    monkeypatch.setattr(commands, "train_with_bar", lambda *_: pytest.fail("trained"))
    with pytest.raises(SystemExit, match=words):
        run(monkeypatch, *f"train --data shapes --preset tiny --steps 1 --out {tmp_path / 'r'} {wrong}".split())


def test_a_training_without_a_folder_says_that_nothing_is_kept(monkeypatch, capsys):
    monkeypatch.setattr(commands, "train_with_bar", lambda *_: None)
    run(monkeypatch, "train", "--data", "shapes", "--preset", "tiny", "--steps", "1")
    assert "The network will not be kept" in capsys.readouterr().err


def test_the_overview_has_every_command_and_imports_nothing_heavy():
    code = ("import sys, runpy\nsys.argv = ['s2dm_mini', '--help']\nrunpy.run_module('s2dm_mini', run_name='__main__')\n"
            "print([name for name in ('matplotlib', 'torchmetrics', 'diffusers', 'papermill') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[-1] == "[]", "start-up imports this"
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(commands.COMMANDS)
    assert lines.index("use:") < lines.index("study:") and all(len(line) <= 140 for line in lines)


def test_an_unknown_command_is_a_sentence(monkeypatch):
    with pytest.raises(SystemExit, match="error: command must be one of notebooks, .*, not 'evalute'. Did you mean 'evaluate'?"):
        run(monkeypatch, "evalute")


def numbers(row):
    """A row as the function that measured it returned it."""
    def number(value):
        try:
            return float(value)
        except ValueError:
            return value

    return {key: number(value) for key, value in row.items()}


def test_interpolate_says_what_is_within_its_error():
    rows = [numbers(row) for row in read_rows(RESULTS / "interpolation.csv")]
    lines = interpolations.sentences(rows).splitlines()
    measured = [line for line in lines if " difference " in line]
    assert len(measured) == len(rows) and len(lines) == len(rows) + sum(row["measure"] == "mean step" for row in rows)
    for line, row in zip(measured, rows, strict=True):
        assert line.startswith(row["measure"]) and f"{row['difference']:+.4g}" in line
        assert row["pairs"] == 200  # Student's t with 199 degrees of freedom: 1.972
        assert line.endswith("within its error") == (abs(row["difference"]) <= 1.972 * row["difference_error"])
    assert {line.endswith("within its error") for line in measured} == {True, False}


def test_tune_says_how_to_use_the_line_it_found():
    rows = [numbers(row) for row in read_rows(RESULTS / "tune.csv")]
    place = ("checkpoint", "sampler", "steps", "spacing", "samples")
    rows = [row for row in rows if all(row[key] == rows[0][key] for key in place)]
    lines = tune.sentences(rows).splitlines()
    [found] = [s for s in tune.summary(rows) if s.scale == "line"]
    assert lines[-1].startswith(f"To sample with it: Shrunk(network, line({found.lambda_first}, {found.lambda_last}))")
    assert len(lines) == 2 + len(tune.summary(rows)) and any(f"{100 * found.fd_change:+.1f} ±" in line for line in lines)


@pytest.mark.parametrize(("module", "table", "said"), [
    (evaluate, "evaluations", "network evaluations an image"), (classes, "conditional", "right ")])
def test_rows_are_told_in_words(module, table, said):
    rows = [numbers(row) | {"nfe": 10, "steps": 10, "samples": 100} for row in read_rows(RESULTS / f"{table}.csv")]
    assert said in module.sentences(rows)


def test_stages_of_the_ledger_are_told_in_words(monkeypatch, tmp_path):
    row = {"setting": "l0", "training_seed": 1, "sampler": "ddim", "steps": 5, "fd": 1.25, "features": "f"}
    monkeypatch.setattr(ledger, "measure_group", lambda *_: iter([row]))
    monkeypatch.setattr(ledger, "sample_group", lambda *_: [tmp_path])
    monkeypatch.setattr(ledger, "train_network", lambda *_: tmp_path)
    assert ledger.run_stage("train", Group()) is None
    assert ledger.run_stage("sample", Group(), out=tmp_path) == f"1 sets of samples in {tmp_path}"
    assert ledger.run_stage("measure", Group()) == "l0, seed 1, ddim, 5 steps: Fréchet distance 1.250 in f features"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["evaluate", "nano-cifar10-lo"],
                                       ["sample", "tiny-shapes-l0", "--n", "1", "--steps", "1", "--out", "x.png"]], ids=" ".join)
@pytest.mark.parametrize("encoding", ["cp1252", "closed"])
def test_any_terminal_will_do(arguments, encoding, tmp_path):
    """One that lacks most characters, and none at all: no traceback, and the same exit status as on a good one."""
    command = [sys.executable, "-m", "s2dm_mini", *arguments]

    def run(encoding):
        if encoding == "closed":
            line = " ".join(map(shlex.quote, command))
            return subprocess.run(f"{line} >&- 2>&-", shell=True, cwd=tmp_path).returncode, ""
        done = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, cwd=tmp_path)
        return done.returncode, (done.stdout + done.stderr).decode(encoding)

    status, said = run(encoding)
    assert "Traceback" not in said and status == (1 if arguments[0] == "evaluate" and "--help" not in arguments else 0)
    assert encoding == "closed" or len(said) > 20
    assert (tmp_path / "x.png").exists() == (arguments[0] == "sample")


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]], ids=" ".join)
def test_a_reader_may_stop_early(arguments):
    """As `head` does: no traceback."""
    process = subprocess.Popen([sys.executable, "-m", "s2dm_mini", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 0
