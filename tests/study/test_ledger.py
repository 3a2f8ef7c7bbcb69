"""The ledger's stages and its pipeline, at the size that takes seconds."""
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from s2dm_mini import NoiseSchedule, checkpoints, sample, shrinkage
from s2dm_mini.data import to_pixels
from s2dm_mini.denoisers import Shrunk
from s2dm_mini.measure.draw import starting_noise
from s2dm_mini.study import ledger
from s2dm_mini.study.changes import changes
from s2dm_mini.study.ledger import KEY, measure_group, missing, sample_group, train_network
from s2dm_mini.study.plan import LEDGER_SIZES, SETTINGS, Group
from s2dm_mini.study.tables import read_rows
from s2dm_mini.study.verdicts import verdicts
from s2dm_mini.theory.gaussian import cifar10_eigenvalues, gaussian_distance
from s2dm_mini.theory.scales import scale_of

ROOT = Path(__file__).resolve().parents[2]
SCHEDULE = NoiseSchedule.linear()


@pytest.mark.parametrize("size", LEDGER_SIZES)
def test_no_group_or_cell_is_planned_twice(size):
    groups = LEDGER_SIZES[size].groups()
    cells = [(replace(group, steps=()), n) for group in groups for n in group.steps]
    assert len(set(cells)) == len(cells) and len({group.name for group in groups}) == len(groups)
    first = LEDGER_SIZES[size].groups(1)
    assert {group.setting for group in groups} <= set(SETTINGS) and first == groups[:len(first)]


def test_every_network_of_a_seed_has_its_baseline():
    for experiment in LEDGER_SIZES.values():
        cells = {(g.setting, g.scale, g.seed, g.sampler, g.spacing, g.sampling_seed, n) for g in experiment.groups() for n in g.steps}
        for _, _, *place in cells:
            assert ("l0", "none", *place) in cells, "a change is taken against L_0 in the same place"


def test_scales():
    assert scale_of("none", SCHEDULE) is None and scale_of("b1.25", SCHEDULE) == 0.8
    assert torch.equal(scale_of("s2dm10", SCHEDULE), shrinkage(SCHEDULE, 9, 0.99))
    for name, setting in SETTINGS.items():
        if name.startswith("s2dm") and setting.reading != "output":
            assert torch.equal(scale_of(name, SCHEDULE), setting.shrinkage(SCHEDULE)), name
    for wrong in ("s2dm1", "s2dm", "s2dm2000", "s2dm50-output", "s2dm50-tau1", "s2dm50-tau0.0", "s2dm50-tau0.9-shared", "b", "b0", "x", ""):
        with pytest.raises(ValueError, match=f"scale must be none, .* not '{wrong}'"):
            scale_of(wrong, SCHEDULE)


@pytest.mark.parametrize(("wrong", "said"), [({"setting": "l1"}, "setting must be one of l0, s2dm2.*not 'l1'"),
                                             ({"sampler": "ddmi"}, "sampler must be one of ddpm.*not 'ddmi'"),
                                             ({"scale": "b-"}, "scale must be")])
def test_groups_that_are_none(wrong, said):
    with pytest.raises(ValueError, match=said):
        Group(**wrong)


def test_an_unknown_size():
    with pytest.raises(ValueError, match="size must be one of dry, quick, cpu, scratch, full, hub, not 'huge'"):
        missing("huge")


@pytest.fixture(scope="module", autouse=True)
def own_data_folder(tmp_path_factory):
    """The reference of the shapes is worked out once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("S2DM_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The dry size, stage by stage: (folder, table, rows)."""
    out = tmp_path_factory.mktemp("ledger")
    table = out / "ledger.csv"
    for group in missing("dry", table):
        if not group.network_path("dry", out).exists():
            assert train_network("dry", group, out, "cpu")
        assert len(sample_group("dry", group, out, "cpu", table)) == len(group.steps)
        assert len(list(measure_group("dry", group, out, table))) == len(group.steps)
    return out, table, read_rows(table)


@pytest.mark.slow
def test_rows_say_what_was_measured(run):
    _, table, rows = run
    assert [(row["setting"], row["scale"], row["steps"]) for row in rows] == [
        ("l0", "none", "2"), ("l0", "none", "3"), ("s2dm10", "none", "2"), ("s2dm10", "none", "3"), ("l0", "s2dm10", "2")]
    assert missing("dry", table) == []
    for row in rows:
        assert row["tau"] == ("1.0" if row["setting"] == "l0" else "0.99") and row["nfe"] == row["steps"] and row["samples"] == "16"
        assert float(row["fd"]) > 0 and row["fd_infinite"] == "nan" and float(row["pixel_variance"]) > 0
        assert row["images_seen"] == "400064", "those of the start and its own"
        assert row["command"].startswith(f"python -m s2dm_mini ledger measure --size dry --setting {row['setting']} --seed 0")
        left_out = [float(distance) for distance in row["fd_left_out"].split()]
        assert len(set(left_out)) == 16 and all(0.5 < distance / float(row["fd"]) < 2 for distance in left_out)
    assert len({row["network_sha256"] for row in rows}) == 2


