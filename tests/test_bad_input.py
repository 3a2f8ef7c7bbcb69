"""Bad input, everywhere: whatever a public function is given, it answers rightly or refuses in a sentence of its own.

`CASES` holds arguments that work for each public function. Each argument is then replaced by everything that may stand in its place by
mistake: another type, another shape, NaN, a number far too large, None. What comes back must be finite, or a ValueError that this package
itself raised and that names the argument. `tests/stress/fuzz.py` draws many more of these.
"""
import importlib
import inspect
import math
import pkgutil
import random
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import s2dm_mini
from s2dm_mini import cifar10, data, denoisers, latents, losses, shapes, unet
from s2dm_mini.checkpoints import CheckpointError, load_pretrained
from s2dm_mini.data import load_data
from s2dm_mini.data.points import points
from s2dm_mini.data.shapes import read_factors
from s2dm_mini.explorer.ends import read_png, upload
from s2dm_mini.explorer.pictures import row_png
from s2dm_mini.explorer.setting import Setting, from_query
from s2dm_mini.measure import metrics, paths
from s2dm_mini.measure.errors import MeanOverPairs, jackknife_error
from s2dm_mini.measure.features import mean_colours
from s2dm_mini.samplers import sample, trajectory
from s2dm_mini.schedule import NoiseSchedule, timesteps
from s2dm_mini.study import tables
from s2dm_mini.study.plan import Group, experiment_of
from s2dm_mini.support.checks import shown
from s2dm_mini.support.machine import open_device
from s2dm_mini.theory import gaussian
from s2dm_mini.theory.gaussian import gaussian_ddim_variance
from s2dm_mini.theory.scales import relative_scale, scale_of, scaled
from s2dm_mini.training.config import TrainConfig
from s2dm_mini.training.loop import antithetic_timesteps

PACKAGE = str(Path(s2dm_mini.__file__).parent)
SCHEDULE = NoiseSchedule.linear(20, 1e-3, 0.3)
X, T = torch.linspace(-1, 1, 12).reshape(3, 4), torch.tensor([0, 7, 19])
FEATURES = torch.linspace(-1, 1, 24, dtype=torch.float64).sin().reshape(12, 2)
PIXELS = shapes(3, 8).pixels
FACTORS = shapes(3, 8).factors
NETWORK = unet.UNetConfig(image_size=4, channels=(4, 4), blocks_per_level=1, norm_groups=1, attention_levels=())
GAUSSIAN = denoisers.GaussianDenoiser(torch.zeros(4), torch.ones(4), SCHEDULE)
MIXTURE = denoisers.MixtureDenoiser(X, 0.5, SCHEDULE)
IMAGES = denoisers.GaussianDenoiser(torch.zeros(3, 8, 8), torch.ones(192), SCHEDULE)
ENDS = torch.linspace(-1, 1, 2 * 2 * 192).sin().reshape(2, 2, 3, 8, 8)
PATHS = torch.linspace(0, 3, 24 * 5 * 2).sin().reshape(24, 5, 2)


def shrinker(x: Tensor, t: Tensor) -> Tensor:
    return 0.5 * x


@dataclass
class Case:
    """A public function and arguments that it takes. passes_on: arguments whose NaN may come out as NaN, since asking costs too much."""

    call: Callable
    good: dict[str, object]
    passes_on: tuple[str, ...] = ()


