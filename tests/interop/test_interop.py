"""diffusers both ways, with networks made on the spot and folders written on the spot: nothing is downloaded."""
import json
import socket

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, PNDMPipeline, PNDMScheduler, UNet2DModel

from s2dm_mini import PRESETS, NoiseSchedule, Shrunk, UNet, UNetConfig, sample
from s2dm_mini.interop import as_denoiser, open_pipeline, save_pipeline, shrink_pipeline, to_diffusers
from s2dm_mini.theory.scales import line

CONFIGS = {
    "tiny": PRESETS["tiny"],
    "grey, attention twice": UNetConfig(image_size=8, image_channels=1, channels=(8, 16), blocks_per_level=2, attention_levels=(0, 1),
                                        norm_groups=4, dropout=0.1),
    "no attention": UNetConfig(image_size=8, channels=(16, 8, 8), blocks_per_level=1, attention_levels=(), norm_groups=8),
}
LABELLED = UNetConfig(image_size=8, channels=(8, 16), blocks_per_level=1, norm_groups=4, dropout=0.1, classes=3)
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a test of interop opened a connection.")
    monkeypatch.setattr(socket.socket, "connect", refuse)


def network(config):
    """A network whose every weight matters."""
    torch.manual_seed(0)
    model = UNet(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model


def inputs(config):
    x = torch.randn(3, config.image_channels, config.image_size, config.image_size, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([0, 423, 999])


@every_config
@torch.no_grad()
def test_to_diffusers(config):
    model, (x, t) = network(config), inputs(config)
    theirs = to_diffusers(model)
    assert isinstance(theirs, UNet2DModel) and not theirs.training
    denoiser = as_denoiser(theirs)
    for time in (t, t + 0.5):
        eps = model(x, time)
        torch.testing.assert_close(denoiser(x, time), eps, rtol=1e-5, atol=1e-5 * eps.abs().max().item())
    model.conv_in.weight.zero_()
    assert theirs.conv_in.weight.abs().max() > 0  # a copy, not the same memory


@every_config
@torch.no_grad()
def test_pipeline_folder(config, tmp_path):
    model, (x, t) = network(config), inputs(config)
    schedule = NoiseSchedule.cosine(200)
    save_pipeline(model, schedule, tmp_path / "pipeline")
    assert not list(tmp_path.rglob("*.bin")) and list(tmp_path.rglob("*.safetensors"))
    opened, its_schedule = open_pipeline(str(tmp_path / "pipeline"))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in opened.model.state_dict().items())
    eps = model(x, t)
    torch.testing.assert_close(opened(x, t), eps, rtol=1e-5, atol=1e-5 * eps.abs().max().item())
    torch.testing.assert_close(its_schedule.alpha_bar, schedule.alpha_bar, rtol=1e-12, atol=0)

    pipeline = DDPMPipeline.from_pretrained(tmp_path / "pipeline")
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(batch_size=2, num_inference_steps=5, generator=torch.Generator().manual_seed(2), output_type="np").images
    generator = torch.Generator().manual_seed(2)
    x_T = torch.randn(2, *x.shape[1:], generator=generator)
    ours = sample(model, x_T, schedule, "ddpm", 5, generator=generator)
    torch.testing.assert_close(torch.from_numpy(images).permute(0, 3, 1, 2), (ours / 2 + 0.5).clamp(0, 1), rtol=0, atol=2e-4)


@torch.no_grad()
def test_labels_travel(tmp_path):
    """Through a folder and back, with the row for no label as the last one there."""
    model, (x, t), label = network(LABELLED), inputs(LABELLED), torch.tensor([2, -1, 0])
    save_pipeline(model, NoiseSchedule.linear(), tmp_path)
    theirs = DDPMPipeline.from_pretrained(tmp_path, use_safetensors=True).unet
    assert theirs.config.num_class_embeds == 4
    eps = model(x, t, label)
    answer = theirs(x, t, class_labels=torch.tensor([2, 3, 0])).sample
    torch.testing.assert_close(answer, eps, rtol=1e-5, atol=1e-5 * eps.abs().max().item())


def test_diffusers_network_in_a_sampler():
    model = network(CONFIGS["tiny"])
    x = inputs(model.config)[0]
    ours = sample(model, x, NoiseSchedule.linear(), "f-pndm", 7)
    theirs = sample(as_denoiser(to_diffusers(model)), x, NoiseSchedule.linear(), "f-pndm", 7)
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4 * ours.abs().max().item())


def test_half_precision_network_answers_in_the_precision_of_x():
    model, (x, t) = to_diffusers(network(CONFIGS["tiny"])).to(torch.bfloat16), inputs(CONFIGS["tiny"])
    assert as_denoiser(model)(x, t).dtype == torch.float32


