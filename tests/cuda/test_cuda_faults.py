"""The faults that the emulated device showed at first, numbered as in README.md; what each test asks is also asked of injected faults."""
import warnings
from dataclasses import replace

import fake_cuda
import pytest
import torch

from s2dm_mini import NoiseSchedule, for_sampling, load_pretrained, sample, shapes
from s2dm_mini.checkpoints import read_tensors
from s2dm_mini.data.points import RING_STD, ring_means
from s2dm_mini.denoisers import GaussianDenoiser, MixtureDenoiser, Shrunk
from s2dm_mini.explorer import pictures, plane, strips
from s2dm_mini.explorer.setting import Setting
from s2dm_mini.guidance import Guided
from s2dm_mini.latents import invert
from s2dm_mini.measure.draw import draw, starting_noise
from s2dm_mini.measure.features import mean_colours
from s2dm_mini.measure.paths import round_trip
from s2dm_mini.study.interpolations import measures
from s2dm_mini.support import machine
from s2dm_mini.training.config import TrainConfig
from s2dm_mini.training.loop import train

SCHEDULE = NoiseSchedule.linear()
T = torch.tensor([3, 500])


def waits_in(run, at_most):
    """Run twice; the second time, when all is set up, the host may wait so often."""
    run()
    fake_cuda.forget()
    run()
    assert sum(fake_cuda.waits().values()) <= at_most, fake_cuda.waits()


def compilations(monkeypatch, run):
    """How often `run` has a network compiled, counted by dynamo itself, whose guards are the same on every device."""
    made = []

    def count(graph, inputs):
        made.append(len(inputs))
        return graph.forward

    torch._dynamo.reset()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "compile", lambda model, mode=None, **options: torch.real_compile(model, backend=count, **options))
        run()
    return len(made)


def test_1_pictures_on_the_gpu_make_the_round_trip(network):
    pixels, model = shapes(4, 8).pixels.cuda(), network()
    found = round_trip(model, pixels, SCHEDULE, mean_colours, steps=3)
    assert found["grey levels"].shape == (4,) and found["fidelity"].isfinite().all()


def test_1_interpolations_of_real_pictures_are_measured(network):
    model, noises = network(), starting_noise(40, (3, 8, 8), 0).unflatten(0, (20, 2)).cuda()
    found, excess, drawn = measures(model, noises, SCHEDULE, mean_colours, steps=2, frames=3, real=shapes(20, 8).pixels.cuda())
    assert len(found["real pictures, 3 refinements, grey levels"]) == 20 and drawn.device.type == "cpu" and excess.n == 20


def test_3_sampling_in_half_precision_keeps_the_colours():
    """The shift of the mean, in grey levels of 255: 0.1 is what nobody sees, and less than what S²-DM changes."""
    network = load_pretrained("tiny-shapes-l0", "cuda")
    x_T = starting_noise(8, network.config.shape, 0).cuda()
    fast, plain = (sample(denoiser, x_T, SCHEDULE, spacing="quadratic") for denoiser in (for_sampling(network), network))
    change = 127.5 * (fast - plain)
    assert change.mean().abs() < 0.1 and change.square().mean().sqrt() < 0.2
    assert (change.mean((0, 2, 3)).abs() < 0.1).all(), "a channel's"


@pytest.mark.filterwarnings("ignore:the quadratic grid")
def test_4_the_explorer_neither_shows_nor_keeps_what_is_not_finite(monkeypatch):
    monkeypatch.setattr(strips, "network", lambda name: lambda x, t: x * torch.where(t[:, None, None, None] < 300, torch.nan, 0.1))
    strips._finished.__init__()
    shown = []
    with pytest.raises(ValueError, match=r"in step \d of 4, the denoiser returned NaN"):
        shown.extend(strips.views(Setting(steps=4)))
    assert all(view.l0.largest < torch.inf for view in shown) and not strips._finished.rows


def test_5_a_strip_between_noise_and_picture_and_the_plane():
    setting = Setting(family="tiny, shapes", first=pictures.row_png(shapes(1).pixels, 1), steps=2, frames=3)
    *_, view = strips.views(setting)
    *_, atlas = plane.plane(replace(setting, first=0))
    assert view.l0.pixels.device.type == "cpu" and view.l0.done and atlas is not None


@pytest.mark.parametrize("kind", ["ddim", "f-pndm", "a smaller batch", "in inference mode"])
def test_6_a_whole_drawing_is_one_compilation(network, monkeypatch, kind):
    model, x = network(), torch.randn(4, 3, 8, 8).cuda()

    def run():
        fast = for_sampling(model)
        drawn = sample(fast, x, SCHEDULE, "ddim", 3)
        if kind == "f-pndm":  # asks at half timesteps
            sample(fast, x, SCHEDULE, kind, 8)
        elif kind == "a smaller batch":
            assert (sample(fast, x[:3], SCHEDULE, "ddim", 3) - drawn[:3]).abs().max() < 0.05
        elif kind == "in inference mode":
            with torch.inference_mode():
                sample(fast, x.clone(), SCHEDULE, "ddim", 3)

    assert compilations(monkeypatch, run) == 1