CASES = {
    "schedule.NoiseSchedule": Case(NoiseSchedule, {"alpha_bar": torch.linspace(0.9, 0.1, 9)}),
    "schedule.NoiseSchedule.linear": Case(NoiseSchedule.linear, {"T": 20, "beta_start": 1e-3, "beta_end": 0.3}),
    "schedule.NoiseSchedule.cosine": Case(NoiseSchedule.cosine, {"T": 20}),
    "schedule.NoiseSchedule.alpha_bar_at": Case(SCHEDULE.alpha_bar_at, {"t": T}),
    "schedule.NoiseSchedule.add_noise": Case(SCHEDULE.add_noise, {"x0": X, "eps": X, "t": T}, ("x0", "eps")),
    "schedule.NoiseSchedule.predict_x0": Case(SCHEDULE.predict_x0, {"x": X, "eps": X, "t": T}, ("x", "eps")),
    "schedule.NoiseSchedule.alpha_skip": Case(SCHEDULE.alpha_skip, {"t": T, "skip": 3}),
    "schedule.NoiseSchedule.timesteps": Case(SCHEDULE.timesteps, {"steps": 5, "spacing": "logsnr"}),
    "schedule.timesteps": Case(timesteps, {"T": 20, "steps": 5, "spacing": "uniform", "alpha_bar": SCHEDULE.alpha_bar}, ("alpha_bar",)),
    "losses.simple_loss": Case(losses.simple_loss, {
        "denoiser": shrinker, "x0": X, "t": T, "schedule": SCHEDULE, "generator": None}, ("denoiser", "x0")),
    "losses.skip_step_loss": Case(losses.skip_step_loss, {
        "denoiser": shrinker, "x0": X, "t": T, "schedule": SCHEDULE, "skip": 3, "reading": "output", "generator": None},
        ("denoiser", "x0")),
    "losses.s2dm_loss": Case(losses.s2dm_loss, {
        "denoiser": shrinker, "x0": X, "t": T, "schedule": SCHEDULE, "skip": 3, "tau": 0.9, "reading": "shared", "generator": None},
        ("denoiser", "x0")),
    "losses.timestep_weight": Case(losses.timestep_weight, {"t": T, "schedule": SCHEDULE, "weighting": "min-snr-5"}),
    "losses.shrinkage": Case(losses.shrinkage, {"schedule": SCHEDULE, "skip": 3, "tau": 0.9, "reading": "shared"}),
    "denoisers.GaussianDenoiser": Case(denoisers.GaussianDenoiser, {
        "mean": torch.zeros(4), "covariance": torch.eye(4), "schedule": SCHEDULE}),
    "denoisers.GaussianDenoiser.fit": Case(denoisers.GaussianDenoiser.fit, {"x": X, "schedule": SCHEDULE}),
    "denoisers.GaussianDenoiser.__call__": Case(GAUSSIAN.__call__, {"x": X, "t": T}, ("x",)),
    "denoisers.MixtureDenoiser": Case(denoisers.MixtureDenoiser, {
        "means": X, "std": 0.5, "schedule": SCHEDULE, "weights": torch.ones(3)}),
    "denoisers.MixtureDenoiser.__call__": Case(MIXTURE.__call__, {"x": X, "t": T}, ("x",)),
    "denoisers.Shrunk": Case(denoisers.Shrunk, {"denoiser": shrinker, "scale": 0.9}, ("denoiser",)),
    "denoisers.Shrunk.__call__": Case(denoisers.Shrunk(GAUSSIAN, torch.ones(20)).__call__, {"x": X, "t": T}, ("x",)),
    "theory.scales.relative_scale": Case(relative_scale, {
        "denoiser": shrinker, "baseline": shrinker, "x0": X, "t": 5, "schedule": SCHEDULE, "generator": None}, ("denoiser", "baseline")),
    "theory.gaussian.gaussian_ddim_variance": Case(gaussian_ddim_variance, {
        "v": 0.25, "schedule": SCHEDULE, "grid": SCHEDULE.timesteps(5), "scale": 1.0}),
    "samplers.sample": Case(sample, {
        "denoiser": shrinker, "x_T": X, "schedule": SCHEDULE, "sampler": "ddim", "steps": 3, "spacing": "uniform", "eta": 0.5,
        "generator": None}),
    "samplers.trajectory": Case(trajectory, {
        "denoiser": shrinker, "x_T": X, "schedule": SCHEDULE, "sampler": "f-pndm", "steps": 3, "spacing": "trailing", "eta": 0.0,
        "generator": None}),
    "latents.lerp": Case(latents.lerp, {"a": X, "b": 2 * X, "weight": torch.tensor([0.0, 0.5])}),
    "latents.slerp": Case(latents.slerp, {"a": X, "b": X.flip(1), "weight": torch.tensor([0.0, 0.5])}),
    "latents.interpolate": Case(latents.interpolate, {"a": X, "b": X.flip(1), "frames": 3, "way": "slerp"}),
    "latents.invert": Case(latents.invert, {
        "denoiser": shrinker, "x0": X, "schedule": SCHEDULE, "steps": 3, "spacing": "uniform", "refinements": 1}),
    "theory.gaussian.gaussian_variance": Case(gaussian.gaussian_variance, {
        "eigenvalues": torch.tensor([0.5, 0.1]), "schedule": SCHEDULE, "sampler": "plms", "steps": 3, "spacing": "uniform", "scale": 1.0}),
    "theory.gaussian.gaussian_distance": Case(gaussian.gaussian_distance, {
        "eigenvalues": torch.tensor([0.5, 0.1]), "schedule": SCHEDULE, "sampler": "tab-deis-2", "steps": 3, "spacing": "uniform",
        "scale": 1.0}),
    "theory.gaussian.best_scale": Case(gaussian.best_scale, {
        "eigenvalues": torch.tensor([0.5, 0.1]), "schedule": SCHEDULE, "sampler": "ddim", "steps": 2, "spacing": "uniform"}),
    "measure.errors.MeanOverPairs.of": Case(MeanOverPairs.of, {"values": FEATURES[:, 0]}),
    "measure.paths.strips": Case(paths.strips, {
        "denoiser": shrinker, "ends": ENDS, "schedule": SCHEDULE, "frames": 3, "way": "slerp", "steps": 2,
        "spacing": "uniform"}),
    "measure.paths.path_measures": Case(paths.path_measures, {"path": PATHS}),
    "measure.paths.midpoint_excess": Case(paths.midpoint_excess, {
        "path": PATHS, "distance": metrics.frechet_distance, "groups": 3}),
    "measure.paths.round_trip": Case(paths.round_trip, {
        "denoiser": IMAGES, "pixels": PIXELS, "schedule": SCHEDULE, "features": mean_colours, "steps": 2,
        "spacing": "uniform", "refinements": 1}),
    "data.shapes.read_factors": Case(read_factors, {"pixels": PIXELS}),
    "measure.paths.monotonicity": Case(paths.monotonicity, {"values": FEATURES.T, "extent": 0.5}),
    "measure.paths.factor_measures": Case(paths.factor_measures, {"pixels": PIXELS[None]}),
    "measure.metrics.Moments": Case(metrics.Moments, {"n": 5, "mean": torch.zeros(2).double(), "covariance": torch.eye(2).double()}),
    "measure.metrics.Moments.of": Case(metrics.Moments.of, {"x": FEATURES}),
    "measure.metrics.frechet_distance": Case(metrics.frechet_distance, {"a": FEATURES, "b": FEATURES + 1}),
    "measure.metrics.frechet_distance_infinite": Case(metrics.frechet_distance_infinite, {"real": FEATURES, "x": FEATURES + 1, "seed": 0}),
    "measure.metrics.frechet_left_out": Case(metrics.frechet_left_out, {"real": FEATURES, "x": FEATURES + 1, "blocks": 4}),
    "measure.errors.jackknife_error": Case(jackknife_error, {"left_out": [1.0, 2.0, 4.0]}),
    "measure.metrics.kernel_distance": Case(metrics.kernel_distance, {
        "real": FEATURES, "x": FEATURES + 1, "subsets": 2, "subset_size": 4, "seed": 0}),
    "measure.metrics.precision_recall": Case(metrics.precision_recall, {"real": FEATURES, "x": FEATURES + 1, "k": 3}),
    "data.images.to_unit_range": Case(data.to_unit_range, {"pixels": PIXELS}),
    "data.images.to_pixels": Case(data.to_pixels, {"x": X}, ("x",)),
    "data.cifar10.cifar10": Case(cifar10, {"split": "train", "folder": "no such folder"}),
    "data.shapes.shapes": Case(shapes, {"n": 2, "size": 8, "seed": 0}),
    "data.points.points": Case(points, {"name": "moons", "n": 5, "seed": 0}),
    "explorer.setting.Setting": Case(Setting, {
        "family": "tiny, shapes", "first": 0, "second": b"a picture, perhaps", "way": "lerp", "frames": 4, "skip": 9, "tau": 0.9,
        "how": "trained", "sampler": "ddim", "steps": 5, "spacing": "uniform", "eta": 0.5}),
    "explorer.setting.from_query": Case(from_query, {"query": "skip=9&tau=0.97"}),
    "explorer.ends.read_png": Case(read_png, {"png": row_png(PIXELS[:1], 1), "size": 8}),
    "support.machine.open_device": Case(open_device, {"name": "cpu"}),
    "explorer.ends.upload": Case(upload, {"name": "a.png", "content": row_png(PIXELS[:1], 1)}),
    "training.config.TrainConfig": Case(TrainConfig, {
        "data": "shapes", "preset": "tiny", "skip": 9, "tau": 0.9, "reading": "shared", "weighting": "p2", "only_steps": 10, "T": 100,
        "batch": 8, "learning_rate": 1e-3, "warmup": 3, "clip": 1.0, "ema_decay": 0.9, "ema_ramp": True, "steps": 10, "images": 20,
        "minutes": 1.0, "seed": 0, "device": "cpu", "precision": "fp32", "shards": 2, "log_every": 5, "save_minutes": 1.0}),
    "training.loop.antithetic_timesteps": Case(antithetic_timesteps, {"batch": 5, "T": 20, "generator": torch.Generator()}),
    "data.load_data": Case(load_data, {"name": "shapes", "size": 8}),
    "unet.UNetConfig": Case(unet.UNetConfig, {
        "image_size": 8, "image_channels": 3, "channels": (4, 8), "blocks_per_level": 1, "attention_levels": (1,), "norm_groups": 4,
        "dropout": 0.1}),
    "unet.UNet": Case(unet.UNet, {"config": NETWORK}),
    "unet.UNet.forward": Case(unet.UNet(NETWORK).forward, {"x": torch.zeros(3, 3, 4, 4), "t": T}, ("x", "t")),
    "study.plan.Group": Case(Group, {
        "setting": "l0", "seed": 0, "scale": "s2dm10", "sampler": "ddim", "spacing": "uniform", "steps": (5, 10), "sampling_seed": 0}),
    "theory.scales.scale_of": Case(scale_of, {"scale": "b1.017", "schedule": SCHEDULE}),
    "theory.scales.scaled": Case(scaled, {"denoiser": shrinker, "scale": "s2dm10", "schedule": SCHEDULE}, ("denoiser",)),
    "study.plan.experiment_of": Case(experiment_of, {"size": "quick"}),
    "checkpoints.load_pretrained": Case(load_pretrained, {"name": "tiny-shapes-l0"}),
}

