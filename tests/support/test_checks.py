"""Arguments are checked once, at the public boundary: how often one call enters support/checks.py."""
import sys
from pathlib import Path

import pytest
import torch

from s2dm_mini import SAMPLERS, GaussianDenoiser, MixtureDenoiser, NoiseSchedule, Shrunk, UNet, UNetConfig, s2dm_loss, sample, shrinkage
from s2dm_mini.latents import invert, slerp
from s2dm_mini.losses import READINGS
from s2dm_mini.support import checks

SCHEDULE = NoiseSchedule.linear()
X, T = torch.linspace(-1, 1, 12).reshape(3, 4), torch.tensor([0, 500, 999])


def function(x, t):
    return 0.5 * x


def entries(call) -> list[str]:
    """Names of the functions in support/checks.py that code outside it calls."""
    here, found = str(Path(checks.__file__)), []

    def watch(frame, event, _):
        if event == "call" and frame.f_code.co_filename == here and frame.f_back.f_code.co_filename != here:
            found.append(frame.f_code.co_name)

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("reading", READINGS)
def test_a_loss_checks_its_arguments_once_and_each_answer(reading):
    calls = 2 if reading == "output" else 1
    assert entries(lambda: s2dm_loss(function, X, T, SCHEDULE, reading=reading)) == ["check_skip_loss"] + calls * ["check_eps"]


def test_a_loss_of_a_unet():
    network = UNet(UNetConfig(image_size=4, channels=(4, 4), blocks_per_level=1, norm_groups=1, attention_levels=()))
    x0 = torch.zeros(3, 3, 4, 4)
    assert entries(lambda: s2dm_loss(network, x0, T, SCHEDULE)) == ["check_skip_loss", "check_unet_input", "check_eps"]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_checks_two_things_before_it_starts_and_one_a_network_call(name):
    found = entries(lambda: sample(function, X, SCHEDULE, name, 10))
    assert found == ["check_walk", "check_grid"] + SAMPLERS[name].nfe(10) * ["check_eps"]


@pytest.mark.parametrize("denoiser", [GaussianDenoiser(torch.zeros(4), torch.ones(4), SCHEDULE), MixtureDenoiser(X, 0.5, SCHEDULE),
                                      Shrunk(function, shrinkage(SCHEDULE))], ids=["Gaussian", "mixture", "shrunk"])
def test_a_denoiser_checks_its_arguments_once_a_call(denoiser):
    assert entries(lambda: sample(denoiser, X, SCHEDULE, steps=10)) == ["check_walk", "check_grid"] + 10 * ["check_question", "check_eps"]


def test_latents_check_once():
    assert entries(lambda: slerp(X[0], X[1], torch.tensor([0.5]))) == ["check_ends"]
    found = entries(lambda: invert(function, X, SCHEDULE, steps=10))
    assert found == ["check_inversion", "check_grid"] + 10 * ["check_eps", "require"]