def their_network(**changed):
    settings = {"sample_size": 8, "block_out_channels": (8, 16), "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
                "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "norm_num_groups": 4, "layers_per_block": 1, "downsample_padding": 0,
                "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6, "attention_head_dim": None}
    return UNet2DModel(**settings | changed)


def test_networks_that_are_no_denoiser():
    with pytest.raises(ValueError, match="takes 3 channels and returns 6"):
        as_denoiser(their_network(out_channels=6))
    with pytest.raises(ValueError, match="class labels"):
        as_denoiser(their_network(num_class_embeds=10))


def test_a_pipeline_is_not_its_network():
    with pytest.raises(ValueError, match=r"model must be a UNet2DModel, such as pipeline\.unet, not a Linear"):
        as_denoiser(torch.nn.Linear(2, 2))


def test_folders_that_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither unet/config.json nor config.json"):
        open_pipeline(str(tmp_path))
    save_pipeline(network(CONFIGS["no attention"]), NoiseSchedule.linear(), tmp_path)
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"prediction_type": "v_prediction"}), encoding="utf-8")
    with pytest.raises(ValueError, match="predicts 'v_prediction'"):
        open_pipeline(str(tmp_path))


def test_schedule_of_a_pipeline_from_elsewhere(tmp_path):
    # No trained_betas there: the schedule has diffusers' name for it, and its float32 values.
    DDPMPipeline(to_diffusers(network(CONFIGS["no attention"])), DDIMScheduler()).save_pretrained(tmp_path)
    _, schedule = open_pipeline(str(tmp_path))
    torch.testing.assert_close(schedule.alpha_bar, NoiseSchedule.linear().alpha_bar, rtol=1e-6, atol=0)


def drawn(pipeline, **options):
    """What a pipeline makes of one noise: pixels (2, C, H, W) in 0..1, float64."""
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(batch_size=2, num_inference_steps=6, generator=torch.Generator().manual_seed(2), output_type="np", **options).images
    return torch.from_numpy(images).permute(0, 3, 1, 2).double()


def mild_network():
    """Its ε is neither 0, as that of a fresh `UNet`, nor so large that all pixels end at 0 or 1."""
    model = network(CONFIGS["no attention"])
    with torch.no_grad():
        model.conv_out.weight.mul_(0.1)
        model.conv_out.bias.mul_(0.1)
    return to_diffusers(model)


def test_a_shrunk_pipeline_draws_what_our_sampler_draws():
    unet = mild_network().double()
    pipeline = DDIMPipeline(unet, DDIMScheduler(beta_end=0.002, clip_sample=False))  # little noise, to stay in range
    scale = line(0.9, 2.0)
    shrunk = shrink_pipeline(pipeline, scale)
    schedule = NoiseSchedule(pipeline.scheduler.alphas_cumprod.double())  # with diffusers' rounding
    x_T = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ours = {name: (sample(d, x_T, schedule, "ddim", 6) / 2 + 0.5).clamp(0, 1)
            for name, d in (("plain", as_denoiser(unet)), ("shrunk", Shrunk(as_denoiser(unet), scale)))}
    assert (ours["plain"] - ours["shrunk"]).abs().max() > 1e-2
    torch.testing.assert_close(drawn(shrunk, eta=0.0), ours["shrunk"], rtol=0, atol=1e-5)
    torch.testing.assert_close(drawn(pipeline, eta=0.0), ours["plain"], rtol=0, atol=1e-5)  # the one shrunk is left as it was
    assert shrunk.unet.config.sample_size == 8 and shrunk.unet.dtype == torch.float64 and shrunk.unet.device == shrunk.device


@pytest.mark.parametrize(("kind", "scheduler"), [(DDPMPipeline, DDPMScheduler(beta_end=0.002, clip_sample=False)),
                                                (PNDMPipeline, PNDMScheduler(beta_end=0.002))])
def test_a_constant_scale_is_the_last_layer_scaled(kind, scheduler):
    unet = mild_network()
    shrunk = drawn(shrink_pipeline(kind(unet, scheduler), 0.8))
    assert (shrunk - drawn(kind(unet, scheduler))).abs().max() > 1e-3
    with torch.no_grad():
        for p in unet.conv_out.parameters():
            p.mul_(0.8)
    torch.testing.assert_close(shrunk, drawn(kind(unet, scheduler)), rtol=0, atol=1e-5)


def test_pipelines_that_cannot_be_shrunk():
    unet = their_network()
    with pytest.raises(ValueError, match="scale has 10 numbers.*T = 1000"):
        shrink_pipeline(DDPMPipeline(unet, DDPMScheduler()), torch.ones(10))
    with pytest.raises(ValueError, match="predicts 'v_prediction'"):
        shrink_pipeline(DDPMPipeline(unet, DDPMScheduler(prediction_type="v_prediction")), 0.9)
    with pytest.raises(ValueError, match="unet is ShrunkUNet2D"):
        shrink_pipeline(shrink_pipeline(DDPMPipeline(unet, DDPMScheduler()), 0.9), 0.9)
