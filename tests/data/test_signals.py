"""Signals: generators whose parameters come back, the same network and training along one dimension, and what is measured of samples."""
import cmath
import importlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compare_signals import compare_signals, measures
from shipping import add_to_zoo

from s2dm_mini import NoiseSchedule, Shrunk, TrainConfig, sample, shrinkage, train
from s2dm_mini.checkpoints import load_model, read_tensors, save_model
from s2dm_mini.data import signals
from s2dm_mini.denoisers import GaussianDenoiser
from s2dm_mini.plots import signal_grid
from s2dm_mini.study.evaluate import evaluate, samples_picture
from s2dm_mini.study.signals import direction_distance, power_spectrum, spectrum_distance
from s2dm_mini.study.tables import read_rows
from s2dm_mini.training import loop as training
from s2dm_mini.unet import PRESETS, Attention, Downsample, UNet, UNetConfig, Upsample

SMALL = UNetConfig(image_size=16, image_channels=1, dimensions=1, channels=(8, 16), blocks_per_level=1, attention_levels=(1,),
                   norm_groups=4, dropout=0.0)
BASE = TrainConfig(data="waves", preset="wave", batch=8, warmup=2, learning_rate=1e-3, skip=49, tau=0.9, steps=6, log_every=1,
                   save_minutes=1e9, device="cpu", precision="fp32")


def last(records):
    *_, record = records
    return record


@pytest.fixture
def small(monkeypatch):
    """`wave` made smaller, and 28 waves to learn."""
    monkeypatch.setitem(PRESETS, "wave", SMALL)
    return signals.waves(28, length=16)


# ------------------------------------------------------------------------------------------------------- data

def test_a_wave_by_hand():
    """Sample by sample: the five bumps of every beat that comes near the window."""
    d = signals.waves(3, length=20, seed=4)
    for i in range(3):
        f = {name: value[i].item() for name, value in d.factors.items()}
        for sample_number in range(20):
            at = f["phase"] + f["rate"] * sample_number / 20
            wanted = 0.0
            for place, deviation, height, multiple in signals.BUMPS.values():
                nearest = min((at - place - beat for beat in range(-2, 5)), key=abs)
                wanted += multiple * f[height] * math.exp(-nearest**2 / (2 * (deviation * f["width"]) ** 2))
            assert d.pixels[i, 0, sample_number].item() == pytest.approx(wanted, abs=1e-6)


def test_a_spiral_by_hand():
    d = signals.spirals(3, length=9, seed=4)
    for i in range(3):
        f = {name: value[i].item() for name, value in d.factors.items()}
        for k in range(9):
            z = f["radius"] * cmath.exp(-f["decay"] * k / 8 + 2j * math.pi * (f["angle"] + f["turns"] * k / 8))
            assert d.pixels[i, :, k].tolist() == pytest.approx([z.real, z.imag], abs=1e-6)


@pytest.mark.parametrize(("make", "ranges", "channels"), [(signals.waves, signals.WAVE_FACTORS, 1),
                                                          (signals.spirals, signals.SPIRAL_FACTORS, 2)])
def test_generators(make, ranges, channels):
    d = make(2_000, seed=3)
    assert d.pixels.shape == (2_000, channels, 64) and d.pixels.dtype == torch.float32 and d.pixels.abs().max() <= 1
    assert d.pixels.equal(make(2_000, seed=3).pixels) and not d.pixels.equal(make(2_000, seed=4).pixels)
    for name, (low, high) in ranges.items():
        value = d.factors[name].abs()
        assert low <= value.min() < low + 0.01 * (high - low) and high - 0.01 * (high - low) < value.max() <= high
        assert value.mean() == pytest.approx((low + high) / 2, abs=4 * (high - low) / 12**0.5 / 2_000**0.5)
    if "turns" in d.factors:
        assert (d.factors["turns"] > 0).double().mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("make", "fit", "cyclic"), [(signals.waves, signals.fit_waves, "phase"),
                                                     (signals.spirals, signals.fit_spirals, "angle")])
