"""Any `UNet2DModel` of diffusers through our training loop and back; pipelines are made on the spot, and nothing is downloaded."""
import importlib
import json
import socket
import sys
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, ScoreSdeVeScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

from s2dm_mini import NoiseSchedule, for_sampling, sample, shapes
from s2dm_mini.__main__ import export
from s2dm_mini.__main__ import train as train_command
from s2dm_mini.checkpoints import CheckpointError, images_seen, load_model, read_tensors, save_model, schedule_of, write_tensors
from s2dm_mini.measure.draw import draw
from s2dm_mini.measure.references import Reference
from s2dm_mini.study.evaluate import evaluate, samples_picture
from s2dm_mini.study.tables import read_rows
from s2dm_mini.support.machine import seed_of
from s2dm_mini.training.config import TrainConfig
from s2dm_mini.training.loop import antithetic_timesteps, train
from s2dm_mini.training.setup import TrainingError

folders = importlib.import_module("s2dm_mini.interop.folders")
interop = importlib.import_module("s2dm_mini.interop")
evaluating = importlib.import_module("s2dm_mini.study.evaluate")

# Attention in two heads, resampling by residual blocks, the time embedding scaling and shifting: nothing of it is in our UNet.
SETTINGS = {"sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 8,
            "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"), "resnet_time_scale_shift": "scale_shift", "dropout": 0.1}
SCHEDULE = {"beta_schedule": "squaredcos_cap_v2"}
BASE = TrainConfig(data="shapes", preset="diffusers", start="set in each test", batch=8, warmup=2, learning_rate=1e-3, skip=49, tau=0.9,
                   steps=5, log_every=1, save_minutes=1e9, device="cpu", precision="fp32")
IMAGES = shapes(28, size=8)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise OSError("there is no network")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def network(**changed):
    torch.manual_seed(0)
    return UNet2DModel(**SETTINGS | changed).eval()


def pipeline(folder, scheduler=None, **changed):
    """A pipeline's folder, as diffusers writes it."""
    scheduler = scheduler or DDPMScheduler(**SCHEDULE)
    DDPMPipeline(unet=network(**changed), scheduler=scheduler).save_pretrained(folder, safe_serialization=True)
    return replace(BASE, start=str(folder))


def last(records):
    *_, record = records
    return record


def edit(path, **changed):
    config = json.loads(path.read_bytes()) | changed
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "gone"}), encoding="utf-8")


X, T = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 423, 999])


# -------------------------------------------------------------------------------------------------------- training

def test_the_first_loss_by_hand(tmp_path):
    """τ = 1 is DDPM's loss: diffusers' own noising and network on the images, t and ε₁ of the seed. τ < 1 is another loss."""
    config = replace(pipeline(tmp_path, dropout=0.0), tau=1.0, steps=1)
    order = torch.randperm(28, generator=torch.Generator().manual_seed(seed_of(0, 1, 0)))[:8]
    generator = torch.Generator().manual_seed(seed_of(0, 0, 0, 0))
    x0 = IMAGES.augment(IMAGES.pixels[order], generator)
    t = antithetic_timesteps(8, 1000, generator)
    eps = torch.randn(x0.shape, generator=generator)
    theirs = DDPMPipeline.from_pretrained(tmp_path, use_safetensors=True)
    with torch.no_grad():
        l_0 = (theirs.unet(theirs.scheduler.add_noise(x0, eps, t), t).sample - eps).square().mean()
    assert last(train(config, IMAGES)).loss == pytest.approx(l_0.item(), rel=1e-5)
    assert last(train(replace(config, tau=0.5), IMAGES)).loss != pytest.approx(l_0.item(), rel=1e-3)


@pytest.mark.slow
def test_it_learns(tmp_path):
    config = replace(pipeline(tmp_path, dropout=0.0), steps=40, log_every=20, learning_rate=5e-3)
    first, second = (record.loss for record in train(config, IMAGES))
    assert second < first and second < 0.68  # a network that has learnt nothing has loss 1


