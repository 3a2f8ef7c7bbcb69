"""Results that must not change when the code is rearranged: compared with golden.json, made before.

On the machine and with the PyTorch that made the file results agree to the last bit; elsewhere sums are rounded in another order, and they
agree within 1e-5 of their size. `python tests/test_golden.py` makes the file anew, which is right only where a change of results is meant.
"""
import hashlib
import json
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from s2dm_mini import PRESETS, SAMPLERS, MixtureDenoiser, NoiseSchedule, TrainConfig, load_pretrained, sample, shapes, shrinkage, train
from s2dm_mini.data import to_unit_range
from s2dm_mini.explorer.plane import plane
from s2dm_mini.explorer.setting import Setting
from s2dm_mini.explorer.strips import views
from s2dm_mini.losses import READINGS, timestep_weight
from s2dm_mini.measure.draw import draw, starting_noise
from s2dm_mini.schedule import SPACINGS
from s2dm_mini.support.machine import seed_of
from s2dm_mini.theory.optimum import best_line, gaussian_objective
from s2dm_mini.theory.scales import fit_line

GOLDEN = Path(__file__).with_name("golden.json")
SCHEDULE = NoiseSchedule.linear()
TRAINING = TrainConfig(data="shapes", preset="tiny", batch=8, learning_rate=1e-3, warmup=5, ema_decay=0.9, steps=20, log_every=5,
                       skip=49, tau=0.9, device="cpu", precision="fp32", save_minutes=0)


def machine() -> str:
    """The processor, its vector instructions and PyTorch: what the last bits depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    flags = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
    return f"{torch.backends.cpu.get_cpu_capability()} {hashlib.sha256(flags.encode()).hexdigest()[:8]} torch {torch.__version__}"


def told(*tensors: torch.Tensor) -> dict:
    """Tensors in a few numbers, and the hash of all of them."""
    values = [tensor.detach().cpu().contiguous() for tensor in tensors]
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in values)).hexdigest()[:16]
    flat = torch.cat([value.double().flatten() for value in values])
    some = flat[:: max(len(flat) // 6, 1)][:6].tolist()
    return {"numbers": [*some, float(flat.mean()), float(flat.square().mean().sqrt())], "hash": digest}


def trained(resumed: bool = False, **changes) -> dict:
    """Losses and averaged weights of 20 steps on shapes."""
    with tempfile.TemporaryDirectory() as folder:
        config = replace(TRAINING, out=Path(folder) / "run", **changes)
        if resumed:
            first = train(config)
            next(first)
            first.close()
        records = [(record.loss, record.ema) for record in train(config, resume=resumed)]
    return told(torch.tensor([loss for loss, _ in records]), *records[-1][1].state_dict().values())


@cache
def tiny():
    return load_pretrained("tiny-shapes-l0")


def drawn(sampler: str) -> dict:
    """Samples of an exact denoiser in float64, and of a network."""
    exact = MixtureDenoiser(torch.tensor([[-1.0, 0.5], [1.0, 0.0]]), 0.2, SCHEDULE)
    noise = torch.randn(16, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    points = sample(exact, noise, SCHEDULE, sampler, 7, "quadratic", generator=torch.Generator().manual_seed(2))
    return told(points, *draw(tiny(), 6, (3, 16, 16), SCHEDULE, sampler, 5, seed=3))


def strip() -> dict:
    last = [list(views(Setting(family="tiny, shapes", frames=4, steps=4, skip=49, sampler=name)))[-1] for name in ("ddim", "ddpm")]
    cells = list(plane(Setting(family="tiny, shapes", steps=3)))[-1]
    return told(*(row.pixels for view in last for row in (view.l0, view.s2dm)), torch.tensor(last[0].s2dm.eps_rms), cells.pixels)


def data() -> dict:
    images = shapes(12, 32, seed=4)
    return told(images.pixels, *images.factors.values(), images.augment(images.pixels, torch.Generator().manual_seed(5)),
                starting_noise(60, (1, 4, 4), 6), torch.tensor([seed_of(0), seed_of(1, 2, 3), seed_of(7, 0)]))


def schedules() -> dict:
    t = torch.arange(1000)
    return told(SCHEDULE.alpha_bar, NoiseSchedule.cosine().alpha_bar, *(SCHEDULE.timesteps(13, name) for name in SPACINGS),
                SCHEDULE.alpha_skip(t, 49), *(timestep_weight(t, SCHEDULE, name) for name in ("min-snr-5", "p2")),
                *(shrinkage(SCHEDULE, skip, tau, reading) for skip, tau, reading in
                  ((9, 0.99, "independent"), (49, 0.9, "expected"), (49, 0.99, "shared"))))


def tuned() -> dict:
    """The search for a scale on a toy, and the exact optimum of a Gaussian."""
    fit = fit_line(lambda scale: float((scale[0] - 0.97) ** 2 + (scale[-1] - 0.93) ** 2 + 1), evaluations=24)
    best = best_line(gaussian_objective(torch.tensor([2.0, 0.5, 0.01]), SCHEDULE, "ddim", 5))
    network, noise = tiny(), torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(8))
    real = to_unit_range(shapes(64, 16).pixels).flatten(1)

    def distance(scale: torch.Tensor) -> float:
        from s2dm_mini import Shrunk

        x = sample(Shrunk(network, scale), noise, SCHEDULE, "ddim", 3).flatten(1)
        return float((x.mean(0) - real.mean(0)).square().sum() + (x.std() - real.std()) ** 2)

    found = fit_line(distance, evaluations=8)
    return told(*(torch.tensor([ends, value]) for ends, value in ((fit.line, fit.constant), (found.line, found.constant))),
                torch.tensor([best.distance, *best.numbers]))


CASES = {
    **{f"sampler {name}": lambda name=name: drawn(name) for name in SAMPLERS},
    **{f"training {reading}": lambda reading=reading: trained(reading=reading) for reading in READINGS},
    "training L_0": lambda: trained(tau=1.0),
    "training with dropout": lambda: trained(preset="tiny, dropout"),
    "training with labels": lambda: trained(label_dropout=0.1),
    "training in shards": lambda: trained(shards=2),
    "training by min-snr-5 at 10 timesteps": lambda: trained(weighting="min-snr-5", only_steps=10),
    "training of signals": lambda: trained(data="waves", preset="wave"),
    "training by the recipe": lambda: trained(annealing="cosine", beta2=0.99, ema_others=(0.5,)),
    "fine-tuning, resumed": lambda: trained(resumed=True, start="tiny-shapes-l0"),
    "data, noise and seeds": data,
    "schedules and shrinkage": schedules,
    "searches": tuned,
    "explorer": strip,
}


@pytest.mark.parametrize("case", CASES)
def test_the_results_are_those_of_before(case, monkeypatch):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    monkeypatch.setitem(PRESETS, "tiny, dropout", replace(PRESETS["tiny"], dropout=0.2))
    found, before = CASES[case](), golden[case]
    assert found["numbers"] == pytest.approx(before["numbers"], rel=1e-5, abs=1e-5 * max(map(abs, before["numbers"])))
    if golden["machine"] == machine():
        assert found["hash"] == before["hash"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    PRESETS["tiny, dropout"] = replace(PRESETS["tiny"], dropout=0.2)
    golden = {"machine": machine(), **{case: make() for case, make in CASES.items()}}
    GOLDEN.write_text(json.dumps(golden, indent=0) + "\n", encoding="utf-8")
