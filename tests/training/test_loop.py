"""The training loop: it learns, two runs that differ in tau see the same noise, and a resumed run is the same run."""
import math
import re
import threading
import warnings
from dataclasses import asdict, fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from shipping import add_to_zoo
from torch.utils._python_dispatch import TorchDispatchMode

from s2dm_mini import data, shapes
from s2dm_mini.checkpoints import CheckpointError, load_model, read_tensors, save_model, write_tensors
from s2dm_mini.data import load_data
from s2dm_mini.data.cifar10 import CIFAR10_CLASSES
from s2dm_mini.schedule import NoiseSchedule
from s2dm_mini.support import machine
from s2dm_mini.support.machine import seed_of
from s2dm_mini.support.progress import bar
from s2dm_mini.training import loop as training
from s2dm_mini.training import run as runs
from s2dm_mini.training import watched
from s2dm_mini.training.config import PAPER, TrainConfig
from s2dm_mini.training.loop import antithetic_timesteps, train
from s2dm_mini.training.run import FREE_ON_RESUME
from s2dm_mini.training.setup import TrainingError
from s2dm_mini.training.watched import train_with_bar
from s2dm_mini.unet import PRESETS, UNet, UNetConfig

SMALL = UNetConfig(image_size=8, channels=(8, 16), blocks_per_level=1, attention_levels=(1,), norm_groups=4, dropout=0.0)
BASE = TrainConfig(data="shapes", preset="tiny", batch=8, warmup=2, learning_rate=1e-3, skip=49, tau=0.9, steps=7, log_every=1,
                   save_minutes=1e9, device="cpu", precision="fp32")


@pytest.fixture
def small(monkeypatch):
    """Make `tiny` smaller still, and give it 28 scenes to learn: 3 batches of 8 an epoch."""
    monkeypatch.setitem(PRESETS, "tiny", SMALL)
    return shapes(28, size=8)


def last(records):
    *_, record = records
    return record


def state(folder):
    return read_tensors(folder / "state.safetensors")


def same(ours, theirs):
    return set(ours) == set(theirs) and all(ours[name].equal(theirs[name]) for name in ours)


def spy(monkeypatch):
    """What the network is shown: a list of (x_0, x_t, t), one a step."""
    seen, real = [], training.s2dm_loss

    def watched(denoiser, x0, t, *rest):
        calls = []

        def network(x, t):
            calls.append((x0, x, t))
            return denoiser(x, t)

        loss = real(network, x0, t, *rest)
        seen.append(calls[0])
        return loss

    monkeypatch.setattr(training, "s2dm_loss", watched)
    return seen


# --------------------------------------------------------------------------------------------------- learning

@pytest.mark.slow
def test_tiny_learns_shapes():
    config = replace(BASE, batch=16, steps=60, learning_rate=2e-3, warmup=10, tau=1.0, log_every=20)
    losses = [record.loss for record in train(config, shapes(640, size=16))]
    assert losses[0] > losses[1] > losses[2] and losses[2] < 0.35  # a network that has learnt nothing has loss 1


def test_records_say_how_it_goes(small):
    records = list(train(replace(BASE, log_every=3), small))
    assert [r.step for r in records] == [3, 6, 7] and [r.images_seen for r in records] == [24, 48, 56]
    assert [r.progress for r in records] == pytest.approx([3 / 7, 6 / 7, 1])
    assert all(r.loss > 0 and r.images_per_second > 0 for r in records)
    assert not records[-1].ema.training and not any(p.requires_grad for p in records[-1].ema.parameters())


def test_loss_of_a_record_is_the_mean_since_the_last(small):
    single = [r.loss for r in train(replace(BASE, steps=6), small)]
    triple = [r.loss for r in train(replace(BASE, steps=6, log_every=3), small)]
    assert triple == pytest.approx([sum(single[:3]) / 3, sum(single[3:]) / 3], rel=1e-6)


def test_first_steps_by_hand(small, tmp_path):
    """Adam's first step moves each number by lr·g/(|g| + 1e-8); its memory then holds a tenth of the clipped gradient."""
    config = replace(BASE, steps=1, warmup=4, clip=0.01, out=tmp_path / "moved")
    last(train(replace(config, learning_rate=1e-30, out=tmp_path / "still"), small))
    before, _ = state(tmp_path / "still")
    last(train(config, small))
    tensors, _ = state(tmp_path / "moved")
    gradients = [10 * value for name, value in tensors.items() if name.endswith("exp_avg")]
    assert math.sqrt(sum(g.square().sum().item() for g in gradients)) == pytest.approx(0.01, rel=1e-3)
    moved = torch.cat([(tensors[name] - before[name]).abs().flatten() for name in before if name.startswith("model.conv_out")])
    assert moved.max().item() == pytest.approx(1e-3 / 4, rel=1e-3)  # a quarter of the way up the warm-up


