"""The factor that training taught: python tests/benchmarks/trained_scales.py runs/ledger/scratch/networks

For networks SETTING.SEED/model.safetensors of the ledger's settings: their records, and at some timesteps the factor between the network
of S²-DM and that of L_0 of the same seed, beside s_t. Noise is added to images of CIFAR-10's test split, the same for all. Two estimates:

against L_0   ⟨f, e⟩/⟨e, e⟩ of both predictions: too small where the two networks differ in more than the factor
calibration   ⟨f, f⟩/⟨f, ε⟩, which is s where f = s·E[ε | x_t], over the same of L_0's network: needs no agreement of the two
"""
import argparse
from pathlib import Path
from statistics import mean, stdev

import torch

from s2dm_mini import NoiseSchedule, for_sampling
from s2dm_mini.checkpoints import load_model
from s2dm_mini.data import to_unit_range
from s2dm_mini.data.cifar10 import cifar10
from s2dm_mini.study.plan import SETTINGS

TIMES = (20, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 980)
IMAGES, BATCH = 400, 100
COLUMNS = ("*Calibration*: ⟨f, f⟩/⟨f, ε⟩ of a network's predictions f, over the same of L₀'s network. *Against L₀*: ⟨f, e⟩/⟨e, e⟩, "
           "which is too small where two networks differ in more than a factor, as at small t.")


def predictions(network: torch.nn.Module, x0: torch.Tensor, eps: torch.Tensor, schedule: NoiseSchedule) -> torch.Tensor:
    """The predictions for all images at TIMES: (len(TIMES), N, ...)."""
    found = []
    for t in TIMES:
        times = torch.full((len(x0),), t)
        parts = zip(schedule.add_noise(x0, eps, times).split(BATCH), times.split(BATCH), strict=True)
        with torch.no_grad():
            found.append(torch.cat([network(x, t) for x, t in parts]))
    return torch.stack(found)


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """⟨a, b⟩ at each timestep: (len(TIMES),) float64."""
    return (a.double() * b.double()).flatten(1).sum(1)


def told(values: list[float]) -> str:
    error = f" ± {stdev(values) / len(values) ** 0.5:.4f}" if len(values) > 1 else ""
    return f"{mean(values):.4f}{error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder

    found = {tuple(path.parent.name.split(".")): path for path in sorted(folder.glob("*.[0-9]*/model.safetensors"))}
    records = {key: load_model(path)[1] for key, path in found.items()}
    print(f"`python tests/benchmarks/trained_scales.py`, {IMAGES} images of CIFAR-10's test split.\n")
    print("| network | seed | images seen | loss at the end | minutes | device | precision | begun from | code |")
    print("| --- | ---: | ---: | ---: | ---: | --- | --- | --- | --- |")
    for (setting, seed), record in records.items():
        start = f"{record['started_from']['images_seen']:,} images of L₀" if record["started_from"] else "nothing"
        print(f"| {SETTINGS[setting].title} | {seed} | {record['images_seen']:,} | {record['loss']:.4f} | {record['minutes']:.0f} | "
              f"{record['device']} | {record['precision']} | {start} | {record['commit']} |")

    print(f"\n{COLUMNS}")
    schedule, x0 = NoiseSchedule.linear(), to_unit_range(cifar10("test").pixels[:IMAGES])
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    projections, calibrations = {}, {}
    for seed in sorted({seed for _, seed in found}):
        e = predictions(for_sampling(load_model(found["l0", seed])[0]), x0, eps, schedule)
        own = product(e, e) / product(e, eps.expand_as(e))  # (len(TIMES),)
        for setting in (s for s, k in found if k == seed and s != "l0"):
            f = predictions(for_sampling(load_model(found[setting, seed])[0]), x0, eps, schedule)
            projections.setdefault(setting, []).append((product(f, e) / product(e, e)).tolist())
            calibrations.setdefault(setting, []).append((product(f, f) / product(f, eps.expand_as(f)) / own).tolist())
    for setting, values in projections.items():
        s = SETTINGS[setting].shrinkage(schedule)
        print(f"\n{SETTINGS[setting].title}, {len(values)} training seeds, mean ± standard error:\n")
        print("| t | s_t | calibration | against L₀ |\n| ---: | ---: | ---: | ---: |")
        for i, t in enumerate(TIMES):
            one, other = ([of_seed[i] for of_seed in each[setting]] for each in (calibrations, projections))
            print(f"| {t} | {float(s[t]):.4f} | {told(one)} | {told(other)} |")


if __name__ == "__main__":
    main()
