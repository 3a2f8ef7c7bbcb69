"""The power spectrum of pictures against waves and noise whose spectrum is known."""
import math

import pytest
import torch

from s2dm_mini.measure.features import ring_powers


def test_a_wave_stands_in_its_ring_alone():
    x = torch.arange(32) / 32
    wave = 127 + 100 * torch.sin(2 * math.pi * 5 * x)
    spectrum = ring_powers(wave.round().to(torch.uint8).expand(1, 3, 32, 32))[0]
    assert spectrum.argmax() == 4 and spectrum[4] > 1_000 * torch.cat([spectrum[:4], spectrum[5:]]).max()


def test_white_noise_has_its_variance_in_every_ring():
    noise = (127 + 20 * torch.randn(2_000, 3, 32, 32, generator=torch.Generator().manual_seed(0))).round().clamp(0, 255).to(torch.uint8)
    assert ring_powers(noise).mean(0) == pytest.approx(torch.full((16,), 20.0**2 + 1 / 12), rel=0.02)


def test_refusals():
    with pytest.raises(ValueError, match="square, at least 4 a side, not"):
        ring_powers(torch.zeros(2, 3, 8, 16, dtype=torch.uint8))