@pytest.mark.slow
def test_a_row_for_each_kind_of_features_and_only_those_that_lack(run, tmp_path, monkeypatch):
    out, _, rows = run
    monkeypatch.setitem(LEDGER_SIZES, "dry", replace(LEDGER_SIZES["dry"], features=("own", "pixels", "spectrum")))
    group, table = Group("l0", 0, steps=(2,)), tmp_path / "t.csv"
    table.write_text("".join(run[1].read_text(encoding="utf-8").splitlines(keepends=True)[:2]),
                     encoding="utf-8")  # L_0 in 2 steps, in the own features
    assert [g.steps for g in missing("dry", table)][0] == (2, 3)
    found = [row["features"] for row in measure_group("dry", group, out, table)]
    assert found == ["cifar10-classifier", "pixels", "spectrum"] and [row["features"] for row in read_rows(table)] == found, "no row twice"
    assert [g.steps for g in missing("dry", table)][0] == (3,)


@pytest.mark.slow
def test_samples_start_from_the_same_noise_and_the_scale_is_applied(run):
    out, _, _ = run
    x_T = starting_noise(16, (3, 16, 16), 0)
    for setting, scale in (("s2dm10", "none"), ("l0", "s2dm10")):
        group = Group(setting, 0, scale)
        network, _ = checkpoints.load_model(group.network_path("dry", out))
        denoiser = network if scale == "none" else Shrunk(network, shrinkage(SCHEDULE, 9, 0.99))
        expected = to_pixels(sample(denoiser, x_T, SCHEDULE, "ddim", 2, "quadratic"))
        pixels = checkpoints.read_tensors(group.samples_path("dry", 2, out))[0]["pixels"]
        assert torch.equal(pixels, expected)


@pytest.mark.slow
def test_only_what_is_missing_is_done_and_no_row_comes_twice(run, tmp_path, monkeypatch):
    out, table, rows = run
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    short = tmp_path / "short.csv"
    short.write_text("".join(line for i, line in enumerate(lines) if i != 2), encoding="utf-8")  # L_0 in 3 steps
    lacking = missing("dry", short)
    assert [(group.setting, group.scale, group.steps) for group in lacking] == [("l0", "none", (3,))]
    monkeypatch.setattr(ledger.Bench, "draw", lambda *a, **k: pytest.fail("the samples are there"))
    assert len(sample_group("dry", lacking[0], out, "cpu", short)) == 1
    assert [row["steps"] for row in measure_group("dry", lacking[0], out, short)] == [3]
    assert list(measure_group("dry", lacking[0], out, short)) == []
    again = read_rows(short)
    assert sorted(row["fd"] for row in again) == sorted(row["fd"] for row in rows)


@pytest.mark.slow
def test_the_pixel_variance_of_known_pictures(run, tmp_path):
    out, table, _ = run
    group = Group("l0", 0, steps=(2,))
    tensors, header = checkpoints.read_tensors(group.samples_path("dry", 2, out))
    half = torch.zeros(16, 3, 16, 16, dtype=torch.uint8)
    half[::2] = 255  # 8 white pictures, 8 black ones: variance 16/15 of a pixel in −1..1
    checkpoints.write_tensors(group.samples_path("dry", 2, tmp_path), {"pixels": half}, header)
    [row] = measure_group("dry", group, tmp_path, tmp_path / "t.csv")
    assert row["pixel_variance"] == pytest.approx(768 * 16 / 15, abs=1e-3) and math.isfinite(row["kid"])


@pytest.mark.slow
def test_a_pipeline_of_diffusers_is_judged_without_training(tmp_path, monkeypatch):
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel(sample_size=32, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
                          down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)
    DDPMPipeline(network, DDPMScheduler()).save_pretrained(tmp_path / "pipeline")
    plan = LEDGER_SIZES["hub"]
    monkeypatch.setitem(LEDGER_SIZES, "hub", replace(plan, samples=20, features=("pixels", "spectrum"), parts=(
        replace(plan.parts[0], steps=(2, 3), scales=("none", "s2dm50")),)))
    table, options = tmp_path / "t.csv", {"size": "hub", "out": tmp_path, "device": "cpu", "table": tmp_path / "t.csv"}
    groups = missing("hub", table)
    said = ledger.run_stage("train", groups[0], pipeline=str(tmp_path / "pipeline"), **options)
    assert re.match(r"400 evaluations of [\d,]+ parameters, [\d.]+ ms each on .*: about 0.0 hours", said), "2 scales and sets, 5 steps, 20"
    for group in groups:
        ledger.run_stage("sample", group, **options)
        ledger.run_stage("measure", group, **options)
    assert missing("hub", table) == []
    found = changes(read_rows(table))
    assert {(c.features, c.steps) for c in found} == {(name, n) for name in ("pixels", "spectrum") for n in (2, 3)}
    assert all(c.scale == "s2dm50" and len(c.left_out) == 2 and c.error_training == 0 and c.error > 0 for c in found)
    judged = {v.claim: v for v in verdicts(read_rows(table))}
    assert set(judged["CIFAR-10: so does the factor s_t of S²-DM^50 alone, without training"].by_features) == {"pixels", "spectrum"}
    assert judged["CIFAR-10: S²-DM^50 lowers the distance (claimed: by 3.27 to 14.06 %)"].verdict == "not tested here"
    with pytest.raises(ValueError, match="is the network of .*pipeline, not of google/ddpm-cifar10-32: give another folder"):
        ledger.run_stage("train", groups[0], **options)