def test_resumed_training_is_the_same_to_the_bit(tmp_path):
    """Dropout included, and after a stop like that of Ctrl-C; a checkpoint is as good a start as a folder."""
    config = pipeline(tmp_path / "pipeline")
    whole = last(train(replace(config, out=tmp_path / "whole"), IMAGES))
    records = train(replace(config, out=tmp_path / "parts"), IMAGES)
    next(records), next(records), records.close()
    last(train(replace(config, out=tmp_path / "parts"), IMAGES, resume=True))
    (ours, header), (theirs, _) = (read_tensors(tmp_path / name / "state.safetensors") for name in ("whole", "parts"))
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)
    start, _ = interop.open_pipeline(tmp_path / "pipeline")
    moved = [not value.equal(ours[f"ema.{name}"]) for name, value in start.state_dict().items()]
    assert all(moved) and header["unet"]["_class_name"] == "UNet2DModel"

    edit(tmp_path / "pipeline" / "scheduler" / "scheduler_config.json", beta_schedule="linear")
    with pytest.raises(TrainingError, match="another noise schedule than the one that .*pipeline has now"):
        next(train(replace(config, out=tmp_path / "parts", steps=9), IMAGES, resume=True))

    again = replace(config, start=str(tmp_path / "whole" / "model.safetensors"), learning_rate=1e-30, steps=1, out=tmp_path / "again")
    record = last(train(again, IMAGES))
    assert all(a.equal(b.half().float()) for a, b in zip(record.ema.parameters(), whole.ema.parameters(), strict=True))
    network, record = load_model(tmp_path / "again" / "model.safetensors")
    assert images_seen(record) == 48 and record["started_from"]["started_from"]["pipeline"] == config.start
    assert network.config.to_dict() == header["unet"]


# ------------------------------------------------------------------------------------- what becomes of the network

