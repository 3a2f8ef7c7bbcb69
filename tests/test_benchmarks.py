"""The scripts in benchmarks/ run and add up; what they measure is not tested here."""
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from s2dm_mini import TrainConfig, checkpoints, shapes, train
from s2dm_mini.data import to_unit_range
from s2dm_mini.losses import READINGS
from s2dm_mini.study.tables import read_rows
from s2dm_mini.unet import PRESETS, UNet, UNetConfig

SMALL = UNetConfig(image_size=8, channels=(8, 16), blocks_per_level=1, attention_levels=(1,), norm_groups=4, dropout=0.0)


@pytest.fixture
def speed(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "benchmarks")
    import speed
    return speed


@pytest.fixture
def levers(speed):
    import levers
    return levers


@pytest.fixture
def references(speed):
    import references
    return references


def run(monkeypatch, module, *arguments):
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    module.main()


@pytest.mark.slow
def test_speed_prints_one_table_and_a_profile_where_a_target_is_missed(speed, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(speed, "TARGETS", {"cpu": math.inf})
    run(monkeypatch, speed, "--device", "cpu", "--presets", "tiny", "--dry-run", "--out", tmp_path / "speed.json")
    said = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines() if line.startswith("| tiny")]
    assert [row[1] for row in rows] == ["s2dm_mini", "diffusers", "ratio"] and {len(row) for row in rows} == {8}
    assert said.count("ms a turn") == 2 and "convolution" in said
    assert ("training in bf16 is" in said) == speed.multiplies_bf16(torch.device("cpu"))
    written = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    ours, theirs, ratio = written["rows"]
    for side in (ours, theirs):
        assert all(side[name] > 0 for name in ("train", "sample", "train_matmul", "sample_matmul"))
    assert 0.2 < ratio["train"] < 20 and written["torch"] == torch.__version__


def test_operations_of_both_sides(speed):
    """A step costs three forward passes but for the first layer's input; repeating pixels before a convolution costs more."""
    network = speed.fresh_network("tiny")
    theirs = speed.to_diffusers(network)
    (train, drawn), (their_train, their_drawn) = (speed.operations(call, "tiny") for call in (network, lambda x, t: theirs(x, t).sample))
    # Two upsamplings of 32 channels, to 8 and to 16 pixels: 9 products of each weight and output pixel, or 4.
    saved = sum(2 * (9 - 4) * 32 * 32 * side**2 for side in (8, 16))
    assert their_drawn - drawn == speed.STEPS * saved
    assert 2.8 < train / (drawn / speed.STEPS) < 3.3 and their_train > train


def test_the_roofline_counts_what_speed_counts(speed, monkeypatch, capsys):
    import roofline

    operations, weights, moved = roofline.count("tiny", 4)
    assert operations == speed.operations(speed.fresh_network("tiny"), "tiny")[0] and all(moved.values())
    assert weights == sum(p.numel() for p in speed.fresh_network("tiny").parameters())
    run(monkeypatch, roofline, "--presets", "tiny", "--batch", "4")
    assert capsys.readouterr().out.count("| tiny |") == len(roofline.SHARES)