def snakemake(*arguments, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), *arguments], env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, **options)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="kills a group of processes")
def test_the_pipeline_killed_in_the_middle_finishes_and_has_no_row_twice(tmp_path):
    table = tmp_path / "results" / "ledger-dry.csv"
    command = ("--cores", "1", "--rerun-incomplete", "--nolock", "--config", "size=dry", "out=runs", f"table={table}")
    first = snakemake(*command, cwd=tmp_path)
    for _ in range(3_000):  # until a first row is there
        if table.exists() or first.poll() is not None:
            break
        time.sleep(0.1)
    assert first.poll() is None, first.communicate()[0]
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = read_rows(table)
    assert 1 <= len(before) < 5

    second = snakemake(*command, cwd=tmp_path)
    said = second.communicate()[0]
    rows = read_rows(table)
    assert second.returncode == 0, said
    assert len(rows) == 5 == len({tuple(row[name] for name in KEY) for row in rows}) and rows[:len(before)] == before

    third = snakemake("-n", *command, cwd=tmp_path)
    assert "Nothing to be done" in third.communicate()[0] and third.returncode == 0


def test_the_committed_tables_hold_nothing_twice_and_nothing_unplanned():
    for size, experiment in LEDGER_SIZES.items():
        rows = ledger.rows_of(size)
        assert len({tuple(row[name] for name in KEY) for row in rows}) == len(rows)
        planned = {(g.setting, str(g.seed), g.scale, g.sampler, g.spacing, str(g.sampling_seed), str(n)) for g in experiment.groups()
                   for n in g.steps}
        for row in rows:
            columns = ("setting", "training_seed", "scale", "sampler", "spacing", "sampling_seed", "steps")
            assert tuple(row[name] for name in columns) in planned
            assert re.fullmatch(r"[0-9a-f]{12}\+?", row["commit"])


def test_predictions_are_those_of_the_theory(tmp_path):
    found = {(row["setting"], row["scale"], row["steps"]): row for row in ledger.predict("dry", tmp_path / "p.csv")}
    assert set(found) == {("l0", "none", 2), ("l0", "none", 3), ("s2dm10", "none", 2), ("s2dm10", "none", 3), ("l0", "s2dm10", 2)}
    v = cifar10_eigenvalues()
    l0, ours = (gaussian_distance(v, SCHEDULE, "ddim", 2, "quadratic", scale) for scale in (1.0, shrinkage(SCHEDULE, 9, 0.99)))
    trained, closed = found["s2dm10", "none", 2], found["l0", "s2dm10", 2]
    assert float(trained["change"]) == pytest.approx(ours / l0 - 1, abs=1e-5) and trained["change"] == closed["change"]
    assert found["l0", "none", 3]["change"] == "0.00000" and len(read_rows(tmp_path / "p.csv")) == 5
    both = ledger.theoretical_scale(Group("s2dm50-shared", scale="b1.25"), SCHEDULE)
    assert torch.allclose(both, 0.8 * shrinkage(SCHEDULE, 49, 0.99, "shared"))
    assert ledger.theoretical_scale(Group("s2dm50-output"), SCHEDULE) is None


def test_the_committed_predictions_are_of_this_code(tmp_path, monkeypatch):
    monkeypatch.setitem(LEDGER_SIZES, "cpu", replace(LEDGER_SIZES["cpu"], parts=LEDGER_SIZES["cpu"].parts[:3], seeds=(0,)))
    written = {tuple(row[name] for name in ("setting", "scale", "sampler", "spacing", "steps")): row
               for row in read_rows(ledger.tables.RESULTS / "predictions-cpu.csv")}
    ledger.predict("cpu", tmp_path / "p.csv")
    for row in read_rows(tmp_path / "p.csv"):
        place = tuple(row[name] for name in ("setting", "scale", "sampler", "spacing", "steps"))
        assert float(written[place]["change"]) == pytest.approx(float(row["change"]), abs=2e-5)