def test_the_result_goes_back_to_diffusers(tmp_path):
    """The same ε, and the same pictures from the same noise, by the schedule that the pipeline had."""
    config = replace(pipeline(tmp_path / "pipeline"), out=tmp_path / "run")
    last(train(config, IMAGES))
    assert str(tmp_path / "back") in export(str(tmp_path / "run" / "model.safetensors"), tmp_path / "back")
    assert not list(tmp_path.rglob("*.bin"))
    theirs = DDPMPipeline.from_pretrained(tmp_path / "back", use_safetensors=True)
    theirs.set_progress_bar_config(disable=True)
    network, record = load_model(tmp_path / "run" / "model.safetensors")
    assert interop.as_denoiser(theirs.unet).config == network.config
    with torch.no_grad():
        torch.testing.assert_close(theirs.unet(X, T).sample, network(X, T), rtol=1e-5, atol=1e-5)

    schedule = schedule_of(record)
    wanted = DDPMScheduler(**SCHEDULE).alphas_cumprod.double()
    torch.testing.assert_close(schedule.alpha_bar, wanted, rtol=1e-4, atol=1e-6)
    images = theirs(batch_size=2, num_inference_steps=5, generator=torch.Generator().manual_seed(2), output_type="np").images
    generator = torch.Generator().manual_seed(2)
    ours = sample(network, torch.randn(2, 3, 8, 8, generator=generator), schedule, "ddpm", 5, generator=generator)
    torch.testing.assert_close(torch.from_numpy(images).permute(0, 3, 1, 2), (ours / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-3)

    (tmp_path / "a file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match="a file cannot be written"):
        export(str(tmp_path / "run" / "model.safetensors"), tmp_path / "a file")


class Averages:
    """Cheap features, and a reference of some shapes in them."""

    name, hash = "averages", "0123456789abcdef"

    def __call__(self, pixels):
        return pixels.double().mean((2, 3))


def test_one_command_fine_tunes_and_evaluates(tmp_path, monkeypatch, capsys):
    config = replace(pipeline(tmp_path / "pipeline"), out=tmp_path / "run")
    monkeypatch.setattr(evaluating, "open_features", lambda *_: Averages())
    monkeypatch.setattr(evaluating, "open_reference", lambda name, size, features: Reference.of(
        features(shapes(40, size).pixels)))
    monkeypatch.setattr(evaluating.tables, "RESULTS", tmp_path)
    monkeypatch.setattr(importlib.import_module("s2dm_mini.training.setup"), "load_data", lambda name, size: shapes(28, size))
    train_command(config, evaluate=(2, 3), samples=20)
    said = capsys.readouterr().out
    assert "Trained 5 steps, 40 images" in said and said.count("\naverages ") == 2 * 3
    two, *_, three = read_rows(tmp_path / "evaluations.csv")
    assert (two["steps"], three["steps"], three["preset"], three["images_seen"], three["tau"]) == ("2", "3", "diffusers", "40", "0.9")

    checkpoint = str(tmp_path / "run" / "model.safetensors")
    row, *_ = evaluate(checkpoint, "f-pndm", steps=3, samples=20, device="cpu")
    network, record = load_model(checkpoint)
    pixels = torch.cat(list(draw(network, 20, (3, 8, 8), schedule_of(record), "f-pndm", 3)))
    real = evaluating.open_reference("shapes", 8, Averages())
    assert row["fd"] == pytest.approx(evaluating.tables.metrics.frechet_distance(real.moments, Averages()(pixels)), rel=1e-5)
    assert "4 images, DDIM" in samples_picture(checkpoint, tmp_path / "a.png", 4, steps=2, device="cpu")
    with pytest.raises(ValueError, match="to evaluate, set out"):
        train_command(replace(config, out=None), evaluate=(2,))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.compile, bf16 and CUDA graphs are used on a GPU")
@torch.no_grad()
def test_on_a_gpu(tmp_path):
    config = replace(pipeline(tmp_path / "pipeline", dropout=0.0), tau=1.0, log_every=5)
    with torch.enable_grad():
        on_cpu, on_gpu = (last(train(replace(config, device=device), IMAGES)).loss for device in ("cpu", "cuda"))
    assert on_gpu == pytest.approx(on_cpu, rel=0.2)  # t and ε₁ come from another generator there
    denoiser, _ = interop.open_pipeline(config.start)
    fast = for_sampling(denoiser.cuda())
    torch.testing.assert_close(fast(X.cuda(), T.cuda()), denoiser(X.cuda(), T.cuda()), rtol=0.1, atol=0.1)


# ----------------------------------------------------------------------------------------------- other architectures

@pytest.mark.parametrize("changed", [
    {"down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"), "add_attention": False},
    {"down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"), "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
     "block_out_channels": (32, 32)},
    {"time_embedding_type": "learned", "num_train_timesteps": 1000}, {"flip_sin_to_cos": False, "freq_shift": 1, "mid_block_type": None},
    {"time_embedding_dim": 12, "act_fn": "gelu", "mid_block_scale_factor": 2**0.5}, {"in_channels": 1, "out_channels": 1},
], ids=lambda changed: ", ".join(changed))
@torch.no_grad()
def test_architectures_come_through_a_checkpoint(changed, tmp_path):
    theirs, config = network(**changed), pipeline(tmp_path / "pipeline", **changed)
    denoiser, schedule = interop.open_pipeline(config.start)
    save_model(tmp_path / "m.safetensors", denoiser, {}, torch.float32)
    x = X[:, :theirs.config.in_channels]
    for ours in (denoiser, load_model(tmp_path / "m.safetensors")[0]):
        torch.testing.assert_close(ours(x, T), theirs(x, T).sample, rtol=1e-5, atol=1e-5)
        assert ours.config.shape == x.shape[1:] and not ours.training


@torch.no_grad()
def test_a_network_that_knows_whole_timesteps_only(tmp_path):
    denoiser, _ = interop.open_pipeline(pipeline(tmp_path, time_embedding_type="learned", num_train_timesteps=1000).start)
    assert sample(denoiser, X, NoiseSchedule.linear(), "ddim", 3).isfinite().all()
    with pytest.raises(ValueError, match="each whole timestep"):
        denoiser(X, T + 0.5)
    with pytest.raises(ValueError, match=r"pictures \(B, 3, H, W\), not \(3, 1, 8, 8\)"):
        denoiser(X[:, :1], T)


