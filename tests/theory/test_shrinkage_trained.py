"""What a trained network does, beside the formula: a small MLP on a ring of 8 Gaussians, whose exact E[ε₁ | x_t] is known."""
import pytest
import torch
from torch import nn

from s2dm_mini.data.points import RING_STD, ring_means
from s2dm_mini.denoisers import MixtureDenoiser
from s2dm_mini.losses import s2dm_loss, shrinkage
from s2dm_mini.schedule import NoiseSchedule

SCHEDULE, SKIP, TAU = NoiseSchedule.linear(), 49, 0.9
TIMES = torch.tensor([600, 900])
EXACT = MixtureDenoiser(ring_means(), RING_STD, SCHEDULE)


def ring(n, generator):
    kind = torch.randint(0, 8, (n,), generator=generator)
    return ring_means()[kind].float() + RING_STD * torch.randn(n, 2, generator=generator)


class MLP(nn.Module):
    """ε(x, t) for points in the plane; t enters as a third number."""

    def __init__(self, width=64):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2))

    def forward(self, x, t):
        return self.layers(torch.cat([x, t[:, None] / 500 - 1], dim=1))


def trained(reading, seed, steps=1_500, batch=512):
    """Adam on fresh points; the learning rate falls to 0, so that the noise of the last batches averages out.

    But for `output`, no timestep's minimiser depends on another's: only the two that are measured are trained.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MLP()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        t = TIMES.repeat(batch // 2)
        s2dm_loss(network, ring(batch, generator), t, SCHEDULE, SKIP, TAU, reading, generator).mean().backward()
        optimizer.step()
        decay.step()
        optimizer.zero_grad()
    return network


@torch.no_grad()
def scale_of(network, t, n=50_000):
    """The number s for which s·E is nearest to the network's output, over many x_t."""
    generator = torch.Generator().manual_seed(99)
    x0, t = ring(n, generator), torch.full((n,), t)
    x_t = SCHEDULE.add_noise(x0, torch.randn(n, 2, generator=generator), t)
    f, exact = network(x_t, t), EXACT(x_t, t)
    return ((f * exact).sum() / exact.square().sum()).item()


@pytest.mark.slow
@pytest.mark.parametrize("reading", ["independent", "expected", "shared"])
def test_a_trained_network_is_shrunk_as_predicted(reading):
    network, predicted = trained(reading, seed=0), shrinkage(SCHEDULE, SKIP, TAU, reading)
    for t in TIMES.tolist():
        assert scale_of(network, t) == pytest.approx(predicted[t].item(), rel=0.005)