def test_parameters_come_back(make, fit, cyclic):
    """Of clean signals to 1e-6; of noisy ones to what the noise allows, which leaves no less than itself."""
    d = make(80, seed=2)
    clean = fit(d.pixels)
    assert clean.residual.max() < 1e-6  # float32 rounds the signals
    for name, wanted in d.factors.items():
        off = clean.factors[name] - wanted
        assert ((off + 0.5) % 1 - 0.5 if name == cyclic else off).abs().max() < 1e-6, name
    noise = 0.02 * torch.randn(d.pixels.shape, generator=torch.Generator().manual_seed(0))
    noisy = fit(d.pixels + noise)
    assert (noisy.residual <= noise.square().mean((1, 2)).sqrt() + 1e-6).double().mean() > 0.97  # it found nothing worse than the truth
    scale = next(name for name in d.factors if name in ("r", "radius"))
    assert (noisy.factors[scale] - d.factors[scale]).abs().median() < 0.02


def test_what_is_no_wave_leaves_a_residual():
    backwards = signals.waves(20).pixels.flip(2)
    assert signals.fit_waves(backwards).residual.min() > 0.01  # P, Q, R, S, T come in their order


# ---------------------------------------------------------------------------------------------------- network

def with_random_weights(config, seed=0):
    model, generator = UNet(config).eval(), torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
    return model


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("preset", ["wave", "path"])
def test_presets_for_signals(preset):
    config, t = PRESETS[preset], torch.tensor([3, 871])
    x = noise(2, *config.shape)
    assert (UNet(config)(x, t) == 0).all()
    eps = with_random_weights(config)(x, t)
    assert eps.shape == x.shape and eps.is_contiguous() and eps.std() > 0.1
    assert UNetConfig(**json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 8, 1), (3, 1, 6)])
def test_upsample_is_repeat_then_convolve(shape):
    """Values and all three gradients, against the two operations that it does as one."""
    up = Upsample(shape[1], dimensions=1).double()
    torch.nn.init.normal_(up.conv.weight), torch.nn.init.normal_(up.conv.bias)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    wanted = up.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
    weights, inputs = torch.randn_like(wanted), (x, up.conv.weight, up.conv.bias)
    torch.testing.assert_close(up(x), wanted)
    for ours, theirs in zip(torch.autograd.grad((weights * up(x)).sum(), inputs), torch.autograd.grad((weights * wanted).sum(), inputs),
                            strict=True):
        torch.testing.assert_close(ours, theirs)


def test_downsample_by_hand():
    down = Downsample(2, dimensions=1)
    x = noise(1, 2, 8)
    padded = torch.cat([x, torch.zeros(1, 2, 1)], dim=2)
    wanted = torch.stack([(down.conv.weight * padded[0, :, 2 * i:2 * i + 3]).sum((1, 2)) + down.conv.bias for i in range(4)], dim=1)
    torch.testing.assert_close(down(x)[0], wanted)


def test_attention_over_length_by_hand():
    attention, x = Attention(8, 4), noise(2, 8, 5)
    h = F.group_norm(x, 4, attention.group_norm.weight, attention.group_norm.bias, 1e-6).transpose(1, 2)  # (2, 5, 8)
    q, k, v = attention.to_q(h), attention.to_k(h), attention.to_v(h)
    mixed = torch.softmax(q @ k.transpose(1, 2) / 8**0.5, dim=2) @ v
    torch.testing.assert_close(attention(x), x + attention.to_out[0](mixed).transpose(1, 2))