def test_learning_rate_by_hand():
    """up(k)·lr, and with annealing cos²(πp/2) of it, since (1 + cos x)/2 = cos²(x/2)."""
    for step in (0, 1, 4, 5, 80):
        for progress in (0.0, 0.25, 0.5, 1.0):
            up = 1e-3 * (step + 1) / 5 if step < 5 else 1e-3
            down = math.cos(math.pi / 2 * progress) ** 2
            config = replace(BASE, warmup=5)
            assert training.learning_rate(config, step, progress) == pytest.approx(up, rel=1e-12)
            annealed = training.learning_rate(replace(config, annealing="cosine"), step, progress)
            assert annealed == pytest.approx(up * down, rel=1e-12, abs=1e-18)
    assert training.learning_rate(replace(BASE, warmup=0), 0, 0.5) == 1e-3


def test_the_learning_rate_is_that_of_the_step(small, monkeypatch, tmp_path):
    """Annealing by the share of the budget before the step; beta2 is the share of its squared gradients that Adam keeps."""
    asked, real = [], training.learning_rate
    monkeypatch.setattr(training, "learning_rate", lambda config, step, progress: asked.append((step, progress)) or real(
        config, step, progress))
    config = replace(BASE, steps=4, warmup=0, annealing="cosine", beta2=0.9)
    last(train(config, small))
    assert asked == [(k, k / 4) for k in range(4)]

    last(train(replace(config, steps=1, out=tmp_path), small))
    tensors, _ = state(tmp_path)
    for name, value in tensors.items():
        if name.endswith("exp_avg_sq"):
            gradient = 10 * tensors[name.removesuffix("_sq")]
            torch.testing.assert_close(value, 0.1 * gradient.square(), rtol=1e-4, atol=1e-12)


def test_weighting_by_hand(small, monkeypatch):
    """A fresh network answers 0, so that the first loss is the mean of w_t·‖ε‖²; nobody asks for weights where all count alike."""
    seen, alpha_bar, losses = spy(monkeypatch), NoiseSchedule.linear().alpha_bar, {}
    for weighting in ("p2", "min-snr-5"):
        losses[weighting] = last(train(replace(BASE, steps=1, tau=1.0, weighting=weighting), small)).loss
    x0, x_t, t = seen[0]
    a = alpha_bar[t]
    eps = (x_t - a.sqrt().reshape(-1, 1, 1, 1) * x0) / (1 - a).sqrt().reshape(-1, 1, 1, 1)
    square = eps.square().mean((1, 2, 3))
    assert losses["p2"] == pytest.approx(((1 - a) * square).mean().item(), rel=1e-5)
    few = torch.minimum(torch.ones(()), 5 * (1 - a) / a)
    assert losses["min-snr-5"] == pytest.approx((few * square).mean().item(), rel=1e-5)
    monkeypatch.delattr(training, "timestep_weight")
    last(train(replace(BASE, steps=1), small))


class Reads(TorchDispatchMode):
    """Counts what a GPU would make the host wait for: values read, and results whose shape depends on values."""

    WAITING = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "unique", "_unique2", "is_nonzero")

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in self.WAITING:
            self.names.append(name)
        return function(*args, **kwargs or {})


def test_only_a_record_reads_from_the_device(small, monkeypatch):
    for module in ("support.checks", "losses"):  # it reads from CPU tensors alone
        monkeypatch.setattr(f"s2dm_mini.{module}.check_timesteps", lambda *asked, **limits: None)
    monkeypatch.setitem(PRESETS, "tiny", replace(SMALL, dropout=0.1))
    records = train(replace(BASE, steps=12, log_every=6, weighting="min-snr-5"), small)  # 3 steps an epoch
    next(records)  # set up
    with Reads() as reads:
        next(records)
    assert reads.names == ["_local_scalar_dense"]  # the mean loss


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.compile and CUDA graphs are used on a GPU")
@pytest.mark.parametrize("change", [{}, {"shards": 2}, {"reading": "output"}], ids=str)
def test_compiled_training_is_the_plain_one(small, monkeypatch, change):
    """The loss after five steps on a GPU, with graphs, without, and not compiled at all."""
    config = replace(BASE, steps=5, log_every=5, device="cuda", **change)
    compiled = last(train(config, small)).loss
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    assert compiled == pytest.approx(last(train(config, small)).loss, rel=1e-3)


@pytest.mark.parametrize("ramp", [True, False])
def test_ema_by_hand(small, tmp_path, ramp):
    """e_k = d·e_{k−1} + (1−d)·w_k, d = min(decay, (1+k)/(10+k)) with the ramp, decay without."""
    previous = None
    for record in train(replace(BASE, steps=4, ema_decay=0.3, ema_ramp=ramp, out=tmp_path, save_minutes=0), small):
        tensors, _ = state(tmp_path)
        k = record.step
        d = min(0.3, (1 + k) / (10 + k)) if ramp else 0.3
        for name, weight in record.ema.state_dict().items():
            assert weight.equal(tensors[f"ema.{name}"])
            if previous is not None:
                torch.testing.assert_close(weight, d * previous[name] + (1 - d) * tensors[f"model.{name}"])
        previous = {name: weight.clone() for name, weight in record.ema.state_dict().items()}