@torch.no_grad()
def test_old_pipelines_and_networks_alone(tmp_path):
    """Without folders inside, and with the names that attention's parameters had; a network alone is DDPM's, with a warning."""
    pipeline(tmp_path / "new", DDPMScheduler())
    old, unet = tmp_path / "old", tmp_path / "new" / "unet"
    old.mkdir()
    (old / "config.json").write_text((unet / "config.json").read_text(encoding="utf-8"), encoding="utf-8")
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(unet / "diffusion_pytorch_model.safetensors")
    for new_name, old_name in names.items():
        weights = {name.replace(f".{new_name}.", f".{old_name}."): value.clone() for name, value in weights.items()}
    assert sum("proj_attn" in name for name in weights) >= 4
    save_file(weights, old / "diffusion_pytorch_model.safetensors")
    with pytest.warns(UserWarning, match="old has no scheduler.*T = 500"):
        denoiser, schedule = interop.open_pipeline(old, T=500)
    torch.testing.assert_close(denoiser(X, T), network()(X, T).sample, rtol=1e-5, atol=1e-5)
    assert schedule.alpha_bar.equal(NoiseSchedule.linear(500).alpha_bar)
    (old / "scheduler_config.json").write_bytes((tmp_path / "new" / "scheduler" / "scheduler_config.json").read_bytes())
    assert interop.open_pipeline(old)[1].alpha_bar.equal(NoiseSchedule.linear().alpha_bar)


# ---------------------------------------------------------------------------------------------------------- refusals

