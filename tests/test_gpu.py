"""What only a GPU can show: it draws what the CPU draws, never makes the host wait, records graphs, and resumes a training."""
from dataclasses import replace
from itertools import islice

import pytest
import torch

from s2dm_mini import (
    SAMPLERS,
    GaussianDenoiser,
    MixtureDenoiser,
    NoiseSchedule,
    Shrunk,
    for_sampling,
    s2dm_loss,
    sample,
    shapes,
    shrinkage,
    trajectory,
)
from s2dm_mini.data.points import RING_STD, ring_means
from s2dm_mini.latents import interpolate, invert
from s2dm_mini.theory.gaussian import gaussian_ddim_variance
from s2dm_mini.theory.scales import relative_scale
from s2dm_mini.training.config import TrainConfig
from s2dm_mini.training.loop import train
from s2dm_mini.unet import PRESETS, UNet, UNetConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here, and these tests compare one with the CPU")
SCHEDULE = NoiseSchedule.linear()
SMALL = UNetConfig(image_size=8, channels=(8, 16), blocks_per_level=1, attention_levels=(1,), norm_groups=4, dropout=0.0)
DETERMINISTIC = [name for name, sampler in SAMPLERS.items() if sampler.deterministic]


def noise(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def network():
    """One that predicts something: fresh ones answer 0."""
    model, generator = UNet(SMALL).eval().requires_grad_(False), torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
    return model


@pytest.fixture
def plain_float32():
    """Convolutions in float32 proper: cuDNN's own choice, TF32, keeps three digits."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


# --------------------------------------------------------------------------------------------------- CPU and GPU

@pytest.mark.parametrize("name", DETERMINISTIC)
def test_samples_of_an_exact_denoiser_agree(name):
    """In float64; the schedule may stay where it is, or be on the GPU too."""
    ring, x_T = MixtureDenoiser(ring_means(), RING_STD, SCHEDULE), noise(64, 2, dtype=torch.float64)
    wanted = sample(ring, x_T, SCHEDULE, name, 10)
    for schedule in (SCHEDULE, SCHEDULE.to("cuda")):
        drawn = sample(MixtureDenoiser(ring_means(), RING_STD, schedule), x_T.cuda(), schedule, name, 10)
        assert drawn.device.type == "cuda" and drawn.dtype == torch.float64
        torch.testing.assert_close(drawn.cpu(), wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_samples_of_a_network_agree(name, plain_float32):
    x_T = noise(4, 3, 8, 8)
    wanted = sample(network(), x_T, SCHEDULE, name, 10)
    drawn = sample(network().cuda(), x_T.cuda(), SCHEDULE, name, 10).cpu()
    assert (drawn - wanted).abs().max() < 1e-3 * wanted.abs().max()


def test_inversion_agrees(plain_float32):
    x0 = noise(4, 3, 8, 8).clamp(-1, 1)
    wanted = invert(network(), x0, SCHEDULE, 10, refinements=2)
    assert (invert(network().cuda(), x0.cuda(), SCHEDULE, 10, refinements=2).cpu() - wanted).abs().max() < 1e-3 * wanted.abs().max()


@pytest.mark.parametrize("reading", ["independent", "expected", "shared", "output"])
def test_losses_agree(reading, monkeypatch, plain_float32):
    """Under the same ε: the two devices' generators differ, so that it is handed in."""
    eps, x0, t = noise(8, 3, 8, 8), noise(8, 3, 8, 8).tanh(), torch.tensor([0, 8, 9, 48, 49, 300, 600, 999])
    model = network()
    monkeypatch.setattr(torch, "randn", lambda shape, generator=None, device=None, dtype=None: eps.to(device))
    wanted = s2dm_loss(model, x0, t, SCHEDULE, 49, 0.9, reading)
    ours = s2dm_loss(model.cuda(), x0.cuda(), t.cuda(), SCHEDULE.to("cuda"), 49, 0.9, reading)
    torch.testing.assert_close(ours.cpu(), wanted, rtol=1e-3, atol=1e-4)


def test_shrinkage_stays_with_the_schedule():
    s = shrinkage(SCHEDULE.to("cuda"), 49, 0.9)
    assert s.device.type == "cuda"
    torch.testing.assert_close(s.cpu(), shrinkage(SCHEDULE, 49, 0.9), rtol=1e-12, atol=0)


def test_theory_and_ways_with_a_schedule_on_the_gpu():
    there, grid, x0 = SCHEDULE.to("cuda"), SCHEDULE.timesteps(10, "logsnr"), noise(16, 3).double()
    assert there.timesteps(10, "logsnr").tolist() == grid.tolist()
    torch.testing.assert_close(gaussian_ddim_variance(0.25, there, grid).cpu(), gaussian_ddim_variance(0.25, SCHEDULE, grid))
    full = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.1], [0.0, 0.1, 0.3]])
    gaussian, t = GaussianDenoiser(torch.zeros(3), full, SCHEDULE), torch.full((16,), 300)
    torch.testing.assert_close(gaussian(x0.cuda(), t.cuda()).cpu(), gaussian(x0, t), rtol=1e-10, atol=1e-12)
    assert relative_scale(Shrunk(gaussian, 0.7), gaussian, x0.cuda(), 300, there, torch.Generator("cuda")) == pytest.approx(0.7)
    torch.testing.assert_close(interpolate(x0[0].cuda(), x0[1].cuda(), 5).cpu(), interpolate(x0[0], x0[1], 5))


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in DETERMINISTIC])
def test_a_seed_on_the_gpu_decides_the_sample(name):
    ring, x_T = MixtureDenoiser(ring_means(), RING_STD, SCHEDULE), noise(16, 2).cuda()
    first, again, other = (sample(ring, x_T, SCHEDULE, name, 5, generator=torch.Generator("cuda").manual_seed(s)) for s in (1, 1, 2))
    assert first.equal(again) and not first.equal(other)