def test_several_averages_side_by_side(small, tmp_path):
    """Each is saved under its decay, follows its own formula, and is resumed to the bit."""
    config, previous = replace(BASE, ema_decay=0.3, ema_ramp=False, ema_others=(0.5, 0.0), save_minutes=0), None
    for record in train(replace(config, out=tmp_path / "whole"), small):
        tensors, _ = state(tmp_path / "whole")
        assert record.emas[0.3] is record.ema and list(record.emas) == [0.3, 0.5, 0.0]
        for decay, name in ((0.3, "ema"), (0.5, "ema-0.5"), (0.0, "ema-0")):
            for key, weight in record.emas[decay].state_dict().items():
                assert weight.equal(tensors[f"{name}.{key}"])
                if previous is not None:
                    expected = decay * previous[f"{name}.{key}"] + (1 - decay) * tensors[f"model.{key}"]
                    torch.testing.assert_close(weight, expected)
        previous = tensors
    last(train(replace(config, steps=3, out=tmp_path / "parts"), small))
    half = tmp_path / "parts" / "model-ema-0.5.safetensors.1f.part"
    half.write_text("half", encoding="utf-8")
    resumed = last(train(replace(config, out=tmp_path / "parts"), small, resume=True))
    assert same(state(tmp_path / "parts")[0], tensors) and not half.exists()
    files = {0.3: "model", 0.5: "model-ema-0.5", 0.0: "model-ema-0"}
    for decay, name in files.items():
        for folder in ("whole", "parts"):
            network, facts = load_model(tmp_path / folder / f"{name}.safetensors")
            rounded = [value.half().float() for value in resumed.emas[decay].state_dict().values()]
            assert facts["steps"] == 7 and all(a.equal(b) for a, b in zip(network.state_dict().values(), rounded, strict=True))


def test_an_average_younger_than_its_span_is_said(small):
    with pytest.warns(UserWarning, match="ema_decay = 0.99 averages over 100 steps, and the training had 7; set ema_ramp"):
        last(train(replace(BASE, ema_decay=0.99, ema_ramp=False), small))
    with warnings.catch_warnings(action="error"):
        last(train(replace(BASE, ema_decay=0.99), small))
        last(train(replace(BASE, ema_decay=0.8, ema_ramp=False), small))


def test_a_run_keeps_its_history_and_the_networks_on_the_way(small, tmp_path):
    """After 16 and 40 images, in 2 and 5 steps of 8; the run is stopped after step 3 and resumed."""
    config = replace(BASE, keep_images=(15, 40), out=tmp_path)
    records = train(config, small)
    before = [next(records) for _ in range(3)]
    records.close()
    assert not (tmp_path / "model-at-40.safetensors").exists()
    after = list(train(config, small, resume=True))
    for n, step in ((15, 2), (40, 5)):
        assert load_model(tmp_path / f"model-at-{n}.safetensors")[1]["steps"] == step
    history = load_model(tmp_path / "model.safetensors")[1]["history"]
    losses = [record.loss for record in before + after]
    assert [row[0] for row in history] == [16, 24, 40, 56]
    means = [sum(losses[:2]) / 2, losses[2], sum(losses[3:5]) / 2, sum(losses[5:]) / 2]
    assert [row[1] for row in history] == pytest.approx(means, abs=1e-5)
    assert history == state(tmp_path)[1]["record"]["history"]
    with pytest.raises(ValueError, match="keep_images must be numbers of images above 0"):
        replace(config, keep_images=(0,))


@pytest.mark.parametrize(("flags", "precision"), [("fpu sse avx512f avx512_bf16", "bf16"), ("fpu amx_bf16 amx_tile", "bf16"),
                                                  ("fpu sse avx512f", "fp32"), (None, "fp32")])
def test_a_cpu_trains_in_bf16_where_it_multiplies_it(small, monkeypatch, tmp_path, flags, precision):
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: A processor\nflags\t\t: {flags}\n", encoding="utf-8")
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    last(train(replace(BASE, steps=1, precision="auto", out=tmp_path / "run"), small))
    record = state(tmp_path / "run")[1]["record"]
    assert record["precision"] == precision and record["device"].startswith("A processor") == (flags is not None)


def test_bf16_keeps_weights_in_float32(small, tmp_path):
    record = last(train(replace(BASE, steps=2, precision="bf16", out=tmp_path), small))
    assert math.isfinite(record.loss)
    tensors, header = state(tmp_path)
    assert {v.dtype for v in tensors.values()} == {torch.float32} and header["record"]["precision"] == "bf16"


# ------------------------------------------------------------------------------------------------- randomness