# Public, and not in CASES. Methods of a class that is named here are left out with it.
_PARTS = "a part of a larger function or class, which asks before it calls this"
_RECORD = "a record: made by the library, not from a user's numbers"
_FILES = "takes a file or a folder: tests/stress/fuzz.py and the module's own tests damage those"
_SETTINGS = "takes a Setting, which is checked where it is made"
_NOTHING = "takes no argument that a user calculates"
_LABELS = "what labels it refuses is in the tests of its module"
REASONS = {
    **dict.fromkeys(["schedule.at", "schedule.lookup", "schedule.noised", "schedule.signal_kept", "losses.draw_noised", "losses.predict",
                     "losses.skip_coefficient", "losses.skip_term", "losses.mean_square", "data.images.random_flip",
                     "data.shapes.draw_shapes"], _PARTS),
    **dict.fromkeys(["explorer.ends.encoded", "explorer.ends.png_bytes", "explorer.strips.run", "explorer.strips.Kept"], _PARTS),
    **dict.fromkeys(["schedule.per_image", "support.machine.seed_of", "unet.timestep_embedding", "unet.TimeEmbedding", "unet.GroupNorm",
                     "unet.ResidualBlock", "unet.Attention", "unet.Downsample", "unet.Upsample", "unet.Level", "explorer.strips.Listener",
                     "explorer.strips.Started", "explorer.plane.ShrunkEach", "study.tables.holds", "measure.metrics.check_features",
                     "study.tables.sampling_facts", "study.tables.distances", "training.loop.learning_rate",
                     "measure.errors.is_clear", "measure.errors.combined", "measure.errors.p_value", "measure.errors.interval",
                     "measure.errors.holm", "theory.scales.line", "theory.scales.fit_line", "theory.scales.nelder_mead",
                     "theory.gaussian.check_deterministic"], _PARTS),
    **dict.fromkeys(["samplers.Sampler", "data.images.Images", "measure.errors.MeanOverPairs", "measure.references.Reference",
                     "explorer.strips.Row", "explorer.strips.View", "explorer.setting.Trained",
                     "training.loop.TrainRecord", "study.plan.Part", "study.plan.Experiment", "study.plan.Setting",
                     "study.plan.fine_tuning",
                     "theory.scales.Fit"], _RECORD),
    **dict.fromkeys(["data.cifar10.fetch_cifar10", "data.images.data_folder",
                     "measure.references.reference", "measure.references.write_reference",
                     "measure.references.read_reference", "study.tables.append_row",
                     "study.tables.read_rows", "study.tables.write_rows", "checkpoints.write_tensors", "checkpoints.read_tensors",
                     "checkpoints.save_model", "checkpoints.load_model", "checkpoints.pretrained_file", "checkpoints.sha256",
                     "checkpoints.schedule_of", "study.ledger.rows_of", "study.ledger.missing",
                     "study.ledger.table_of", "study.ledger.train_network", "study.ledger.train_to_end",
                     "study.ledger.sample_group", "study.ledger.measure_group",
                     "study.ledger.predict", "study.ledger.run_stage", "study.ledger.cost", "study.tables.add",
                     "training.loop.train", "checkpoints.open_network", "checkpoints.unwrapped",
                     "measure.references.open_reference"], _FILES),
    **dict.fromkeys(["explorer.setting.family", "explorer.setting.nearest", "explorer.setting.s2dm", "explorer.setting.grid",
                     "explorer.ends.latents", "explorer.ends.end_latent", "explorer.strips.views", "explorer.plane.plane",
                     "explorer.strips.l0_key", "explorer.plane.nearest_cell", "explorer.strips.complaint",
                     "explorer.strips.verdict", "explorer.setting.changed", "explorer.setting.changes",
                     "explorer.setting.to_query",
                     "study.ledger.theoretical_scale"], _SETTINGS),
    **dict.fromkeys(["guidance.guided_s2dm_loss", "guidance.guided_shrinkage", "guidance.Guided", "guidance.Guided.__call__",
                     "training.loop.drop_labels", "unet.UNet.with_classes"], _LABELS),
    **dict.fromkeys(["schedule.NoiseSchedule.to", "data.images.fingerprint", "data.points.ring_means",
                     "theory.gaussian.cifar10_eigenvalues",
                     "explorer.setting.families", "explorer.setting.network", "explorer.strips.forget", "support.machine.best_device",
                     "support.machine.device_name", "unet.UNetConfig.to_dict", "unet.for_sampling", "support.machine.git_commit",
                     "checkpoints.network_hash", "checkpoints.images_seen", "checkpoints.manifest", "checkpoints.zoo",
                     "checkpoints.interop", "checkpoints.schedule_entry", "study.plan.Group.network_path", "study.plan.Group.samples_path",
                     "support.machine.multiplies_bf16", "support.machine.stamp"], _NOTHING),
}
# Modules above these: what they are given goes straight into functions of the others, or is a command line or a figure.
MODULES = ("guidance",
           "schedule", "denoisers", "losses", "unet", "samplers", "latents", "checkpoints", "data", "data.images", "data.cifar10",
           "data.points", "data.shapes", "explorer.setting", "explorer.ends", "explorer.strips", "explorer.plane", "measure.errors",
           "measure.metrics", "measure.paths", "measure.references",
           "study.plan", "study.tables", "study.ledger", "support.machine",
           "theory.gaussian", "theory.scales", "training.config", "training.loop")
