"""The power spectrum of pictures against waves and noise whose spectrum is known."""
import math

import pytest
import torch

from s2dm_mini.measure.spectrum import power_spectrum, spectrum_distance


def test_a_wave_stands_in_its_ring_alone():
    x = torch.arange(32) / 32
    wave = 127 + 100 * torch.sin(2 * math.pi * 5 * x)
    spectrum = power_spectrum(wave.round().to(torch.uint8).expand(2, 3, 32, 32))
    assert spectrum.argmax() == 4 and spectrum[4] > 1_000 * torch.cat([spectrum[:4], spectrum[5:]]).max()


def test_white_noise_has_its_variance_in_every_ring():
    noise = (127 + 20 * torch.randn(2_000, 3, 32, 32, generator=torch.Generator().manual_seed(0))).round().clamp(0, 255).to(torch.uint8)
    assert power_spectrum(noise) == pytest.approx(torch.full((16,), 20.0**2 + 1 / 12), rel=0.02)


def test_the_distance_counts_decibels_whichever_is_larger():
    a = torch.tensor([1.0, 4.0, 2.0])
    assert spectrum_distance(a, a) == 0 and spectrum_distance(10 * a, a) == spectrum_distance(a, 10 * a) == pytest.approx(10)


def test_refusals():
    with pytest.raises(ValueError, match="square, at least 4 a side, not"):
        power_spectrum(torch.zeros(2, 3, 8, 16, dtype=torch.uint8))
    with pytest.raises(ValueError, match="equally many values above 0"):
        spectrum_distance(torch.ones(3), torch.zeros(3))