# -------------------------------------------------------------------------------------------- speed's preconditions

@pytest.mark.parametrize("name", SAMPLERS)
def test_no_step_makes_the_host_wait(name):
    model, x_T = network().cuda(), noise(4, 3, 8, 8).cuda()
    sample(model, x_T, SCHEDULE, name, 5)  # cuDNN and the tables of coefficients are set up
    walk = trajectory(model, x_T, SCHEDULE, name, 5, generator=torch.Generator("cuda"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(islice(walk, 5))) == 5
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert next(walk, None) is None  # now it looks whether all was finite


def test_what_is_not_finite_is_reported_after_the_last_step():
    walk = trajectory(lambda x, t: x * torch.where(t[:, None] < 500, torch.nan, 0.1), noise(4, 2).cuda(), SCHEDULE, steps=10)
    assert len(list(islice(walk, 10))) == 10
    with pytest.raises(ValueError, match="at t = 400, in step 6 of 10, the denoiser returned NaN"):
        next(walk)


def test_an_inversion_that_is_not_finite_is_reported_at_its_end():
    with pytest.raises(ValueError, match="left the finite numbers at t = 900"):
        invert(lambda x, t: x * torch.where(t[:, None] > 400, torch.inf, 0.1), noise(4, 2).cuda(), SCHEDULE, 10)


def test_for_sampling_records_a_graph_and_replays_it():
    """Answers in fp16 lie near float32's; the same input gives the same bits again, and an earlier answer is not written over."""
    model = network().cuda()
    denoiser, t = for_sampling(model), torch.full((4,), 500, device="cuda")
    x = noise(4, 3, 8, 8).cuda()
    with torch.inference_mode():
        first = denoiser(x, t)
        kept = first.clone()
        for other in (-x, 2 * x, -x):
            denoiser(other, t)
        assert first.equal(kept) and denoiser(x, t).equal(kept)
        wanted = model(x, t)
    assert first.dtype == torch.float32 and (first - wanted).abs().mean() < 0.003 * wanted.abs().mean()


# ------------------------------------------------------------------------------------------------------- training

@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_goes_on_where_it_stopped(precision, monkeypatch, tmp_path):
    """Sums on a GPU may run in another order each time, so that the two agree to some digits, not to the bit as on a CPU."""
    monkeypatch.setitem(PRESETS, "tiny", SMALL)
    images = shapes(28, size=8)
    config = TrainConfig(data="shapes", preset="tiny", batch=8, warmup=2, learning_rate=1e-3, steps=8, log_every=4, save_minutes=1e9,
                         device="cuda", precision=precision)
    *_, whole = train(replace(config, out=tmp_path / "whole"), images)
    parts = replace(config, out=tmp_path / "parts")
    list(train(replace(parts, steps=4), images))
    *_, resumed = train(parts, images, resume=True)
    assert resumed.step == whole.step == 8
    assert resumed.loss == pytest.approx(whole.loss, rel=1e-3 if precision == "fp32" else 1e-2)
    for ours, wanted in zip(resumed.ema.parameters(), whole.ema.parameters(), strict=True):
        assert (ours - wanted).abs().max() < 1e-3


def test_a_recorded_step_trains_alike(monkeypatch, plain_float32):
    """One CUDA graph for all gradients of a step, three steps of warm-up and three repeats; dropout and labels to draw."""
    monkeypatch.setitem(PRESETS, "tiny", replace(SMALL, dropout=0.1))
    config = TrainConfig(data="shapes", preset="tiny", batch=8, warmup=2, learning_rate=1e-3, steps=6, log_every=6, label_dropout=0.1,
                         device="cuda", precision="fp32")
    [plain], [recorded] = (list(train(replace(config, record_step=on), shapes(28, size=8))) for on in (False, True))
    assert recorded.loss == pytest.approx(plain.loss, rel=1e-3)
    for ours, wanted in zip(recorded.ema.parameters(), plain.ema.parameters(), strict=True):
        assert (ours - wanted).abs().max() < 1e-3


def test_gradients_are_those_of_the_cpu(monkeypatch, plain_float32):
    weights, eps, losses, gradients = network().state_dict(), noise(4, 3, 8, 8), [], []
    monkeypatch.setattr(torch, "randn", lambda shape, generator=None, device=None, dtype=None: eps.to(device))
    for device in ("cpu", "cuda"):
        there = UNet(SMALL).to(device)
        there.load_state_dict(weights)
        loss = s2dm_loss(there, torch.ones(4, 3, 8, 8, device=device), torch.tensor([10, 200, 500, 900], device=device),
                         SCHEDULE.to(device)).mean()
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten().cpu() for p in there.parameters()]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert (gradients[1] - gradients[0]).norm() < 1e-3 * gradients[0].norm()