@pytest.mark.parametrize(("changed", "said"), [
    ({"num_class_embeds": 4}, "needs class labels"), ({"class_embed_type": "timestep"}, "needs class labels"),
    ({"out_channels": 6}, "takes 3 channels and returns 6"), ({"time_embedding_type": "fourier"}, "noise level σ"),
    ({"sample_size": None}, "sample_size must be an integer in 1..4096, the side of a square picture, not None"),
    ({"sample_size": (8, 16)}, r"not \(8, 16\)|not \[8, 16\]"), ({"sample_size": 9}, "cannot be run on pictures of 9×9"),
    ({"time_embedding_type": "learned", "num_train_timesteps": 10}, "knows 10 timesteps, but its schedule has T = 1000"),
])
def test_networks_that_are_refused(changed, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        next(train(pipeline(tmp_path, **changed), IMAGES))


@pytest.mark.parametrize(("changed", "said"), [
    ({"_class_name": "UNet2DConditionModel"}, "is a 'UNet2DConditionModel'; it must be a 'UNet2DModel'"),
    ({"_class_name": "os.system"}, "is a 'os.system'"), ({"_class_name": "gone"}, "is a None"),
    ({"quantization_config": {"quant_method": "bitsandbytes"}}, "a setting 'quantization_config', which"),
    ({"block_out_channels": [8, 10**9]}, r"block_out_channels = \[8, 1000000000\]"), ({"layers_per_block": 17}, "layers_per_block = 17"),
    ({"down_block_types": ["CrossAttnDownBlock2D"] * 2}, "diffusers cannot build the network: ValueError, cross_attention_dim"),
    ({"down_block_types": ["KDownBlock2D"] * 2, "up_block_types": ["KUpBlock2D"] * 2, "block_out_channels": [64, 64],
      "attention_head_dim": 8}, "constants that a file"),
    ({"norm_num_groups": 3}, "cannot build the network: ValueError"),
    ({"block_out_channels": [8, 8]}, "does not hold the weights that its config.json describes: RuntimeError, .*size mismatch"),
])
def test_configurations_that_are_refused(changed, said, tmp_path):
    config = pipeline(tmp_path)
    edit(tmp_path / "unet" / "config.json", **changed)
    with pytest.raises(ValueError, match=said):
        next(train(config, IMAGES))


@pytest.mark.parametrize(("scheduler", "changed", "said"), [
    (DDPMScheduler(prediction_type="v_prediction"), {}, "predicts 'v_prediction'; .* 'epsilon'"),
    (DDPMScheduler(), {"prediction_type": "gone", "predict_epsilon": False}, "predicts 'sample'"),
    (ScoreSdeVeScheduler(), {}, "scheduler, 'ScoreSdeVeScheduler', has no β_t"),
    (DDIMScheduler(rescale_betas_zero_snr=True), {}, "'DDIMScheduler', has no β_t between 0 and 1"),
    (DDPMScheduler(), {"num_train_timesteps": 10**9}, "num_train_timesteps must be an integer in 2..100000"),
    (DDPMScheduler(), {"beta_schedule": "steep"}, "does not know the pipeline's schedule 'steep'"),
    (DDPMScheduler(), {"beta_start": "0.1"}, "beta_start must lie in"),
    (DDPMScheduler(), {"trained_betas": [0.1, 2]}, "alpha_bar must fall"),
    (DDPMScheduler(), {"trained_betas": ["x"]}, "trained_betas must be real numbers"),
    (DDPMScheduler(num_train_timesteps=500), {}, "trained with T = 500 timesteps, not 1000: set T = 500"),
], ids=range(10))
def test_schedulers_that_are_refused(scheduler, changed, said, tmp_path):
    config = pipeline(tmp_path, scheduler)
    edit(tmp_path / "scheduler" / "scheduler_config.json", **changed)
    with pytest.raises((ValueError, TrainingError), match=said):
        next(train(config, IMAGES))


@pytest.mark.parametrize(("damage", "said"), [
    (lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").rename(f / "unet" / "diffusion_pytorch_model.bin"),
     r"model\.safetensors is missing.*other files can run code"),
    (lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"\x80\x04" + bytes(500)), "SafetensorError"),
    (lambda f: (f / "unet" / "config.json").unlink(), "holds no network of diffusers: it has neither"),
    (lambda f: (f / "unet" / "config.json").write_text("[", encoding="utf-8"), "config.json is damaged"),
    (lambda f: (f / "unet" / "config.json").write_text("[" * 100_000, encoding="utf-8"), "config.json is damaged"),
    (lambda f: (f / "unet" / "config.json").write_bytes(b"[]"), "config.json is damaged or no configuration of diffusers .no names"),
    (lambda f: (f / "scheduler" / "scheduler_config.json").write_bytes(b" " * (16 << 20) + b"{}"), "at most 16,777,216 are possible"),
], ids=range(7))
def test_folders_that_are_refused(damage, said, tmp_path):
    config = pipeline(tmp_path)
    damage(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        next(train(config, IMAGES))


def test_a_network_too_large_to_be_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "MAX_PARAMETERS", 1_000)
    with pytest.raises(ValueError, match=r"has \d+,\d+ parameters; at most 1,000"):
        next(train(pipeline(tmp_path), IMAGES))


def test_settings_that_do_not_go_together(tmp_path):
    config = pipeline(tmp_path / "pipeline")
    with pytest.raises(ValueError, match="start must be a pipeline's folder or hub name where preset is diffusers, not None"):
        replace(config, start=None)
    with pytest.raises(ValueError, match="label_dropout must be 1, for no labels, where preset is diffusers, not 0.1"):
        replace(config, label_dropout=0.1)
    with pytest.raises(ValueError, match="pipeline takes pictures of 3×8×8, which shapes16 are not"):
        next(train(config, shapes(28, 16)))
    with pytest.raises(ValueError, match="pipeline takes x of 3×8×8, which waves are not"):
        next(train(replace(config, data="waves")))
    with pytest.raises(ValueError, match="CIFAR-10 is 32×32, but this network takes 8×8"):
        next(train(replace(config, data="cifar10")))
    with pytest.raises(CheckpointError, match="pipeline cannot be read: .* set preset = diffusers"):
        next(train(replace(config, preset="tiny"), IMAGES))
    with pytest.raises(TrainingError, match="tiny-shapes-l0 is not a diffusers network: set preset to the one it was trained as"):
        next(train(replace(config, start="tiny-shapes-l0"), IMAGES))
    last(train(replace(config, steps=1, out=tmp_path / "run"), IMAGES))
    with pytest.raises(TrainingError, match=r"model\.safetensors is not a tiny network: set preset to diffusers"):
        next(train(replace(config, preset="tiny", start=str(tmp_path / "run" / "model.safetensors")), IMAGES))
    with pytest.raises(FileNotFoundError, match="Name a network that was trained here by its file"):
        next(train(replace(config, start=str(tmp_path / "run")), IMAGES))