ABOVE = {"support.checks": "the checks themselves", "support.files": "files", "support.progress": "a bar",
         "support.network": "a URL of the package",
         "data.celeba": "an archive, which it checks", "data.signals": "data drawn like shapes; test_signals tries it",
         "theory.optimum": "searches over theory.gaussian",
         "measure.draw": "sample, many times", "measure.classifier": "networks",
         "measure.features": "networks that look at pixels, which they check", "plots": "figures", "explorer.pictures": "figures",
         "explorer.controls": "widgets over explorer.Setting", "explorer.page": "a file of figures",
         "explorer.widget": "widgets over explorer.Setting", "training.run": "files",
         "training.setup": "the arguments of train", "training.recorded": "called by train alone", "training.watched": "a bar around train",
         **dict.fromkeys(("interop", "interop.network", "interop.folders"), "diffusers' own objects"),
         **dict.fromkeys(("study.evaluate", "study.classes", "study.interpolations", "study.signals", "study.tune"), "commands"),
         "study.verdicts": "tables that commands wrote", "study.changes": "the same",
         "series.course": "figures and widgets",
         "series.refresh": "notebooks", "series.reproduce": "notebooks",
         "series.shipped": "commands", "__main__": "commands, whose options tyro checks"}
PACKAGES = {"explorer", "measure", "series", "study", "support", "theory", "training"}  # which hold nothing themselves


