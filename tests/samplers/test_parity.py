"""Our samplers against diffusers', in float64 with exact denoisers; and where diffusers is wrong, both against a formula."""
import pytest
import torch
from benchmarks.sampler_tables import SCHEDULE, diffusers_sample, parity_rows
from diffusers import DDIMScheduler, PNDMScheduler

from s2dm_mini import GaussianDenoiser, sample
from s2dm_mini.samplers import trajectory

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # diffusers hands tensors to numpy


@pytest.mark.filterwarnings("ignore:the quadratic grid")
def test_agree_with_diffusers():
    rows = list(parity_rows())
    assert {row.sampler for row in rows} == {"ddim", "ddpm", "ddpm-large", "f-pndm", "s-pndm", "plms", "dpm-solver++", "log-ρ DEIS"}
    assert max(row.difference for row in rows) < 1e-8, max(rows, key=lambda row: row.difference)


V = 0.25  # variance of the data
GAUSSIAN = GaussianDenoiser(torch.zeros(2), torch.full((2,), V), SCHEDULE)
X_T = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def ddim_factor(grid):
    """What DDIM multiplies x by, from grid[0] to ᾱ = 1, for data N(0, V): in y = x/√ᾱ each step adds (ρ_s − ρ_t)·ρ_t/(V + ρ_t²)·y."""
    rho = [((1 - SCHEDULE.alpha_bar[t].item()) / SCHEDULE.alpha_bar[t].item()) ** 0.5 for t in grid] + [0.0]
    y = SCHEDULE.alpha_bar[grid[0]].item() ** -0.5
    for r, r_next in zip(rho, rho[1:], strict=False):
        y += (r_next - r) * r / (V + r**2) * y
    return y


@pytest.mark.parametrize(("steps", "diffusers_is_right"), [(10, True), (40, True), (30, False), (150, False)])
def test_ddim_on_trailing_grids(steps, diffusers_is_right):
    # diffusers steps from t to t − T//steps, which is not the next trailing timestep where steps does not divide T.
    exact = X_T * ddim_factor(SCHEDULE.timesteps(steps, "trailing").tolist())
    ours = sample(GAUSSIAN, X_T, SCHEDULE, "ddim", steps, "trailing")
    theirs = diffusers_sample(lambda: DDIMScheduler(clip_sample=False, timestep_spacing="trailing"), X_T, GAUSSIAN, steps)
    torch.testing.assert_close(ours, exact, rtol=1e-12, atol=0)
    error = ((theirs - exact).abs() / exact.abs()).max().item()
    assert error < 1e-8 if diffusers_is_right else error > 1e-3, error


def test_pndm_as_diffusers_sets_it_up_stops_one_step_early():
    # Without set_alpha_to_one, ᾱ "before" t = 0 is ᾱ_0 itself: the last step changes nothing, its network call is wasted.
    theirs = diffusers_sample(PNDMScheduler, X_T, GAUSSIAN, 10)
    *_, at_zero, clean = trajectory(GAUSSIAN, X_T, SCHEDULE, "f-pndm", 10)
    assert (at_zero.t, clean.t) == (0, -1)
    torch.testing.assert_close(theirs, at_zero.x, rtol=1e-10, atol=0)
    assert (theirs - clean.x).abs().max() > 1e-4
