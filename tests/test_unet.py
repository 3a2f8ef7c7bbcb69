"""The network: its five sizes, and diffusers' UNet2DModel as the second opinion."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from s2dm_mini import NoiseSchedule, for_sampling, sample
from s2dm_mini.denoisers import NO_LABEL
from s2dm_mini.unet import PRESETS, UNet, UNetConfig, Upsample, timestep_embedding

PARAMETERS = {"tiny": 280_755, "nano": 1_525_411, "compact": 7_238_563, "paper": 35_746_307, "paper64": 78_700_803}
SMALL = UNetConfig(image_size=8, channels=(8, 16), blocks_per_level=1, attention_levels=(1,), norm_groups=4, dropout=0.0)


def diffusers_twin(config):
    """The same architecture, as diffusers' configuration spells it."""
    from diffusers import UNet2DModel

    attends = [i in config.attention_levels for i in range(len(config.channels))]
    return UNet2DModel(
        sample_size=config.image_size, in_channels=config.image_channels, out_channels=config.image_channels,
        block_out_channels=config.channels, layers_per_block=config.blocks_per_level, dropout=config.dropout,
        down_block_types=["AttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        up_block_types=["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        freq_shift=1, flip_sin_to_cos=False, downsample_padding=0, attention_head_dim=None,
        norm_num_groups=config.norm_groups, norm_eps=1e-6, num_class_embeds=config.classes + 1 if config.classes else None)


def with_random_weights(config, seed=0):
    """A network that predicts something: fresh ones answer 0."""
    model, generator = UNet(config).eval(), torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
    return model.requires_grad_(False)


def batch(config, n=2, seed=1):
    size = config.image_size
    return torch.randn(n, config.image_channels, size, size, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------------------------------- presets

@pytest.mark.parametrize("preset", PARAMETERS)
def test_presets_are_diffusers_networks_parameter_for_parameter(preset):
    with torch.device("meta"):  # shapes alone, no memory
        ours, theirs = UNet(PRESETS[preset]), diffusers_twin(PRESETS[preset])
    shapes = [{name: v.shape for name, v in model.state_dict().items()} for model in (ours, theirs)]
    norms = [{name: (m.num_groups, m.eps) for name, m in model.named_modules() if isinstance(m, torch.nn.GroupNorm)}
             for model in (ours, theirs)]
    assert shapes[0] == shapes[1] and norms[0] == norms[1]
    assert sum(p.numel() for p in ours.parameters()) == PARAMETERS[preset]


@pytest.mark.parametrize("config", [
    *(pytest.param(PRESETS[name], id=name) for name in ("tiny", "nano", "compact", "paper")),
    pytest.param(SMALL, id="small"),
    pytest.param(replace(SMALL, image_channels=1, blocks_per_level=3, attention_levels=()), id="grey, no attention"),
    pytest.param(replace(SMALL, channels=(8,), attention_levels=(0,)), id="one level"),
])
def test_forward_is_that_of_diffusers(config):
    ours, theirs = with_random_weights(config), diffusers_twin(config).eval()
    theirs.load_state_dict(ours.state_dict())
    x, t = batch(config), torch.tensor([3, 871])
    with torch.no_grad():
        eps, wanted = ours(x, t), theirs(x, t).sample
    assert wanted.std() > 0.1
    torch.testing.assert_close(eps, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("preset", "gflop"), [("tiny", 0.03), ("nano", 0.5)])
def test_cost_of_the_small_presets(preset, gflop):
    config = PRESETS[preset]
    with FlopCounterMode(display=False) as counter:
        UNet(config)(batch(config, 1), torch.zeros(1))
    assert counter.get_total_flops() / 1e9 == pytest.approx(gflop, rel=0.2)


def test_paper_preset_is_the_released_setting():
    config = PRESETS["paper"]
    assert (config.channels, config.blocks_per_level, config.dropout) == ((128, 256, 256, 256), 2, 0.1)
    assert [config.image_size // 2**level for level in config.attention_levels] == [16]
    celeba = PRESETS["paper64"]
    assert (celeba.image_size, celeba.channels) == (64, (128, 256, 256, 256, 512))
    assert [celeba.image_size // 2**level for level in celeba.attention_levels] == [16]


# -------------------------------------------------------------------------------------------------- behaviour

def test_a_fresh_network_predicts_nothing():
    model = UNet(SMALL)
    assert (model(batch(SMALL), torch.tensor([0, 999])) == 0).all()


def test_timestep_embedding():
    t = torch.tensor([0.0, 1.0, 42.5, 999.0])
    for dim in (4, 32, 128):
        frequency = np.array([10_000 ** (-i / (dim // 2 - 1)) for i in range(dim // 2)])
        angle = t.double().numpy()[:, None] * frequency
        wanted = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
        np.testing.assert_allclose(timestep_embedding(t, dim).numpy(), wanted, atol=1e-4)  # float32: 999 keeps 4 decimals
    assert timestep_embedding(torch.tensor([7]), 4).equal(timestep_embedding(torch.tensor([7.0]), 4))


def test_whole_and_float_timesteps_agree_and_matter():
    model, x = with_random_weights(SMALL), batch(SMALL)
    eps = model(x, torch.tensor([5, 900]))
    assert eps.equal(model(x, torch.tensor([5.0, 900.0])))
    assert (eps - model(x, torch.tensor([6, 800]))).abs().max() > 1e-3


def test_images_of_a_batch_do_not_meet():
    model, x, t = with_random_weights(SMALL), batch(SMALL, 5), torch.tensor([0, 10, 200, 600, 999])
    alone = torch.cat([model(x[i:i + 1], t[i:i + 1]) for i in range(5)])
    torch.testing.assert_close(model(x, t), alone, rtol=1e-5, atol=1e-5)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(model(x[order], t[order]), alone[order], rtol=1e-5, atol=1e-5)


def test_eps_is_like_x():
    model = with_random_weights(SMALL)
    for dtype in (torch.float32, torch.float64, torch.float16):
        eps = model(batch(SMALL).to(dtype), torch.tensor([1, 2]))
        assert eps.dtype == dtype and eps.is_contiguous()
    assert model(batch(SMALL, 0), torch.zeros(0)).shape == (0, 3, 8, 8)


def test_every_parameter_learns():
    model = with_random_weights(SMALL).requires_grad_(True)
    model(batch(SMALL), torch.tensor([1, 500])).square().mean().backward()
    # A key's bias adds the same to every position's score, which softmax takes out again.
    still = {name for name, p in model.named_parameters() if p.grad.abs().max() < 1e-6}
    assert all(name.endswith("to_k.bias") for name in still)


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 8, 1, 1), (3, 1, 2, 7)])
def test_upsample_is_repeat_then_convolve(shape):
    """Values and all three gradients, against the two operations that it does as one."""
    up = Upsample(shape[1]).double()
    torch.nn.init.normal_(up.conv.weight), torch.nn.init.normal_(up.conv.bias)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    wanted = up.conv(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    weights = torch.randn_like(wanted)
    torch.testing.assert_close(up(x), wanted)
    inputs = (x, up.conv.weight, up.conv.bias)
    for ours, theirs in zip(torch.autograd.grad((weights * up(x)).sum(), inputs), torch.autograd.grad((weights * wanted).sum(), inputs),
                            strict=True):
        torch.testing.assert_close(ours, theirs)


def test_for_sampling_is_a_copy_that_answers_alike():
    model, x, t = with_random_weights(replace(SMALL, dropout=0.5)).train(), batch(SMALL), torch.tensor([7, 600])
    denoiser = for_sampling(model)
    assert denoiser(x, t).equal(denoiser(x, t)) and denoiser(x, t).equal(model.eval()(x, t))  # without dropout
    before = denoiser(x, t)
    model.conv_in.weight.zero_()
    assert denoiser(x, t).equal(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="bf16 and CUDA graphs need a GPU")
@pytest.mark.parametrize("sampler", ["ddim", "plms"])  # plms looks back at earlier answers of the network
def test_for_sampling_on_a_gpu(sampler):
    model, x = with_random_weights(SMALL).cuda(), batch(SMALL).cuda()
    denoiser = for_sampling(model)
    for noise in (x, -x):  # the second walk replays what the first one recorded
        ours, wanted = (sample(network, noise, NoiseSchedule.linear(), sampler, 10) for network in (denoiser, model))
        assert ours.dtype == torch.float32 and (ours - wanted).abs().mean() < 0.05 * wanted.abs().mean()


def test_dropout_only_while_training():
    model = with_random_weights(replace(SMALL, dropout=0.5))
    x, t = batch(SMALL), torch.tensor([1, 500])
    assert model(x, t).equal(model(x, t))
    assert not model.train()(x, t).equal(model(x, t))


# ----------------------------------------------------------------------------------------------------- errors

@pytest.mark.parametrize(("x", "t", "said"), [
    ((2, 3, 16, 16), (2,), r"\(B, 3, 8, 8\), not .*\(2, 3, 16, 16\)"),
    ((2, 1, 8, 8), (2,), r"\(B, 3, 8, 8\), not .*\(2, 1, 8, 8\)"),
    ((3, 8, 8), (3,), r"\(B, 3, 8, 8\), not .*\(3, 8, 8\)"),
    ((2, 3, 8, 8), (3,), r"one timestep an image, \(2,\), not .*\(3,\)"),
    ((2, 3, 8, 8), (), r"an image, \(2,\), not .*\(\)"),
])
def test_wrong_shapes(x, t, said):
    with pytest.raises(ValueError, match=said):
        UNet(SMALL)(torch.zeros(x), torch.zeros(t))


@pytest.mark.parametrize(("change", "said"), [
    ({"channels": ()}, r"channels must be 1 to 8 widths in 1\.\.4096, not \(\)"),
    ({"channels": (32, 0)}, r"widths in 1\.\.4096, not \(32, 0\)"),
    ({"channels": (32, 48)}, r"multiples of norm_groups = 32, not \(32, 48\)"),
    ({"channels": (9, 9), "norm_groups": 3}, r"even and at least 4 .* not \(9, 9\)"),
    ({"channels": (2, 2), "norm_groups": 2}, r"even and at least 4 .* not \(2, 2\)"),
    ({"norm_groups": 0}, "norm_groups must be at least 1, not 0"),
    ({"image_channels": 0}, r"image_channels must be in 1\.\.4096, not 0"),
    ({"image_size": 0}, r"image_size must be in 1\.\.4096, not 0"),
    ({"dimensions": 3}, r"must be 1 \(signals\) or 2 \(pictures\), not 3"),
    ({"image_size": 36}, "image_size must be a multiple of 8, .* not 36"),
    ({"attention_levels": (1, 4)}, r"levels in 0\.\.3, not \(1, 4\)"),
    ({"attention_levels": (-1,)}, r"levels in 0\.\.3, not \(-1,\)"),
    ({"blocks_per_level": 0}, r"blocks_per_level must be in 1\.\.16, not 0"),
    ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1\.0"),
])
def test_impossible_configurations(change, said):
    with pytest.raises(ValueError, match=said):
        UNetConfig(**change)


def test_configuration_survives_json():
    import json

    for config in PRESETS.values():
        assert UNetConfig(**json.loads(json.dumps(config.to_dict()))) == config


# ----------------------------------------------------------------------------------------------------- labels

LABELLED = replace(SMALL, classes=3)


@torch.no_grad()
def test_labels_are_those_of_diffusers():
    ours, theirs = with_random_weights(LABELLED), diffusers_twin(LABELLED).eval()
    theirs.load_state_dict(ours.state_dict())
    x, t = batch(LABELLED, 4), torch.tensor([3, 500, 500, 871])
    for label, row in (([0, 2, 1, 0], [0, 2, 1, 0]), ([1, -1, -1, 2], [1, 3, 3, 2])):
        wanted = theirs(x, t, class_labels=torch.tensor(row)).sample
        torch.testing.assert_close(ours(x, t, torch.tensor(label)), wanted, rtol=1e-5, atol=1e-5)
    assert ours(x, t).equal(ours(x, t, torch.full((4,), NO_LABEL)))
    assert all((ours(x, t, torch.full((4,), k)) - ours(x, t)).abs().amax((1, 2, 3)).min() > 1e-3 for k in range(3))
    assert for_sampling(ours)(x, t, torch.tensor([0, 2, 1, 0])).equal(ours(x, t, torch.tensor([0, 2, 1, 0])))


@torch.no_grad()
def test_a_network_that_is_given_classes_computes_as_before_without_a_label():
    model, x, t = with_random_weights(SMALL), batch(SMALL), torch.tensor([5, 900])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(0)
    taught = model.with_classes(3)
    assert taught.config == LABELLED and taught(x, t).equal(model(x, t)) and taught.training == model.training
    rows = taught.class_embedding.weight
    assert (rows[3] == 0).all() and 0.2 < rows[:3].std() < 0.4 and len({tuple(row.tolist()) for row in rows}) == 4
    for parameter in taught.parameters():
        assert parameter.requires_grad
        parameter.fill_(0.1)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())  # a copy, not the same memory


def test_labels_that_are_refused():
    x, t = batch(SMALL), torch.tensor([5, 900])
    with pytest.raises(ValueError, match="made without classes, so it takes no label"):
        UNet(SMALL)(x, t, torch.tensor([0, 1]))
    for label in ([0, 3], [-2, 0]):
        with pytest.raises(ValueError, match=r"labels must be 0\.\.2, or -1 for none"):
            UNet(LABELLED)(x, t, torch.tensor(label))
    with pytest.raises(ValueError, match=r"label must hold one int64 number an image, \(2,\), not .* \(1,\)"):
        UNet(LABELLED)(x, t, torch.tensor([0]))
    with pytest.raises(ValueError, match="classes must be at least 0, not -1"):
        replace(SMALL, classes=-1)