def public_names() -> set[str]:
    """module.name and module.Class.method of everything public that is written in one of MODULES."""
    found = set()
    for module in MODULES:
        for name, value in vars(importlib.import_module(f"s2dm_mini.{module}")).items():
            here = getattr(value, "__module__", "") == f"s2dm_mini.{module}"
            if name.startswith("_") or not here or not callable(value) or (inspect.isclass(value) and issubclass(value, Exception)):
                continue
            found.add(f"{module}.{name}")
            methods = vars(value).items() if inspect.isclass(value) else ()
            found |= {f"{module}.{name}.{method}" for method, code in methods
                      if (method == "__call__" or not method.startswith("_")) and isinstance(code, classmethod | type(public_names))}
    return found


def test_every_public_function_is_tried_or_has_a_reason_not_to_be():
    parts = {name for name in public_names() if name.rpartition(".")[0] in REASONS}
    assert public_names() - parts - CASES.keys() - REASONS.keys() == set(), "give these a case or a reason"
    gone = (CASES.keys() | REASONS.keys()) - public_names()
    assert gone == set(), "these are gone or not public"
    assert not CASES.keys() & REASONS.keys()
    modules = {module.name.removeprefix("s2dm_mini.") for module in pkgutil.walk_packages(s2dm_mini.__path__, "s2dm_mini.")}
    assert {m for m in modules - PACKAGES if not m.startswith("samplers.")} == {*MODULES, *ABOVE}, "a module that is new or gone"