# -------------------------------------------------------------------------------------- the hub, and no diffusers at all

@pytest.mark.parametrize("name", ["nobody/no-such-pipeline", "../no/such/folder"])
def test_a_hub_name_without_a_network_is_a_sentence(name):
    with pytest.raises(FileNotFoundError, match=r"is no folder here, and the Hugging Face hub .*Without a network, name the folder"):
        next(train(replace(BASE, start=name), IMAGES))


def test_only_what_is_read_is_fetched_from_the_hub(tmp_path, monkeypatch):
    pipeline(tmp_path)
    asked = []
    monkeypatch.setattr(folders, "answers", lambda url: True)
    monkeypatch.setattr(folders, "snapshot_download",
                        lambda name, allow_patterns, local_files_only: asked.append((name, allow_patterns)) or str(tmp_path))
    denoiser, _ = interop.open_pipeline("somebody/some-pipeline")
    assert denoiser.config.shape == (3, 8, 8) and {name for name, _ in asked} == {"somebody/some-pipeline"}
    fetched = [file for _, files in asked for file in files]
    assert all(file.endswith((".json", ".safetensors")) and "*" not in file for file in fetched)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} - set(fetched) == {"model_index.json"}


def test_without_diffusers_a_sentence_names_the_command(tmp_path, monkeypatch):
    last(train(replace(pipeline(tmp_path / "pipeline"), steps=1, out=tmp_path / "run"), IMAGES))
    monkeypatch.setitem(sys.modules, "diffusers", None)
    for module in [name for name in sys.modules if name.startswith("s2dm_mini.interop")]:
        monkeypatch.delitem(sys.modules, module)
    for asked in (lambda: load_model(tmp_path / "run" / "model.safetensors"),
                  lambda: next(train(replace(BASE, start=str(tmp_path / "pipeline")), IMAGES))):
        with pytest.raises(CheckpointError, match="network of diffusers, and diffusers is not installed: pip install diffusers"):
            asked()


@pytest.mark.parametrize("change", [
    {"_class_name": "AutoencoderKL"}, {"_class_name": ["UNet2DModel"]}, {"block_out_channels": [100_000, 100_000]},
    {"layers_per_block": 10**9}, {"block_out_channels": [8] * 2**20}, {"time_embedding_dim": 10**15}, {"sample_size": 2**40},
    {"in_channels": 10**9, "out_channels": 10**9}, {"num_train_timesteps": 10**12, "time_embedding_type": "learned"},
    {"trust_remote_code": True}, {"norm_eps": float("nan")}, {"attention_head_dim": 0}, {"dropout": "much"}, {"act_fn": "__import__"},
], ids=lambda change: ", ".join(change))
def test_a_header_cannot_ask_for_other_classes_or_much_memory(change, tmp_path):
    """Everything is laid out on paper first, and held against the weights in the file."""
    denoiser = interop.as_denoiser(network())
    path = tmp_path / "m.safetensors"
    write_tensors(path, denoiser.state_dict(), {"unet": denoiser.config.to_dict() | change, "record": {}})
    with pytest.raises(CheckpointError, match="does not hold a network of this package"):
        load_model(path)