def test_baseline_and_s2dm_see_the_same(small, monkeypatch):
    """Same images, flips, t and ε₁ at every step: only the loss differs. And another seed sees others."""
    runs = {}
    for tau, reading, seed in ((1.0, "independent", 0), (0.9, "independent", 0), (0.9, "output", 0), (1.0, "independent", 1)):
        with monkeypatch.context() as patch:
            seen = spy(patch)
            runs[tau, reading, seed] = seen, last(train(replace(BASE, tau=tau, reading=reading, seed=seed), small)).loss
    baseline, loss = runs.pop((1.0, "independent", 0))
    assert len(baseline) == 7
    for (_, _, seed), (seen, other_loss) in runs.items():
        alike = [all(a.equal(b) for a, b in zip(ours, theirs, strict=True)) for ours, theirs in zip(baseline, seen, strict=True)]
        assert all(alike) if seed == 0 else not any(alike)
        assert other_loss != loss


def test_eps_is_standard_normal_and_t_antithetic(small, monkeypatch):
    seen, alpha_bar = spy(monkeypatch), NoiseSchedule.linear().alpha_bar
    last(train(replace(BASE, steps=30), small))
    x0, x_t, t = (torch.cat(parts) for parts in zip(*seen, strict=True))
    a = alpha_bar[t].reshape(-1, 1, 1, 1)
    eps = ((x_t - a.sqrt() * x0) / (1 - a).sqrt())[t > 50]
    assert eps.mean().abs() < 4 / eps.numel() ** 0.5 and abs(eps.var() - 1) < 4 * (2 / eps.numel()) ** 0.5
    assert (t.reshape(30, 2, 4).sum(1) == 999).all()
    assert t.unique().numel() > 200  # of 240


def test_training_only_where_a_sampler_looks(small, monkeypatch):
    seen = spy(monkeypatch)
    last(train(replace(BASE, steps=40, only_steps=5), small))
    t = torch.cat([t for *_, t in seen])
    visited = NoiseSchedule.linear().timesteps(5, "quadratic")
    share = torch.stack([(t == v).float().mean() for v in visited])
    assert share.sum() == 1 and (share - 0.2).abs().max() < 0.09  # 320 draws: a standard error of 0.022


@pytest.mark.parametrize("batch", [1, 2, 7, 128])
def test_antithetic_timesteps(batch):
    t = antithetic_timesteps(batch, 1000, torch.Generator().manual_seed(0))
    half = (batch + 1) // 2
    assert t.shape == (batch,) and t.min() >= 0 and t.max() <= 999
    assert (t[half:] == 999 - t[:batch - half]).all()