# ----------------------------------------------------------------------------------------------- what to try instead

def with_one(x: Tensor, value: float) -> Tensor:
    x = x.clone()
    x[(0,) * x.ndim] = value
    return x


def kind_of(name: str, value: object) -> str:
    if name in ("generator", "features", "distance", "denoiser", "baseline"):
        return {"baseline": "denoiser", "distance": "features"}.get(name, name)
    if isinstance(value, Tensor):
        return "timesteps" if name in ("t", "grid") else "pixels" if value.dtype == torch.uint8 else "tensor"
    kinds = {bool: "flag", int: "integer", float: "number", str: "name", bytes: "bytes", NoiseSchedule: "schedule"}
    return next((kind for python, kind in kinds.items() if isinstance(value, python)), "object")


# What can never be right in the place of such an argument, and what may be.
WRONG = {
    "integer": [-10**12, 1.5, math.nan, True, "3", b"3", [], torch.tensor(1.5), 1j],
    "number": [math.nan, math.inf, -math.inf, "0.5", b"0", 1j],
    "name": ["", "no such name", "ddim\0", "x" * 10_000, 3, [], ["ddim"], b"ddim", 1j, math.nan],
    "bytes": ["text", [], 1j, 2.5, torch.ones(3)],
    "flag": [],
    "tensor": ["x", b"", {}, "0.5", 1j, torch.ones(3, 4, dtype=torch.complex64)],
    "timesteps": [3, "x", [0, 1], np.arange(3), torch.tensor([0, 7, -1]), torch.tensor([0, 7, 20_000]), torch.tensor([0, 1j, 2]),
                  torch.tensor([0.0, math.nan, 2.0]), torch.tensor([True, False, True]), torch.tensor([0.0, -math.inf, 1.0])],
    "pixels": [3, "x", PIXELS.float(), PIXELS.int(), PIXELS.bool(), PIXELS.numpy(), PIXELS[:0]],
    "schedule": ["linear", 20, SCHEDULE.alpha_bar, NoiseSchedule],
    "denoiser": [3, "unet", X, lambda x, t: None, lambda x, t: x[:1, :1], lambda x, t: x.long(), lambda x, t: (x,),
                 lambda x, t: x.flatten()],
    "features": [3, "classifier", X],
    "generator": [3, "seed", X, torch.default_generator.get_state()],
    "object": [3, "x", X, 1j],
}
ODD = {
    "integer": [-1, 0, 1, 2, 7, 2**31, 2**40, 2**63, 10**30, np.int64(2), np.uint8(200), torch.tensor(2)],
    "number": [-1.0, 0.0, 1e308, -1e308, 1e-320, 5e-324, 1e-9, 1.0, 2, 1e15, True, np.float32(0.5), torch.tensor(0.5),
               torch.ones(20), torch.ones(2, 3, 4), []],
    "name": [],
    "bytes": [b"", b"\x89PNG\r\n\x1a\n", 3, -1],
    "flag": [False, 0, "yes", None],
    "tensor": [[1.0], np.ones((3, 4)), 0.5, torch.tensor(1.0), X[:1], X[:, :1], X.half(), X.bfloat16(), X.double(), X.int(), X.bool(), X.T,
               torch.zeros(3, 4), torch.ones(3, 4), 1e15 * torch.ones(3, 4), 1e-30 * X, torch.zeros(12, 2), torch.zeros(1, 1),
               torch.zeros(0), torch.zeros(0, 4), torch.zeros(7, 7, 7, 7), with_one(X, 1e30)],
    "timesteps": [T.float() / 2, T.int(), T.to(torch.uint8), T.to(torch.int8), T.half(), T[:1], T[:0], T[None], T.flip(0), torch.tensor(3)],
    "pixels": [torch.tensor(3, dtype=torch.uint8), PIXELS[:1], PIXELS[:, :1], PIXELS[..., :1], PIXELS[..., :3], PIXELS[None],
               torch.zeros_like(PIXELS), PIXELS[:1].expand(3, -1, -1, -1)],
    "schedule": [NoiseSchedule.linear(2, 0.1, 0.9), *map(NoiseSchedule, ([0.5, 1e-9], [0.5, 1e-300], [1 - 1e-15, 1e-9]))],
    "denoiser": [lambda x, t: torch.zeros_like(x), lambda x, t: x.double(), lambda x, t: 1e15 * x, lambda x, t: x.half()],
    "features": [],
    "generator": [[], [torch.Generator()], [torch.Generator() for _ in range(3)], torch.Generator(), [3, 4, 5]],
    "object": [{}, [], (), (0,), ("a",), {"shape": 3}, FACTORS | {"hue": X}, [{"a": "1"}, {}]],
}
NOT_FINITE = {"tensor": [math.nan, math.inf, -math.inf], "denoiser": [math.nan, math.inf]}


