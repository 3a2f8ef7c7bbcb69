"""Whether the tests on the emulated device see anything: faults are put into the library, and a test must fail for each.

A fault is a function of which a piece of text is replaced.
"""
import inspect
import textwrap

import pytest
import test_cuda_faults as faults
import test_cuda_layouts as layouts
import test_cuda_training as training
import torch

from s2dm_mini import denoisers, guidance, latents, s2dm_loss, schedule, unet
from s2dm_mini.explorer import ends, strips
from s2dm_mini.measure import draw, paths
from s2dm_mini.samplers import common, sample, trajectory
from s2dm_mini.training import loop, recorded, run, setup


def losses_with_a_schedule_on_the_cpu(network):
    s2dm_loss(network(), torch.zeros(2, 3, 8, 8).cuda(), faults.T.cuda(), faults.SCHEDULE).mean().item()


def interpolation():
    latents.interpolate(torch.randn(3, 8).cuda(), torch.randn(3, 8).cuda())


def a_sample_with_noise(network):
    sample(network(), torch.randn(4, 3, 8, 8).cuda(), faults.SCHEDULE, "ddpm", 3, generator=torch.Generator("cuda"))


def steps_of_a_walk(network):
    model, x = network(), torch.randn(4, 3, 8, 8).cuda()
    faults.waits_in(lambda: list(trajectory(model, x, faults.SCHEDULE, "ddim", 10)), 2)


def with_(test, argument):
    """The test with its last argument given, which pytest would take from parametrize."""
    def given(*fixtures):
        test(*fixtures, argument)

    given.__signature__ = inspect.Signature(list(inspect.signature(test).parameters.values())[:-1])
    return given


def ten_steps(what):
    return with_(faults.test_11_ten_steps_wait_at_the_end_only, what)


def drawing(kind):
    return with_(faults.test_6_a_whole_drawing_is_one_compilation, kind)


def graphs(variant):
    return with_(training.test_graphs_change_nothing, variant)


no_step_waits = with_(training.test_no_step_waits, "s2dm")
recording = with_(training.test_a_recorded_step_is_the_step, "labels")

