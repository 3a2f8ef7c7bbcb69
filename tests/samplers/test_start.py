"""x_T is pure noise: a grid that starts where the network expects signal is named, with what it costs; and so is divergence at the end."""
import warnings

import pytest
import torch

from s2dm_mini import GaussianDenoiser, NoiseSchedule, sample, trajectory
from s2dm_mini.explorer.setting import Setting, Trained
from s2dm_mini.explorer.strips import Row, View, complaint
from s2dm_mini.measure.draw import draw

LINEAR, COSINE = NoiseSchedule.linear(), NoiseSchedule.cosine()


def width(schedule, steps, spacing="uniform", std=0.5, x_T=1.0):
    """The standard deviation of the samples, exactly, from an x_T of the standard deviation given."""
    exact = GaussianDenoiser(torch.zeros(1), torch.full((1,), std**2), schedule)
    return sample(exact, torch.full((1, 1), x_T, dtype=torch.float64), schedule, "ddim", steps, spacing).item()


@pytest.mark.parametrize(("schedule", "steps", "spacing", "start"), [
    (LINEAR, 501, "uniform", 500), (LINEAR, 2, "uniform", 500), (LINEAR, 1, "quadratic", 0), (COSINE, 5, "quadratic", 800),
    (NoiseSchedule.linear(100), 10, "trailing", 99)])
def test_a_start_with_signal_is_said_with_its_cost(schedule, steps, spacing, start):
    with pytest.warns(UserWarning, match=f"starts at t = {start}, where ᾱ = ") as caught:
        wide, alpha_bar = width(schedule, steps, spacing), schedule.alpha_bar[start].item()
        proper = width(schedule, steps, spacing, x_T=(alpha_bar * 0.25 + 1 - alpha_bar) ** 0.5)  # the marginal of x_t there
    said = str(caught[0].message)
    assert f"come out {100 * (wide / proper - 1):.1f} % too wide" in said
    assert ("spacing = 'trailing', which starts at t = 999" in said) == (schedule.T == 1000)
    assert ("a schedule that ends nearer to 0 than ᾱ = 0.36" in said) == (schedule.T == 100)


def test_usual_starts_are_silent_and_cost_less_than_one_percent():
    usual = [(LINEAR, steps, spacing) for steps in (3, 5, 10, 20, 50, 100, 250, 500, 1000) for spacing in ("uniform", "trailing")]
    usual += [(LINEAR, steps, spacing) for steps in (2, 5, 10, 20) for spacing in ("quadratic", "logsnr")]
    usual += [(COSINE, steps, "uniform") for steps in (10, 50)]
    with warnings.catch_warnings(action="error"):
        for schedule, steps, spacing in usual:
            alpha_bar = schedule.alpha_bar[schedule.timesteps(steps, spacing)[0]].item()
            assert 1 < width(schedule, steps, spacing) / width(schedule, steps, spacing, x_T=(1 - 0.75 * alpha_bar) ** 0.5) < 1.01


def test_the_warning_comes_before_the_first_step_and_names_the_caller():
    with pytest.warns(UserWarning, match="pure noise") as caught:
        trajectory(lambda x, t: x, torch.zeros(1, 1), LINEAR, steps=501)
    assert caught[0].filename == __file__


def test_the_explorer_says_it_too():
    black, by = torch.zeros(3, 3, 4, 4, dtype=torch.uint8), Trained("x", 49, 0.99, 4)
    row = Row(1, 1, black, (black, black), (0.0,), (1.0,), 1.0)
    assert complaint(View(Setting(), row, row, by)) == ""
    assert complaint(View(Setting(steps=2, spacing="uniform"), row, row, by)).startswith("sampling starts at t = 500, where ᾱ = 0.078")


def test_divergence_is_said_at_the_end():
    exact = GaussianDenoiser(torch.zeros(4), torch.full((4,), 0.04), COSINE)
    with pytest.warns(UserWarning, match=r"F-PNDM diverged: values reach .*, data lie in −1 to 1; take more steps than 20"):
        list(draw(exact, 60, (4,), COSINE, "f-pndm", 20, "trailing"))
    with warnings.catch_warnings(action="error"):
        list(draw(exact, 60, (4,), COSINE, "ddim", 20, "trailing"))
        list(draw(lambda x, t: x * (1 - LINEAR.alpha_bar[999]) ** 0.5, 200, (3, 8, 8), LINEAR, "ddim", 1, "trailing"))