def not_finite(kind: str, good: object) -> list[object]:
    if kind == "tensor":
        return [with_one(good.to(dtype), value) for value in NOT_FINITE["tensor"] for dtype in (torch.float32, torch.float64)]
    return [lambda x, t, value=value: torch.full_like(x, value) for value in NOT_FINITE.get(kind, ())]


# ----------------------------------------------------------------------------------------------------- how to judge

class Hang(Exception):
    pass


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    def stop(*_):
        raise Hang(f"no answer within {seconds} s")

    if not hasattr(signal, "SIGALRM"):  # on Windows a hang ends the whole job
        yield
        return
    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def outcome(call: Callable, arguments: dict[str, object]) -> tuple[str, object]:
    """("answer", value) or ("refusal", its sentence); AssertionError for anything else that may come out."""
    try:
        with warnings.catch_warnings(), time_limit(120):
            warnings.simplefilter("ignore")
            answer = call(**arguments)
            return "answer", list(answer) if isinstance(answer, Iterator) else answer
    except (ValueError, CheckpointError, data.DataError, tables.ResultsError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        ours = last.filename.startswith(PACKAGE) and last.line.startswith("raise ")
        assert ours, f"not this package's own refusal: {error!r} in {last}"
        assert str(error).endswith((".", "?", ")")) and "\n" not in str(error), f"not one sentence: {error}"
        return "refusal", str(error)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise AssertionError(f"{type(error).__name__}: {error}, in {last.filename}:{last.lineno}") from error


def is_finite(value: object) -> bool:
    """No NaN and nothing infinite in a result, whatever it is made of. Errors of a mean may be NaN: with one value they are unknown."""
    if isinstance(value, Tensor):
        return bool(value.isfinite().all())
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(is_finite, value))
    if is_dataclass(value):
        return all(is_finite(getattr(value, f.name)) for f in fields(value) if not f.name.startswith("error"))
    if isinstance(value, (denoisers.GaussianDenoiser, denoisers.MixtureDenoiser, denoisers.Shrunk, NoiseSchedule)):
        return all(map(is_finite, vars(value).values()))
    return True


@pytest.mark.parametrize("function", CASES)
def test_arguments_that_work(function):
    if function in ("data.cifar10.cifar10", "train.load_data"):
        pytest.skip("needs the data, or draws 20,000 pictures")
    said, answer = outcome(CASES[function].call, CASES[function].good)
    assert said == "answer" and is_finite(answer)


# (function, argument) that takes more than its kind lets expect, and why.
LENIENT = {
    ("explorer.setting.Setting", "family"): "the zoo knows the families; explorer.setting.family refuses others",
    ("explorer.setting.Setting", "first"): "a seed or a picture, which is opened when it is drawn",
    ("explorer.setting.Setting", "second"): "the same",
    ("explorer.setting.from_query", "query"): "an address may end in anything",
    ("explorer.ends.upload", "name"): "it only stands in errors",
}