def test_a_signal_is_a_picture_of_one_row_to_the_blocks():
    """The 2-D network with kernels that look along the row only, and nothing above or below: one level, hence no row to halve."""
    narrow = replace(SMALL, channels=(8,), attention_levels=(0,), image_size=6)
    line = with_random_weights(narrow)
    flat = UNet(replace(narrow, dimensions=2)).eval()
    tensors = {}
    for name, value in flat.state_dict().items():
        ours = line.state_dict()[name]
        wide = torch.zeros_like(value)
        if value.ndim == 4:
            wide[:, :, value.shape[2] // 2] = ours
        tensors[name] = wide if value.ndim == 4 else ours
    flat.load_state_dict(tensors)
    x, t = noise(2, 1, 6), torch.tensor([5, 700])
    picture = x[:, :, None].expand(-1, -1, 6, -1)  # six equal rows: every mean over rows is the row's
    torch.testing.assert_close(flat(picture, t), line(x, t)[:, :, None].expand(-1, -1, 6, -1), rtol=1e-4, atol=1e-5)


def test_every_parameter_learns():
    model = with_random_weights(SMALL)
    model(noise(2, 1, 16), torch.tensor([1, 500])).square().mean().backward()
    still = {name for name, p in model.named_parameters() if p.grad.abs().max() < 1e-6}
    assert all(name.endswith("to_k.bias") for name in still)  # softmax takes these out


def test_wrong_shapes_and_diffusers():
    with pytest.raises(ValueError, match=r"\(B, 1, 16\), not .*\(2, 1, 16, 16\)"):
        UNet(SMALL)(torch.zeros(2, 1, 16, 16), torch.zeros(2))
    with pytest.raises(ValueError, match=r"UNet2DModel is for pictures; this network is for signals \(1, 16\)"):
        importlib.import_module("s2dm_mini.interop").to_diffusers(UNet(SMALL))


def test_checkpoints_with_and_without_the_field(tmp_path):
    model = with_random_weights(SMALL)
    save_model(tmp_path / "s.safetensors", model, {}, torch.float32)
    back, _ = load_model(tmp_path / "s.safetensors")
    x, t = noise(2, 1, 16), torch.tensor([3, 800])
    assert back.config == SMALL and back(x, t).equal(model(x, t))
    old = PRESETS["tiny"].to_dict()
    del old["dimensions"]  # as files from before it have it
    assert UNetConfig(**old) == PRESETS["tiny"] and PRESETS["tiny"].shape == (3, 16, 16)


# --------------------------------------------------------------------------------------------------- training

def test_signals_are_trained_on_as_they_are(small, monkeypatch):
    """No flip, no scaling: what the loss sees are the waves themselves; pictures are still mirrored."""
    seen, real = [], training.s2dm_loss

    def watched(network, x0, *rest):
        seen.append(x0)
        return real(network, x0, *rest)

    monkeypatch.setattr(training, "s2dm_loss", watched)
    last(train(BASE, small))
    known = {tuple(x.flatten().tolist()) for x in small.pixels}
    assert len(seen) == 6 and all(tuple(x.flatten().tolist()) in known for x0 in seen for x in x0)
    assert not any(tuple(x.flip(1).flatten().tolist()) in known for x in seen[0])  # a flip would have shown


def test_a_resumed_run_is_the_uninterrupted_run(small, tmp_path):
    whole, parts = (replace(BASE, out=tmp_path / name) for name in ("whole", "parts"))
    last(train(whole, small))
    last(train(replace(parts, steps=3), small))
    last(train(parts, small, resume=True))
    ours, theirs = (read_tensors(config.out / "state.safetensors")[0] for config in (parts, whole))
    assert set(ours) == set(theirs) and all(ours[name].equal(theirs[name]) for name in ours)


def test_training_lowers_the_loss_and_samples_are_signals(small):
    losses = [record.loss for record in train(replace(BASE, steps=60, tau=1.0, log_every=20), small)]
    assert losses[2] < losses[1] < losses[0]
    network = with_random_weights(SMALL)
    shrunk = Shrunk(network, shrinkage(NoiseSchedule.linear(), 49, 0.9))
    x_T = noise(3, 1, 16)
    for sampler in ("ddim", "f-pndm", "tab-deis-3", "dpm-solver++"):
        with torch.inference_mode():
            x, other = (sample(denoiser, x_T, NoiseSchedule.linear(), sampler, 8) for denoiser in (network, shrunk))
        assert x.shape == (3, 1, 16) and x.isfinite().all() and not x.equal(other)


@pytest.mark.parametrize(("data", "preset", "said"), [
    ("waves", "nano", "nano takes x of 3×32×32, which waves are not; presets for waves: wave"),
    ("shapes", "wave", "wave takes x of 1×16, which shapes are not; presets for shapes: tiny, nano"),
    ("waves", "path", "path takes x of 2×64, which waves are not"),
])
def test_data_that_do_not_fit_the_preset(small, data, preset, said):
    with pytest.raises(ValueError, match=said):
        next(train(replace(BASE, data=data, preset=preset)))


def test_named_data_are_loaded_at_the_networks_length(monkeypatch):
    monkeypatch.setattr(signals, "waves", lambda n, length: small_set(n, length))
    asked = []

    def small_set(n, length):
        asked.append((n, length))
        return signals.Signals("w", torch.zeros(40, 1, length), torch.zeros(40, dtype=torch.int64), ("w",))

    monkeypatch.setitem(PRESETS, "wave", SMALL)
    last(train(replace(BASE, steps=1)))
    assert asked == [(20_000, 16)]


# --------------------------------------------------------------------------------------------------- measures

def test_power_spectrum_by_hand():
    x = noise(4, 2, 10).double()
    angle = -2 * math.pi * np.outer(np.arange(6), np.arange(10)) / 10
    by_hand = (np.abs(np.einsum("ncl,kl->nck", x.numpy(), np.exp(1j * angle))) ** 2).mean((0, 1)) / 10
    np.testing.assert_allclose(power_spectrum(x).numpy(), by_hand, rtol=1e-10)
    assert spectrum_distance(10 * x, x) == pytest.approx(20) and spectrum_distance(x, x) == 0  # ten times as high is 20 dB everywhere


def test_direction_distance_by_hand():
    """Two values a signal, independent: the directions are the axes, turned by 45° they are not."""
    real = noise(4_000, 1, 2).double() * torch.tensor([2.0, 0.5])
    assert direction_distance(1.5 * real, real) == pytest.approx(0.25 * real.var(0).sum().item())
    turn = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64) / 2**0.5
    assert direction_distance(1.5 * real @ turn, real @ turn) == pytest.approx(0.25 * real.var(0).sum().item())


