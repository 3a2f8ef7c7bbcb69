"""Training on the emulated device: when the host waits, what graphs may overwrite, how much it launches, in which layout."""
from dataclasses import replace

import fake_cuda
import pytest
import torch

from s2dm_mini.training.config import TrainConfig
from s2dm_mini.training.loop import train

CONFIG = TrainConfig(data="shapes", preset="tiny", batch=8, warmup=2, steps=7, log_every=7, save_minutes=1e9, learning_rate=1e-2,
                     device="cuda")
VARIANTS = {"s2dm": {}, "l0": {"tau": 1.0}, "fp32": {"precision": "fp32"}, "expected": {"reading": "expected"},
            "shared": {"reading": "shared"}, "output": {"reading": "output", "skip": 49}, "labels": {"label_dropout": 0.1},
            "10 steps only": {"only_steps": 10}, "min-snr-5": {"weighting": "min-snr-5"}, "p2": {"weighting": "p2"},
            "two shards": {"shards": 2}, "no ramp": {"ema_ramp": False}, "recorded": {"record_step": True}}


@pytest.mark.parametrize("name", VARIANTS)
def test_no_step_waits(images, monkeypatch, name):
    """But the first, in which all is set up, and the last, with its record."""
    steps, step = [], torch.optim.Adam.step

    def counted(*arguments):
        step(*arguments)
        steps.append(dict(fake_cuda.waits()))
        fake_cuda.forget()

    monkeypatch.setattr(torch.optim.Adam, "step", counted)
    list(train(replace(CONFIG, **VARIANTS[name]), images))
    assert steps[1:] == [{}] * 6


@pytest.mark.parametrize("name", ["s2dm", "output", "labels", "two shards", "fp32"])
def test_graphs_change_nothing(images, monkeypatch, name):
    """Answers and gradients written over the last ones, or into memory of their own: the same weights, to the bit."""
    found = []
    for compile in (torch.compile, lambda model, **_: model):
        monkeypatch.setattr(torch, "compile", compile)
        *_, record = train(replace(CONFIG, steps=4, **VARIANTS[name]), images)
        found.append([weight.cpu() for weight in record.ema.parameters()])
    assert all(a.equal(b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ("two shards", "recorded")])
def test_a_recorded_step_is_the_step(images, name):
    """With other images, t, noise, labels, dropout, learning rate and EMA decay each time: the same weights, to the bit."""
    found = []
    for record_step in (False, True):
        *_, record = train(replace(CONFIG, steps=8, log_every=5, record_step=record_step, **VARIANTS[name]), images)
        found.append([torch.tensor(record.loss), *(weight.cpu() for weight in record.ema.parameters())])
    assert all(a.equal(b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(("changes", "at_most"), [({}, 87), ({"record_step": True}, 16)])
def test_launches_of_a_step(images, changes, at_most):
    """Beside whole graphs: data, loss, clipping, Adam and EMA; and clipping, Adam and EMA."""
    records = train(replace(CONFIG, steps=15, log_every=5, **changes), images)
    next(records)
    before = fake_cuda.launches()
    next(records)
    assert (fake_cuda.launches() - before) / 5 <= at_most


def test_the_users_random_numbers_are_left_alone(images):
    before = torch.cuda.get_rng_state()
    list(train(replace(CONFIG, steps=2), images))
    assert torch.cuda.get_rng_state().equal(before)


def test_a_run_begun_on_a_gpu_goes_on_there(images, tmp_path):
    config = replace(CONFIG, steps=4, log_every=2, precision="fp32")
    *_, whole = train(config, images)
    list(train(replace(config, steps=2, out=tmp_path), images))
    *_, resumed = train(replace(config, out=tmp_path), images, resume=True)
    for a, b in zip(whole.ema.parameters(), resumed.ema.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