def test_training_cost_writes_a_row_a_loss(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(Path(__file__).parent / "benchmarks")
    import training_cost
    monkeypatch.setattr(training_cost, "RESULTS", tmp_path)
    monkeypatch.setitem(PRESETS, "tiny", SMALL)
    run(monkeypatch, training_cost, "--preset", "tiny", "--batch", 4, "--rounds", 3)
    base, *others = read_rows(tmp_path / "cost-cpu.csv")
    assert base["loss"] == "l0" and base["ratio"] == "1.0" and [row["loss"] for row in others] == list(READINGS)
    assert all(float(row["ratio"]) > 0 for row in others)


def test_levers_table_by_hand(levers):
    found = {"base": [1.0, 2.0, 6.0], "lr-x3": [0.5, 1.0, 4.5]}
    results = {name: [{"distances": {"own": d, "plain": 2.0}, "images_seen": 1500, "minutes": 2} for d in values]
               for name, values in found.items()}
    head, _, base, less = levers.table(results, {"base": {}, "lr-x3": {"learning_rate": 6e-4}}).splitlines()
    assert head == "| lever | change | own | own, % | plain, % | images seen | minutes |"
    assert base == "| base |  | 3 ± 1.53 |  |  | 1,500 | 2.0 |"  # variance 7, over 3 seeds
    assert less == "| lr-x3 | learning_rate = 0.0006 | 2 ± 1.26 | -41.67 ± 8.33 | 0 ± 0 | 1,500 | 2.0 |"  # −50, −50 and −25 %


def test_levers_from_nothing_turn_each_part_of_the_recipe_once(levers):
    base, changes = levers.SIZES["cpu"].base, levers.levers(levers.SIZES["cpu"])
    assert changes["fp32"] == {"precision": "fp32", "images": round(0.6 * base.images)}
    assert {"annealing-none", "beta2-0.999", "weighting-uniform", "lr-x3", "ema-0.98"} <= set(changes)
    assert all(replace(base, **change) != base for name, change in changes.items() if name != "base")


@pytest.mark.slow
def test_levers_run_only_what_is_missing(levers, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(PRESETS, "tiny", SMALL)
    monkeypatch.setenv("S2DM_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(levers, "load_data", lambda name, size: shapes(64, size=size))
    base = replace(levers.SIZES["quick"].base, batch=8, device="cpu", log_every=1)
    monkeypatch.setitem(levers.SIZES, "quick", levers.Size(base, decays=(0.5,), samples=32))
    arguments = ("--out", tmp_path, "--images", 16, "--seeds", 1, "--together", "weighting-p2", "batch-half")
    run(monkeypatch, levers, *arguments)
    said = capsys.readouterr().out
    assert "| weighting-p2 + batch-half | weighting = p2, batch = 4 |" in said
    assert said.count("| 48 |") == 1  # diffusers: three times the budget

    trained = []
    monkeypatch.setattr(levers, "our_network", lambda config, images: trained.append(config.out.parent.name) or pytest.fail("trained"))
    monkeypatch.setattr(levers, "their_network", levers.our_network)
    run(monkeypatch, levers, *arguments)
    assert capsys.readouterr().out == said
    next(tmp_path.glob("*/lr-x3/seed-0/result.json")).unlink()
    with pytest.raises(pytest.fail.Exception):
        run(monkeypatch, levers, *arguments)
    assert trained == ["lr-x3"]
    with pytest.raises(SystemExit):
        run(monkeypatch, levers, "--together", "lr-x4")


def test_networks_are_trained_and_judged_once(speed, monkeypatch, capsys, tmp_path):
    import networks

    small = UNetConfig(image_size=32, channels=(4, 8), blocks_per_level=1, attention_levels=(), norm_groups=1, dropout=0.0)
    monkeypatch.setattr(networks, "RIVALS", {"a": networks.Rival(small, 1.0), "b": networks.Rival(small, 2.0)})
    monkeypatch.setattr(networks, "MINUTES", 32 / 60)
    for name in ("a", "b"):
        monkeypatch.setitem(PRESETS, name, small)
    resumed, size = [], sum(p.numel() for p in UNet(small).parameters())

    def on_shapes(config, resume):
        resumed.append(resume)
        return train(replace(config, device="cpu"), shapes(64, 32), resume)

    monkeypatch.setattr(networks, "train", on_shapes)
    for _ in range(2):
        run(monkeypatch, networks, "--out", tmp_path, "--samples", 8)
        said = capsys.readouterr().out
        assert f"| a | {size:,} | 32 |" in said and f"| b | {size:,} | 64 |" in said and "8 images drawn, seeds [0, 1]" in said
    assert resumed == [False] * 4 + [True] * 4


def test_the_page_of_a_run_takes_its_networks_in_their_order(speed, monkeypatch, tmp_path):
    import run_page

    small = UNetConfig(image_size=8, channels=(4, 8), blocks_per_level=1, attention_levels=(), norm_groups=1, dropout=0.0)
    monkeypatch.setitem(PRESETS, "small", small)
    config = TrainConfig(data="shapes", preset="small", tau=1.0, batch=8, images=48, keep_images=(16, 32), device="cpu", log_every=1,
                         out=tmp_path / "runs" / "a")
    list(train(config, shapes(64, 8)))
    measured = []
    monkeypatch.setattr(run_page, "evaluate", lambda path, **options: measured.append((Path(path).name, options["table"])))
    run(monkeypatch, run_page, config.out, "--name", "a", "--steps", 2, "--results", tmp_path / "data" / "results")
    table = tmp_path / "data" / "results" / "run-a.csv"
    assert measured == [(name, table) for name in ("model-at-16.safetensors", "model-at-32.safetensors", "model.safetensors")]
    with Image.open(tmp_path / "data" / "pictures" / "run-a.png") as picture:
        assert picture.size == (16 * 8, 3 * 4 * 8 + 2 * run_page.GAP)


def test_the_peer_goes_on_to_the_bit_where_it_stopped(speed, monkeypatch, tmp_path):
    import peers
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    monkeypatch.setattr(peers, "their_network", lambda: peers.UNet2DModel(8, layers_per_block=1, block_out_channels=(8,), norm_num_groups=1,
                                                                          **blocks))
    monkeypatch.setattr(peers, "load_data", lambda name, size: shapes(64, size=8))
    monkeypatch.setattr(peers, "SAVE_STEPS", 3)
    images, loss = 6 * peers.BATCH, peers.F.mse_loss
    whole = peers.train_theirs(images, 0, tmp_path / "whole").state_dict()

    calls = []
    monkeypatch.setattr(peers.F, "mse_loss", lambda *a: calls.append(a) or (loss(*a) if len(calls) != 5 else pytest.fail("killed")))
    with pytest.raises(pytest.fail.Exception, match="killed"):
        peers.train_theirs(images, 0, tmp_path / "cut")
    resumed = peers.train_theirs(images, 0, tmp_path / "cut").state_dict()
    assert len(calls) == 5 + 3 and all(torch.equal(value, whole[name]) for name, value in resumed.items())


def test_bf16_sampling_compares_each_variant_with_fp32(speed):
    import bf16_sampling
    head, exact, *rows = bf16_sampling.rows("tiny-shapes-l0", 4, 2)
    assert exact.startswith("| fp32") and [row.split(" | ")[0].lstrip("| ") for row in rows] == [*bf16_sampling.IN_FP32, "S²-DM^10 in fp32"]
    rms = [float(row.strip("| ").split(" | ")[-1]) for row in rows]
    assert all(0.01 < value < 20 for value in rms) and len(set(rms)) > 3


def test_directions_are_those_of_most_variance(references):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 6, generator=generator) * torch.tensor([1.0, 9, 2, 0.1, 5, 1]) + 7
    found = references.directions_of(x, width=2)
    assert found["directions"].abs().argmax(0).tolist() == [1, 4], "the two widest columns, the widest first"
    v = found["directions"].float()
    assert (v.T @ v - torch.eye(2)).abs().max() < 0.01
    assert (v.gather(0, v.abs().argmax(0, keepdim=True)) > 0).all(), "no sign is left open"
    assert found["mean"].float() == pytest.approx(x.mean(0), abs=0.01)


def test_eigenvalues_of_a_data_set_are_shipped(references, zoo):
    images = shapes(200, size=8)
    references.ship_eigenvalues(images)
    values = checkpoints.read_tensors(checkpoints.pretrained_file("shapes8.eigenvalues"))[0]["eigenvalues"].double()
    x = to_unit_range(images.pixels).flatten(1).double()
    expected = torch.linalg.svdvals(x - x.mean(0)).square() / 199  # 192 values: as many as pixels
    torch.testing.assert_close(values, expected, rtol=1e-6, atol=1e-10)


def test_the_factor_between_two_networks_is_found(speed, monkeypatch, capsys, tmp_path):
    """The network of S²-DM is L_0's with its last layer times 0.9: both estimates must say 0.9 at every t."""
    import trained_scales

    network, record = checkpoints.load_model(checkpoints.pretrained_file("tiny-shapes-l0"))
    (tmp_path / "l0.0").mkdir()
    checkpoints.save_model(tmp_path / "l0.0" / "model.safetensors", network, record, torch.float32)
    for weight in network.conv_out.parameters():
        weight.mul_(0.9)
    (tmp_path / "s2dm50.0").mkdir()
    checkpoints.save_model(tmp_path / "s2dm50.0" / "model.safetensors", network, record | {"started_from": record}, torch.float32)
    monkeypatch.setattr(trained_scales, "cifar10", lambda split: shapes(8, 16, seed=1))
    monkeypatch.setattr(trained_scales, "TIMES", (100, 900))
    run(monkeypatch, trained_scales, tmp_path)
    said = capsys.readouterr().out
    assert said.count("| 0.9000 | 0.9000 |") == 2 and "| 400,000 images of L₀ |" in said


def test_noise_and_even_spectra_are_what_they_say(speed, monkeypatch, tmp_path):
    """Smooth pictures, and the same with noise of 5 grey levels: the noise is found again, and its power is taken out again."""
    import left_noise

    from s2dm_mini.checkpoints import write_tensors
    from s2dm_mini.measure.features import ring_powers

    draw = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(64, 3, 4, 4, generator=draw) * 150 + 50, size=32, mode="bicubic")
    l0 = left_noise.to_bytes(smooth)
    rough = left_noise.to_bytes(smooth + 5 * torch.randn(smooth.shape, generator=draw))
    with_noise, sigma = left_noise.noisy(l0, rough)
    assert sigma == pytest.approx(5, rel=0.03)
    for made, wanted in ((with_noise, rough), (left_noise.even(rough, l0), l0)):
        assert torch.allclose(ring_powers(made).mean(0), ring_powers(wanted).mean(0), rtol=0.1, atol=0.1)

    for scale, pixels in (("none", l0), ("s2dm50", rough)):
        for spacing in left_noise.SPACINGS:
            write_tensors(tmp_path / "samples" / "l0.0" / f"{scale}.ddim.{spacing}.0" / "10.safetensors", {"pixels": pixels}, {})
    monkeypatch.setattr(left_noise, "OFFLINE", ("spectrum",))
    table = tmp_path / "data" / "results" / "t.csv"
    for _ in range(2):  # the second time nothing is added
        run(monkeypatch, left_noise, tmp_path, "--table", table)
        rows = read_rows(table)
    with Image.open(tmp_path / "data" / "pictures" / "left-noise.png") as picture:
        assert picture.size == (10 * 32, 5 * 32)
    assert len(rows) == 2 * 5 and {row["images"] for row in rows} == {"l0", "s2dm50", "l0, noise", "s2dm50, even", "l0, noise, even"}
    assert {row["noise"] for row in rows} == {f"{sigma:.3f}"}