def judge(function: str, given: dict[str, object], must_refuse: str = "") -> None:
    """Call it with these instead of the arguments that work. must_refuse: the one that is wrong, which the refusal must name or show."""
    case = CASES[function]
    said, answer = outcome(case.call, case.good | given)
    if said == "refusal":
        if must_refuse and kind_of(must_refuse, case.good[must_refuse]) != "denoiser":
            assert must_refuse in answer or shown(given[must_refuse]) in answer, answer
    elif not any(name in case.passes_on for name in given):
        assert not must_refuse or (function, must_refuse) in LENIENT, f"{must_refuse} came through: {answer}"
        assert is_finite(answer), f"not finite: {answer}"


def alternatives(function: str, name: str) -> Iterator[tuple[object, bool]]:
    """What may stand in the place of an argument, and whether it must be refused."""
    case = CASES[function]
    good, kind = case.good[name], kind_of(name, case.good[name])
    if name == "folder":
        return  # a path, which the operating system judges
    yield from ((value, True) for value in WRONG[kind] + not_finite(kind, good))
    yield from ((value, False) for value in ODD[kind])
    yield None, inspect.signature(case.call).parameters[name].default is not None


@pytest.mark.parametrize("function", CASES)
def test_one_wrong_argument_at_a_time(function):
    for name in CASES[function].good:
        for value, wrong in alternatives(function, name):
            if function == "data.load_data" and not wrong:
                continue  # it would draw 20,000 pictures
            try:
                judge(function, {name: value}, name if wrong else "")
            except AssertionError as error:
                pytest.fail(f"{function}({name}={value!r}): {error}")


def drawn(rng: random.Random) -> tuple[str, dict[str, object]]:
    """A public function, and some of its arguments replaced."""
    function = rng.choice([name for name in CASES if name not in ("data.load_data", "measure.paths.midpoint_excess")])
    given = {}
    for name, good in CASES[function].good.items():
        if rng.random() < 0.4 and name != "folder":
            given[name] = rng.choice([value for value, _ in alternatives(function, name)] + [random_value(rng, good) for _ in range(8)])
    return function, given


def random_value(rng: random.Random, good: object) -> object:
    if isinstance(good, Tensor):
        shape = rng.choice((tuple(good.shape), tuple(good.shape), [rng.randint(0, 4) for _ in range(rng.randint(0, 4))]))
        x = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(rng.randrange(2**31))) * 10 ** rng.uniform(-6, 4)
        return x.to(good.dtype if rng.random() < 0.7 else rng.choice((torch.float16, torch.float32, torch.float64, torch.int64)))
    if isinstance(good, int):
        return rng.choice((rng.randint(-3, 30), rng.randint(0, 3)))
    if isinstance(good, float):
        return rng.choice((rng.uniform(-1, 2), rng.random(), 10 ** rng.uniform(-300, 15)))
    if isinstance(good, str):
        known = ("ddim", "ddpm", "plms", "tab-deis-3", "rhoab-deis-2", "dpm-solver++", "uniform", "quadratic", "logsnr", "slerp",
                 "independent", "expected", "output", "p2", "l0", "s2dm50", "b0.9", "none", "ring", "spiral", "cpu", "tiny", "bf16")
        return rng.choice((*known, good[:-1], good.upper(), "".join(map(chr, (rng.randrange(0x3000) for _ in range(4))))))
    if isinstance(good, NoiseSchedule):
        return NoiseSchedule(torch.linspace(rng.uniform(0.5, 1 - 1e-9), 10 ** rng.uniform(-9, -0.5), rng.randint(2, 40)))
    return good


@pytest.mark.parametrize("part", range(4))
def test_several_odd_arguments_at_the_same_time(part):
    for number in range(100 * part, 100 * part + 100):
        function, given = drawn(random.Random(f"arguments {number}"))
        try:
            judge(function, given)
        except AssertionError as error:
            pytest.fail(f"input {number}, {function}({given}): {error}")


@pytest.mark.parametrize(("reader", "inputs"), [
    *((reader, 300) for reader in ("cifar10-file", "checkpoint", "reference", "results", "parameters")),
    ("diffusers-checkpoint", 40)])
def test_damaged_files(reader, inputs, tmp_path):
    from stress.fuzz import failures_of  # which imports this module

    assert failures_of(reader, range(inputs), tmp_path) == []