def test_7_training_follows_sampling_in_one_process(network, images, monkeypatch):
    """The graphs of `for_sampling` hold no inference tensor, which autograd would refuse."""
    model, x = network(), torch.randn(4, 3, 8, 8).cuda()
    kinds = set()
    model.register_forward_pre_hook(lambda _, inputs: kinds.update(v.is_inference() for v in inputs))
    with torch.inference_mode():
        for_sampling(model)(x.clone(), T.repeat(2).cuda())
    *_, record = train(TrainConfig(data="shapes", preset="tiny", batch=8, steps=2, device="cuda"), images)
    assert kinds == {False} and record.step == 2


@pytest.mark.parametrize("ways", [("cuda", "cpu"), ("cpu", "cuda")], ids="-".join)
def test_9_a_resumed_run_keeps_its_precision(images, tmp_path, monkeypatch, ways):
    monkeypatch.setattr(machine, "_cpuinfo", lambda: "a processor that does not multiply bf16")
    config = TrainConfig(data="shapes", preset="tiny", batch=8, steps=2, log_every=1, out=tmp_path, device=ways[0])
    list(train(config, images))
    began = read_tensors(tmp_path / "state.safetensors")[1]["record"]["precision"]
    *_, record = train(replace(config, steps=4, device=ways[1]), images, resume=True)
    assert record.step == 4 and read_tensors(tmp_path / "state.safetensors")[1]["record"]["precision"] == began


def test_9_float32_is_float32_in_convolutions_too(images, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    next(train(TrainConfig(data="shapes", preset="tiny", batch=8, steps=1, device="cuda", precision="fp32"), images))
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("label", [3, 7, -2])
def test_10_labels_out_of_range_are_refused(network, label):
    model, x, t = network(classes=3), torch.zeros(2, 3, 8, 8).cuda(), T.cuda()
    model(x, t, torch.tensor([2, -1]).cuda())
    with pytest.raises(IndexError):
        model(x, t, torch.tensor([0, label]).cuda())


@pytest.mark.parametrize("t", [-1, -0.5, 1000])
def test_10_timesteps_out_of_range_are_refused(t):
    x, t = torch.zeros(1, 3, 8, 8).cuda(), torch.tensor([t]).cuda()
    for ask in (lambda: SCHEDULE.add_noise(x, x, t), lambda: SCHEDULE.alpha_bar_at(t)):
        with pytest.raises((IndexError, RuntimeError)):
            ask()
    if t < 0:  # Shrunk takes one timestep past its end for the last
        with pytest.raises((IndexError, RuntimeError)):
            Shrunk(lambda x, t: x, torch.ones(1000))(x, t)


@pytest.mark.parametrize("what", ["gaussian", "diagonal", "mixture", "guided", "shrunk", "inversion"])
def test_11_ten_steps_wait_at_the_end_only(network, what):
    x, points = torch.randn(4, 3, 8, 8).cuda(), torch.randn(16, 2, dtype=torch.float64).cuda()
    if what == "inversion":
        model = network()
        return waits_in(lambda: invert(model, x, SCHEDULE, 10), 3)
    denoiser, x_T = {
        "gaussian": lambda: (GaussianDenoiser(torch.zeros(2), torch.tensor([[2.0, 0.5], [0.5, 1.0]]), SCHEDULE), points),
        "diagonal": lambda: (GaussianDenoiser(torch.zeros(2), torch.ones(2), SCHEDULE), points),
        "mixture": lambda: (MixtureDenoiser(ring_means(), RING_STD, SCHEDULE), points),
        "guided": lambda: (Guided(network(classes=3), torch.tensor([0, 1, 2, 0]), 2.0), x),
        "shrunk": lambda: (Shrunk(network(), torch.ones(1000)), x)}[what]()
    return waits_in(lambda: sample(denoiser, x_T, SCHEDULE, "ddim", 10), 2)


def test_random_samplers_draw_with_a_generator_an_image(network):
    model = network()
    alone = next(draw(model, 1, (3, 8, 8), SCHEDULE, "ddpm", 3, device="cuda"))
    among = torch.cat(list(draw(model, 4, (3, 8, 8), SCHEDULE, "ddpm", 3, device="cuda", batch=2)))
    assert (among[:1].int() - alone.int()).abs().max() <= 1
    waits_in(lambda: list(draw(model, 4, (3, 8, 8), SCHEDULE, "ddpm", 10, device="cuda")), 4)


@pytest.mark.parametrize("name", ["plms", "s-pndm", "tab-deis-3", "dpm-solver++"])
def test_an_answer_is_not_overwritten_by_the_next(network, monkeypatch, name):
    """The answers of a CUDA graph share their memory; multistep samplers look back at them."""
    model, x_T = network(), torch.randn(4, 3, 8, 8).cuda()
    with warnings.catch_warnings(action="error"):
        graphed = sample(for_sampling(model), x_T, SCHEDULE, name, 8)
        monkeypatch.setattr(torch, "compile", lambda model, **_: model)
        assert graphed.equal(sample(for_sampling(model), x_T, SCHEDULE, name, 8))