def test_every_image_once_an_epoch(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", SMALL)
    pixels = torch.arange(24, dtype=torch.uint8).reshape(24, 1, 1, 1).expand(24, 3, 8, 8).contiguous()  # flips leave them alone
    images, seen = data.Images("greys", pixels, torch.zeros(24, dtype=torch.int64), ()), spy(monkeypatch)
    last(train(replace(BASE, steps=6), images))
    numbers = torch.stack([data.to_pixels(x0)[:, 0, 0, 0] for x0, _, _ in seen]).reshape(2, 24)  # epoch, image
    assert numbers.sort(1).values.equal(torch.arange(24, dtype=torch.uint8).expand(2, 24))
    assert not numbers[0].equal(numbers[1])


def test_seeds_differ():
    keys = [(a, b, c, d) for a in range(4) for b in range(3) for c in range(20) for d in range(4)]
    assert len({seed_of(*key) for key in keys}) == len(keys)
    assert seed_of(1, 2) == seed_of(1, 2) and 0 <= seed_of(1, 2) < 2**32


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_global_generators_are_left_alone(small, monkeypatch, tmp_path, dropout):
    monkeypatch.setitem(PRESETS, "tiny", replace(SMALL, dropout=dropout))
    save_model(tmp_path / "start.safetensors", UNet(PRESETS["tiny"]), {})
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    last(train(replace(BASE, steps=2, out=tmp_path), small))
    last(train(replace(BASE, steps=4, out=tmp_path), small, resume=True))
    last(train(replace(BASE, steps=2, start=str(tmp_path / "start.safetensors")), small))
    assert torch.get_rng_state().equal(before) and (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


def test_a_run_does_not_depend_on_the_global_generator(small, tmp_path):
    for i in range(2):
        torch.manual_seed(i)
        last(train(replace(BASE, steps=2, out=tmp_path / str(i)), small))
    assert same(state(tmp_path / "0")[0], state(tmp_path / "1")[0])


# --------------------------------------------------------------------------------------------------- resuming

@pytest.mark.parametrize("dropout", [0.0, 0.3], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("stop", ["budget", "closed", "killed"])
def test_a_resumed_run_is_the_uninterrupted_run(small, monkeypatch, tmp_path, dropout, stop):
    monkeypatch.setitem(PRESETS, "tiny", replace(SMALL, dropout=dropout))
    whole, parts = replace(BASE, out=tmp_path / "whole"), replace(BASE, out=tmp_path / "parts")
    record = last(train(whole, small))

    if stop == "budget":
        last(train(replace(parts, steps=4), small))
    else:
        run = train(replace(parts, save_minutes=0 if stop == "killed" else 1e9), small)
        for _ in range(4):
            next(run)
        if stop == "closed":  # saves where it stands
            run.close()
        else:  # went on, and left what it had saved before
            kept = (parts.out / "state.safetensors").read_bytes()
            next(run)
            run.close()
            (parts.out / "state.safetensors").write_bytes(kept)
    assert state(parts.out)[1]["record"]["steps"] == 4
    resumed = last(train(parts, small, resume=True))

    (ours, our_header), (theirs, their_header) = state(parts.out), state(whole.out)
    assert {name.split(".")[0] for name in ours} == {"model", "ema", "adam"}
    assert same(ours, theirs)
    assert (resumed.step, resumed.loss, resumed.images_seen) == (record.step, record.loss, record.images_seen)
    apart = {"minutes": 0, "history": []}  # the clock's, and a row more where the run was saved more often
    assert {**our_header["record"], **apart} == {**their_header["record"], **apart}
    assert resumed.minutes > 0
    assert same(load_model(parts.out / "model.safetensors")[0].state_dict(), load_model(whole.out / "model.safetensors")[0].state_dict())


def test_a_finished_run_has_nothing_to_resume(small, tmp_path):
    last(train(replace(BASE, out=tmp_path), small))
    assert list(train(replace(BASE, out=tmp_path), small, resume=True)) == []
    assert last(train(replace(BASE, out=tmp_path, steps=8), small, resume=True)).step == 8


OTHER = {"data": "cifar10", "preset": "nano", "skip": 9, "tau": 0.99, "reading": "shared", "weighting": "p2", "T": 500, "batch": 4,
         "learning_rate": 2e-3, "warmup": 3, "clip": 2.0, "ema_decay": 0.5, "ema_ramp": False, "seed": 1, "precision": "bf16",
         "shards": 2, "only_steps": 5, "label_dropout": 0.1, "annealing": "cosine", "beta2": 0.9,
         "ema_others": (0.7,)}


@pytest.mark.parametrize("name", OTHER)
def test_resuming_with_another_setting_is_refused(small, tmp_path, name):
    last(train(replace(BASE, steps=1, out=tmp_path), small))
    with pytest.raises(TrainingError, match=re.escape(f"with {name} = {getattr(BASE, name)!r}, this run asks for {OTHER[name]!r}")):
        next(train(replace(BASE, out=tmp_path, **{name: OTHER[name]}), small, resume=True))


def test_a_run_from_before_a_setting_existed_had_its_default(small, tmp_path):
    config = replace(BASE, steps=1, out=tmp_path)
    last(train(config, small))
    tensors, header = state(tmp_path)
    del header["record"]["config"]["weighting"]
    write_tensors(tmp_path / "state.safetensors", tensors, header)
    with pytest.raises(TrainingError, match="with weighting = 'uniform', this run asks for 'p2'"):
        next(train(replace(config, steps=2, weighting="p2"), small, resume=True))
    assert last(train(replace(config, steps=2), small, resume=True)).step == 2


def test_every_setting_is_either_free_or_checked():
    assert set(OTHER) | set(FREE_ON_RESUME) | {"start"} == {f.name for f in fields(TrainConfig)}


def test_resuming_with_other_images_is_refused(small, tmp_path):
    last(train(replace(BASE, steps=1, out=tmp_path), small))
    with pytest.raises(TrainingError, match=r"other images than these \(shapes8, hash \w{16}\)"):
        next(train(replace(BASE, out=tmp_path), shapes(28, size=8, seed=1), resume=True))


def test_a_new_run_never_overwrites_another(small, tmp_path):
    config = replace(BASE, out=tmp_path / "run")
    last(train(config, small))
    before = (config.out / "state.safetensors").read_bytes()
    with pytest.raises(TrainingError, match="already holds a training.*resume it, choose another folder"):
        last(train(config, small))
    assert (config.out / "state.safetensors").read_bytes() == before


def test_nothing_to_resume_from(small, tmp_path):
    with pytest.raises(ValueError, match="set out to the folder"):
        next(train(BASE, small, resume=True))
    with pytest.raises(TrainingError, match="holds no training to resume: begin one without resume"):
        next(train(replace(BASE, out=tmp_path), small, resume=True))
    assert not list(tmp_path.iterdir())
    last(train(replace(BASE, steps=1, out=tmp_path), small))
    (tmp_path / "model.safetensors").replace(tmp_path / "state.safetensors")  # a network, but no training state
    with pytest.raises(CheckpointError, match=r"state\.safetensors is not the state of a training"):
        next(train(replace(BASE, out=tmp_path), small, resume=True))


# ---------------------------------------------------------------------------------------------------- budgets

@pytest.mark.parametrize(("budget", "steps"), [
    ({"steps": 3}, 3), ({"images": 24}, 3), ({"images": 25}, 4), ({"steps": 5, "images": 16}, 2), ({"steps": 2, "images": 10_000}, 2),
])
def test_budgets(small, budget, steps):
    records = list(train(replace(BASE, **{"steps": None, **budget}), small))
    assert records[-1].step == steps and records[-1].progress == 1 and all(r.progress < 1 for r in records[:-1])


@pytest.fixture
def clock(monkeypatch):
    """A clock that each step of a training moves by 6 seconds."""
    clock, real = SimpleNamespace(now=0.0), training.s2dm_loss
    monkeypatch.setattr(runs, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def slow_loss(*arguments):
        clock.now += 6
        return real(*arguments)

    monkeypatch.setattr(training, "s2dm_loss", slow_loss)
    return clock


def test_a_budget_of_minutes_counts_training_only(small, clock, tmp_path):
    """The caller takes an hour to look at a record."""
    config = replace(BASE, steps=None, minutes=0.45, out=tmp_path)
    for record in train(config, small):
        clock.now += 3600
        assert record.images_per_second == pytest.approx(8 / 6)
    assert record.step == 5 and record.minutes == pytest.approx(0.5)
    record = last(train(replace(config, minutes=0.95), small, resume=True))
    assert record.step == 10 and record.minutes == pytest.approx(1.0)  # what was trained before counts


def test_slow_steps_bring_a_record_every_ten_seconds_and_end_on_time(small, clock):
    records = list(train(replace(BASE, steps=None, minutes=0.45, log_every=1000), small))
    assert [record.step for record in records] == [2, 4, 5] and records[-1].progress == 1


def test_numpys_numbers_are_numbers(small, tmp_path):
    config = replace(BASE, steps=np.int64(2), tau=np.float64(0.9), learning_rate=np.float32(0.001), out=tmp_path)
    assert last(train(config, small)).step == 2
    assert state(tmp_path)[1]["record"]["config"]["steps"] == 2


def test_a_thread_may_train_with_a_bar(small):
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(train_with_bar(replace(BASE, data="shapes", steps=2))))
    thread.start()
    thread.join()
    assert outcome[0].step == 2


def test_the_time_left_of_a_resumed_run_counts_from_where_it_goes_on(monkeypatch):
    """A bar that took the first 60 % for its own work would promise the other 40 % at once, and then stand still."""
    records = [SimpleNamespace(step=k, loss=0.1, images_per_second=5.0, progress=k / 100) for k in (60, 61, 62)]
    monkeypatch.setattr(watched, "train", lambda *_, **__: iter(records))
    made = []
    monkeypatch.setattr(watched, "bar", lambda *args, **options: made.append(bar(*args, **options)) or made[-1])
    for resume, begin in ((True, 60), (False, 0)):
        train_with_bar(BASE, resume)
        assert (made[-1].initial, made[-1].n, made[-1].miniters) == (begin, 62, 0)


def test_checkpoints_come_every_so_many_minutes(small, monkeypatch, tmp_path):
    clock, saved = SimpleNamespace(now=0.0), []
    monkeypatch.setattr(runs, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(runs.Run, "save", lambda run, **_: saved.append(run.step))
    for _ in train(replace(BASE, steps=10, save_minutes=3, out=tmp_path), small):
        clock.now += 61
    assert saved == [4, 7, 10]  # step k ends at 61·(k−1) seconds; and always at the end


# --------------------------------------------------------------------------------------------------- failures

def poison(monkeypatch, at, spoil):
    calls, real = [], training.s2dm_loss

    def spoilt(*arguments):
        calls.append(1)
        loss = real(*arguments)
        return spoil(loss) if len(calls) == at else loss

    monkeypatch.setattr(training, "s2dm_loss", spoilt)


def test_a_loss_that_is_not_finite_stops_the_training(small, monkeypatch, tmp_path):
    poison(monkeypatch, 4, lambda loss: loss * math.nan)
    with pytest.raises(TrainingError, match=r"loss became nan between steps 3 and 4.*checkpoint in .* is kept.*learning_rate than 0\.001"):
        list(train(replace(BASE, out=tmp_path, save_minutes=0), small))
    tensors, header = state(tmp_path)
    assert header["record"]["steps"] == 3 and all(v.isfinite().all() for v in tensors.values())
    monkeypatch.undo()
    with pytest.raises(TrainingError) as caught:
        poison(monkeypatch, 1, lambda loss: loss * math.inf)
        list(train(BASE, shapes(28, size=16)))
    assert "kept" not in str(caught.value)


def test_a_gradient_that_is_not_finite_is_never_saved(small, monkeypatch, tmp_path):
    """The loss is still finite at that step, but the weights after it are not."""
    def spoil(loss):
        loss.register_hook(lambda gradient: gradient * math.inf)
        return loss

    poison(monkeypatch, 4, spoil)
    with pytest.raises(TrainingError, match="between steps 3 and 4"):
        list(train(replace(BASE, out=tmp_path, save_minutes=0), small))
    tensors, header = state(tmp_path)
    assert header["record"]["steps"] == 3 and all(v.isfinite().all() for v in tensors.values())


def test_fine_tuning_starts_from_the_checkpoint(small, tmp_path, zoo):
    pretrained = UNet(SMALL)
    for parameter in pretrained.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    save_model(tmp_path / "p.safetensors", pretrained, {})
    add_to_zoo(tmp_path / "p.safetensors", "small-l0")
    for start in (str(tmp_path / "p.safetensors"), "small-l0"):
        record = last(train(replace(BASE, steps=1, start=start, learning_rate=1e-30), small))
        assert same(record.ema.state_dict(), load_model(tmp_path / "p.safetensors")[0].state_dict())
        moved = last(train(replace(BASE, steps=3, start=start), small))
        assert all(not a.equal(b) for (name, a), b in zip(moved.ema.named_parameters(), pretrained.parameters(), strict=True)
                   if name.endswith("weight"))


def test_fine_tuning_refuses_another_architecture(small, tmp_path, zoo):
    save_model(tmp_path / "p.safetensors", UNet(replace(SMALL, channels=(8, 8))), {})
    with pytest.raises(TrainingError, match=r"p\.safetensors is not a tiny network: it takes .*\(8, 8\) and no classes; set preset"):
        next(train(replace(BASE, start=str(tmp_path / "p.safetensors")), small))
    with pytest.raises(CheckpointError, match="cannot be read"):
        next(train(replace(BASE, start="nano-l1"), small))


def test_images_that_do_not_fit(small, monkeypatch, tmp_path):
    for labels in (None, torch.zeros(3, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"images\.labels must be a tensor with one label an image, \(28,\)"):
            next(train(BASE, replace(small, labels=labels)))
    with pytest.raises(ValueError, match="7 images, fewer than one batch of 8"):
        next(train(BASE, shapes(7, size=8)))
    with pytest.raises(ValueError, match=r"x must be a floating tensor \(B, 3, 8, 8\), not .*\(8, 3, 16, 16\)"):
        next(train(BASE, shapes(28, size=16)))
    monkeypatch.setenv("S2DM_DATA", str(tmp_path))
    for name, preset, said in (("cifar10", "nano", "fetch cifar10"), ("celeba", "paper64", "downloaded by hand")):
        with pytest.raises(data.DataError, match=said):
            load_data(name, PRESETS[preset].image_size)
    for name, said in (("cifar10", "CIFAR-10 is 32×32, but this network takes 8×8 images; use a preset for 32×32, or"),
                       ("celeba", "CelebA is 64×64, but this network takes 8×8 images; use a preset for 64×64, or data = shapes")):
        with pytest.raises(ValueError, match=said):  # before anything is looked for
            next(train(replace(BASE, data=name)))


# ---------------------------------------------------------------------------------------------- configuration

def test_paper_is_the_released_setting():
    paper = asdict(PAPER)
    assert (paper["weighting"], paper["annealing"], paper["beta2"], paper["ema_others"]) == ("uniform", "none", 0.999, ())
    assert {name: paper[name] for name in ("data", "T", "batch", "learning_rate", "clip", "ema_decay", "tau", "reading")} == {
        "data": "cifar10", "T": 1000, "batch": 128, "learning_rate": 2e-4, "clip": 1.0, "ema_decay": 0.9999, "tau": 0.99,
        "reading": "independent"}
    assert paper["skip"] in (1, 9, 49) and not paper["ema_ramp"] and paper["warmup"] == 0 and paper["start"] is None
    assert sum(p.numel() for p in UNet(PRESETS[PAPER.preset]).parameters()) == 35_746_307


@pytest.mark.parametrize(("name", "value", "said"), [
    ("data", "mnist", "one of cifar10, celeba, shapes, waves, spirals"), ("preset", "huge", "one of tiny, nano, compact, paper, paper64"),
    ("reading", "shred", "one of independent"),
    ("weighting", "snr", "one of uniform, min-snr-5, p2"), ("precision", "fp16", "auto, fp32 or bf16"), ("tau", 1.5, r"in \[0, 1\]"),
    ("T", 1, "at least 2"), ("skip", 0, r"in 1\.\.999"), ("skip", 1000, r"in 1\.\.999"), ("ema_decay", 1.0, r"in \[0, 1\)"),
    ("learning_rate", 0.0, "above 0"), ("clip", -1.0, "above 0"), ("warmup", -1, "at least 0"), ("log_every", 0, "at least 1"),
    ("save_minutes", -1.0, "at least 0"), ("batch", 0, "at least 1"), ("shards", 3, "a divisor of batch = 8"), ("shards", 0, "a divisor"),
    ("steps", 0, "above 0"), ("images", -8, "above 0"), ("minutes", 0.0, "above 0"), ("annealing", "linear", "none or cosine"),
    ("beta2", 1.0, r"in \[0, 1\)"), ("ema_others", (0.5, 1.0), r"decays in \[0, 1\)"),
    ("ema_others", (0.9999,), r"decays that differ in six digits, also from ema_decay = 0\.9999"),
    ("ema_others", (0.5, 0.9, 0.5), "decays that differ"), ("ema_others", (0.5, 0.50000001), "decays that differ in six"),
])
def test_impossible_settings(name, value, said):
    with pytest.raises(ValueError, match=rf"^{name} must be {said}.*not {re.escape(repr(value))}"):
        replace(BASE, **{name: value})


def test_a_step_is_recorded_on_a_gpu_alone_and_with_one_shard(small):
    with pytest.raises(ValueError, match="record_step = True needs a GPU, and this training runs on cpu: leave it out"):
        next(train(replace(BASE, record_step=True), small))
    with pytest.raises(ValueError, match="record_step must be False where a batch has several shards, not True"):
        replace(BASE, record_step=True, shards=2)


def test_a_training_needs_an_end():
    with pytest.raises(ValueError, match="steps, images or minutes"):
        TrainConfig()


# ----------------------------------------------------------------------------------------------------- labels

def spy_on_labels(monkeypatch, known=4):
    """The labels that the network is shown, a list of (B,), one a call."""
    seen, real = [], UNet.forward

    def watched(model, x, t, label=None):
        seen.append(label)
        return real(model, x, t, label)

    monkeypatch.setattr(UNet, "forward", watched)
    return seen


def test_labels_go_with_their_images_and_change_nothing_else(small, monkeypatch):
    """With labels the network sees the images, t and ε₁ that it sees without; each label is its image's, or dropped."""
    plain, labelled, labels = spy(monkeypatch), [], spy_on_labels(monkeypatch)
    last(train(replace(BASE, steps=6), small))
    assert labels == [None] * 6
    labels.clear()
    with monkeypatch.context() as patch:
        labelled = spy(patch)
        last(train(replace(BASE, steps=6, label_dropout=0.4), small))
    assert len(plain) == 12 and all(a.equal(b) for one, two in zip(plain[:6], labelled, strict=True) for a, b in zip(one, two, strict=True))
    scenes = torch.cat([data.to_unit_range(small.pixels), data.to_unit_range(small.pixels).flip(3)])
    dropped = 0
    for (x0, _, _), label in zip(labelled, labels, strict=True):
        index = torch.cdist(x0.flatten(1), scenes.flatten(1)).argmin(1) % 28
        assert ((label == small.labels[index]) | (label == -1)).all()
        dropped += int((label == -1).sum())
    assert 8 <= dropped <= 32  # of 48


def test_the_share_that_loses_its_label():
    labels = torch.arange(10).repeat(1_000)
    kept = training.drop_labels(labels, 0.1, torch.Generator().manual_seed(0))
    assert ((kept == labels) | (kept == -1)).all() and abs((kept == -1).float().mean() - 0.1) < 0.015
    assert training.drop_labels(labels, 0.0, torch.Generator()).equal(labels)


def test_labelled_training_resumes_to_the_bit(small, tmp_path):
    config = replace(BASE, steps=4, label_dropout=0.3)
    last(train(replace(config, out=tmp_path / "whole"), small))
    last(train(replace(config, steps=2, out=tmp_path / "parts"), small))
    last(train(replace(config, out=tmp_path / "parts"), small, resume=True))
    (whole, header), (parts, _) = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert same(whole, parts) and header["unet"]["classes"] == 4 and whole["model.class_embedding.weight"].abs().amax(1).min() > 0


def test_a_network_without_labels_can_be_taught_them(small, tmp_path):
    """Where all labels but few are dropped, its first step starts from the same answers. Not the other way round."""
    config = replace(BASE, steps=1, start=str(tmp_path / "plain" / "model.safetensors"))
    last(train(replace(config, start=None, steps=3, out=tmp_path / "plain"), small))
    torch.manual_seed(0)
    losses = [last(train(replace(config, label_dropout=share, out=tmp_path / str(share)), small)).loss for share in (1.0, 0.999, 0.2)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6) and losses[2] != pytest.approx(losses[0], rel=1e-6)
    assert torch.initial_seed() == 0 and torch.randn(1).item() == torch.randn(1, generator=torch.Generator().manual_seed(0)).item()
    taught = str(tmp_path / "0.2" / "model.safetensors")
    assert load_model(taught)[0].config.classes == 4
    with pytest.raises(TrainingError, match="not a tiny network: it takes .* and 4 classes; set preset and label_dropout"):
        next(train(replace(config, start=taught), small))
    with pytest.raises(TrainingError, match="not a tiny network of 10 classes: .* and 4 classes"):
        next(train(replace(config, start=taught, label_dropout=0.2), replace(small, classes=CIFAR10_CLASSES)))