INJECTED = {
    # Tensors of two devices, or a generator of the other.
    "the table of alpha_bar stays behind": (schedule.lookup, "alpha_bar.to(t.device)", "alpha_bar", losses_with_a_schedule_on_the_cpu),
    "noise on the CPU": (common.fresh_noise, "generator=generator, dtype=x.dtype, device=x.device", "dtype=x.dtype", a_sample_with_noise),
    "exact tables stay behind": (denoisers._Tables._on, "table.to(device)", "table", ten_steps("mixture")),
    "the scale stays behind": (denoisers.Shrunk.__call__, "self.scale = self.scale.to(x.device)", "pass",
                               ten_steps("shrunk")),
    "weights between ends on the CPU": (latents.interpolate, ", device=a.device", "", interpolation),
    "frequencies on the CPU": (unet.timestep_embedding, ", device=t.device", "", losses_with_a_schedule_on_the_cpu),
    "the inversion's t on the CPU": (latents.invert, ", device=x.device", "", ten_steps("inversion")),
    "pictures compared over two devices": (paths.round_trip, "pixels.cpu()", "pixels",
                                              faults.test_1_pictures_on_the_gpu_make_the_round_trip),
    "an end on the CPU": (ends.end_latent, ".to(best_device())", "", faults.test_5_a_strip_between_noise_and_picture_and_the_plane),
    "generators of the CPU": (draw.draw, "torch.Generator(device)", "torch.Generator()",
                              faults.test_random_samplers_draw_with_a_generator_an_image),
    # Needless waits.
    "a look at every step": (trajectory, 'check_each_call=x_T.device.type == "cpu"', "check_each_call=True", steps_of_a_walk),
    "exact tables copied at each call": (denoisers._Tables._on, "device not in copies", "True",
                                         ten_steps("gaussian")),
    "labels copied at each call": (guidance.Guided.__call__, "self.label = self.label", "label = self.label",
                                   ten_steps("guided")),
    "a look at every step of an inversion": (latents.invert, 'x.device.type == "cpu" or', "True or",
                                             ten_steps("inversion")),
    "the loss read at every step": (loop.train, "loss.detach()", "loss.item()", no_step_waits),
    "the order of images on the CPU": (setup._shuffled, ".to(device)", "", no_step_waits),
    # Memory written over, and the user's random numbers.
    "answers not copied": (unet.for_sampling, "[:len(x)].clone()", "[:len(x)]",
                           with_(faults.test_an_answer_is_not_overwritten_by_the_next, "plms")),
    "graphs though a step has two shards": (setup.compiled, " and config.shards == 1", "", graphs("two shards")),
    "graphs though a step has two passes": (setup.compiled, ' and config.reading != "output"', "", graphs("output")),
    # A recorded step repeats what it was recorded with.
    "the images of the recording": (recorded.Recorded.__call__, "self.index.copy_(index)", "pass", recording),
    "images that Python chooses": (loop.train, "pixels[index]", "pixels[batch[shard]]", recording),
    "the gradients of the recording lost": (recorded.Recorded.__call__, "weight.grad = grad", "pass", recording),
    "the noise of the recording": (recorded.Recorded.__init__, "self.graph.register_generator_state(generator)", "pass", recording),
    "dropout from the user's generator": (setup.dropout_seed, '[device] if device.type == "cuda" else []', "[]",
                                          training.test_the_users_random_numbers_are_left_alone),
    # Wrong numbers.
    "sampling in bf16": (unet.for_sampling, "network.half()", "network.bfloat16()",
                         faults.test_3_sampling_in_half_precision_keeps_the_colours),
    "what is not finite is shown": (strips.run, " and math.isfinite(largest)", "",
                                    faults.test_4_the_explorer_neither_shows_nor_keeps_what_is_not_finite),
    "labels taken modulo": (unet.UNet.forward, "self.class_embedding(row)", "self.class_embedding(label % (last + 1))",
                            with_(faults.test_10_labels_out_of_range_are_refused, 3)),
    "timesteps from the end": (schedule.at, "table.index_select(0, i.flatten()).reshape(i.shape)", "table[i]",
                               with_(faults.test_10_timesteps_out_of_range_are_refused, -1)),
    "the precision of another device": (run.Run._load, 'self.config.precision == "auto"', "False",
                                        with_(faults.test_9_a_resumed_run_keeps_its_precision, ("cuda", "cpu"))),
    "TF32 called float32": (setup.compiled, "= True, False", "= True, True", faults.test_9_float32_is_float32_in_convolutions_too),
    # What the emulation alone does not show; these have tests that look otherwise.
    "a compilation for the last batch": (unet.for_sampling, "(0, largest - len(value))", "(0, 0)", drawing("a smaller batch")),
    "graphs of inference mode": (unet.for_sampling, "torch.inference_mode(False), ", "",
                                 drawing("in inference mode")),
    "PyTorch's own group norm": (unet.GroupNorm.forward, 'x.device.type != "cuda"', "True",
                                 layouts.test_a_step_copies_no_picture),
}


def replaced(function, old, new):
    """The function's code with a piece of its text replaced."""
    lines = textwrap.dedent(inspect.getsource(function)).splitlines(keepends=True)
    while lines[0].startswith("@"):
        del lines[0]
    source = "".join(lines)
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {function.__qualname__}"
    found = {}
    exec(compile(source.replace(old, new), inspect.getsourcefile(function), "exec"), function.__globals__, found)
    return found[function.__name__].__code__


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", INJECTED)
def test_an_injected_fault_is_seen(name, request, monkeypatch):
    function, old, new, test = INJECTED[name]
    fixtures = [request.getfixturevalue(given) for given in inspect.signature(test).parameters]
    setup._shuffled.cache_clear()
    function = inspect.unwrap(function)
    monkeypatch.setattr(function, "__code__", replaced(function, old, new))
    try:
        with pytest.raises((AssertionError, RuntimeError, ValueError, IndexError, TypeError, pytest.fail.Exception)):
            test(*fixtures)
    finally:
        setup._shuffled.cache_clear()
        strips._finished.__init__()
