"""Commands hand their options to the function that does the work, and say what came of it."""
import inspect

import pytest

from s2dm_mini import __main__ as commands
from s2dm_mini import shapes
from s2dm_mini.checkpoints import read_tensors
from s2dm_mini.data import Images, cifar10
from s2dm_mini.measure.classifier import ClassifierConfig
from s2dm_mini.study import classes, evaluate, interpolations, signals, tune, zoo
from s2dm_mini.study.tables import RESULTS, read_rows


class Handed(Exception):
    """Raised in place of the work."""


@pytest.mark.parametrize(("command", "module", "name"), [
    (commands.evaluate_command, evaluate, "evaluate"),
    (commands.evaluate_classes_command, classes, "evaluate_classes"),
    (commands.interpolate_command, interpolations, "compare_interpolations"),
    (commands.tune_command, tune, "tune"),
    (commands.compare_signals_command, signals, "compare_signals"),
    (commands.zoo_command, zoo, "build_zoo"),
])
def test_every_option_arrives_under_its_own_name(command, module, name, monkeypatch):
    signature = inspect.signature(getattr(module, name))

    def work(*args, **kwargs):
        raise Handed(signature.bind(*args, **kwargs).arguments)

    monkeypatch.setattr(module, name, work)
    options = {option: object() for option in inspect.signature(command).parameters}
    with pytest.raises(Handed) as handed:
        command(**options)
    renamed = {"names": "checkpoints"}
    assert {renamed.get(key, key): value for key, value in handed.value.args[0].items()} == options


def numbers(row):
    """A row as the function that measured it returned it."""
    def number(value):
        try:
            return float(value)
        except ValueError:
            return value

    return {key: number(value) for key, value in row.items()}


def test_interpolate_says_what_is_within_its_error(monkeypatch, capsys):
    rows = [numbers(row) for row in read_rows(RESULTS / "interpolation.csv")]
    monkeypatch.setattr(interpolations, "compare_interpolations", lambda *args: rows)
    commands.interpolate_command(("any",))
    lines = capsys.readouterr().out.splitlines()
    measured = [line for line in lines if " difference " in line]
    assert len(measured) == len(rows) and len(lines) == len(rows) + sum(row["measure"] == "mean step" for row in rows)
    for line, row in zip(measured, rows, strict=True):
        assert line.startswith(row["measure"]) and f"{row['difference']:+.4g}" in line
        assert line.endswith("within its error") == (abs(row["difference"]) <= 2 * row["difference_error"])
    assert {line.endswith("within its error") for line in measured} == {True, False}


def test_tune_says_how_to_use_what_it_found(monkeypatch, capsys):
    rows = [numbers(row) for row in read_rows(RESULTS / "tune.csv")]
    place = ("checkpoint", "sampler", "steps", "spacing", "samples")
    rows = [row for row in rows if all(row[key] == rows[0][key] for key in place)]
    monkeypatch.setattr(tune, "tune", lambda *args: rows)
    commands.tune_command("any")
    lines = capsys.readouterr().out.splitlines()
    [found] = [s for s in tune.summary(rows) if s.scale == "line"]
    assert lines[-1].startswith(f"To sample with it: Shrunk(network, line({found.lambda_first}, {found.lambda_last}))")
    assert len(lines) == 2 + len(tune.summary(rows)) and any(f"{100 * found.fd_change:+.1f} ±" in line for line in lines)


def test_train_classifier_writes_network_and_reference(tmp_path, monkeypatch, capsys):
    drawn = shapes(300)
    ten = Images("ten", drawn.pixels, (drawn.factors["hue"] * 10).long().clamp(max=9), tuple("0123456789"))
    monkeypatch.setattr(cifar10, "cifar10", lambda split: ten)
    commands.train_classifier_command(ClassifierConfig(epochs=1, batch=50, device="cpu"), tmp_path)
    assert {path.name for path in tmp_path.glob("*.safetensors")} == {"cifar10-classifier.safetensors",
                                                                     "ten.cifar10-classifier.safetensors"}, "and no state is left"
    assert "accuracy on the test split" in capsys.readouterr().out


def test_eigenvalues_are_those_of_the_images(tmp_path, monkeypatch, capsys):
    images = shapes(400, size=8)
    monkeypatch.setattr(cifar10, "cifar10", lambda split: images)
    commands.eigenvalues_command(tmp_path / "v.safetensors")
    assert capsys.readouterr().out.startswith("192 eigenvalues")
    values = read_tensors(tmp_path / "v.safetensors")[0]["eigenvalues"]
    assert (values.diff() <= 0).all() and values.sum().item() == pytest.approx(
        (images.pixels.double() / 127.5).flatten(1).var(dim=0).sum().item(), rel=1e-5)