def test_measures_of_the_data_itself_and_of_spoilt_ones():
    real = signals.waves(1_000, seed=1)
    good = measures(signals.waves(100, seed=5).pixels, real)
    spoilt = signals.waves(100, seed=5)
    bad = measures(0.8 * spoilt.pixels + 0.03 * noise(100, 1, 64), real)
    assert all(bad[name] > good[name] for name in ("distance", "spectrum", "residual", "r"))
    assert good["residual"] < 1e-6 and bad["residual"] == pytest.approx(0.03, rel=0.15)
    assert bad["r"] == pytest.approx(0.2 * 0.8, abs=0.03)  # the mean of r is 0.8, a fifth of it is gone


def test_comparing_writes_a_row_for_each_setting(small, zoo, tmp_path, monkeypatch):
    monkeypatch.setattr("s2dm_mini.data.signals.waves", lambda n, length=16, seed=0: waves(min(n, 64), 16, seed))
    save_model(tmp_path / "w.safetensors", UNet(SMALL), {"config": {"data": "waves"}})
    add_to_zoo(tmp_path / "w.safetensors", "wave-waves-l0")
    rows = compare_signals(3, ("s2dm50-tau0.9",), images=128, samples=20, steps=(2, 3), device="cpu", table=tmp_path / "t.csv")
    assert [(r["setting"], r["how"], r["steps"]) for r in rows] == [
        (setting, how, n) for setting, how in (("l0", "trained"), ("s2dm50-tau0.9", "trained"), ("s2dm50-tau0.9", "closed form"))
        for n in (2, 3)]
    assert len({r["distance"] for r in rows}) == 6 and len(read_rows(tmp_path / "t.csv")) == 6


waves = signals.waves


def test_the_gaussian_of_waves():
    """Its eigenvalues add up to the variance of the data: what predictions rest on takes signals as they are."""
    x = signals.waves(400).pixels
    exact = GaussianDenoiser.fit(x, NoiseSchedule.linear())
    assert exact.eigenvalues.sum() == pytest.approx(x.double().var(0).sum().item(), rel=1e-6)
    assert exact(x[:2], torch.tensor([5, 900])).shape == (2, 1, 64)


# ----------------------------------------------------------------------------------------------- sample, evaluate

def test_sampling_draws_curves_and_evaluating_says_a_sentence(tmp_path):
    file = str(tmp_path / "w.safetensors")
    save_model(file, with_random_weights(SMALL), {"config": {"T": 1000, "data": "waves"}, "data": "waves16"})
    said = samples_picture(file, tmp_path / "w.png", n=5, steps=2, device="cpu")
    assert said.startswith("5 signals, DDIM, 2 steps, 2 network evaluations each") and (tmp_path / "w.png").read_bytes()[1:4] == b"PNG"
    with pytest.raises(ValueError, match="makes signals, and the features .* are of pictures; notebook 11 measures signals"):
        evaluate(file, device="cpu", samples=4, table=tmp_path / "t.csv")


def test_signal_grid():
    for x in (noise(5, 1, 16), noise(5, 2, 16)):
        figure = signal_grid(x, columns=3, column_labels=["a", "b", "c"], row_labels=["d", "e"])
        assert len(figure.axes[0].lines) == 5 * x.shape[1]
    with pytest.raises(ValueError, match=r"\(N, 1, L\) or \(N, 2, L\).*not \(5, 3, 16\)"):
        signal_grid(noise(5, 3, 16))
