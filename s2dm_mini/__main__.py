"""The command line: `python -m s2dm_mini COMMAND --help`. Options are made from the same dataclasses and functions."""
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .checkpoints import CheckpointError, interop, schedule_of
from .data.images import DataError
from .measure.classifier import ClassifierConfig
from .series.refresh import RefreshError
from .series.reproduce import ReproductionError, reproduce
from .study.plan import Group
from .study.tables import ResultsError
from .training.config import PAPER, TrainConfig
from .training.run import TrainingError
from .training.watched import train_with_bar

Config = Annotated[TrainConfig, tyro.conf.arg(name="")]  # its fields become options without a prefix


def train_command(config: Config, resume: bool = False, evaluate: tuple[int, ...] = (), samples: int = 5_000) -> None:
    """Train a network: `train --minutes 60 --tau 1 --out runs/l0`; --resume goes on where it stopped.

    Args:
        config: what to train, on what, how, for how long
        resume: go on from the checkpoint in --out
        evaluate: measure the network afterwards, as the command evaluate does: with DDIM in so many steps, e.g. 10 20
        samples: number of images of each measurement
    """
    if evaluate and config.out is None:
        raise ValueError("to evaluate, set out to the folder of the run.")
    first_rank = os.environ.get("RANK", "0") == "0"
    outcome = train_with_bar(config, resume)
    record = outcome.record
    if record is None:
        print(f"Nothing left to train: the run in {config.out} has already spent this budget.")
    elif outcome.stopped:
        then = f"Its state is in {config.out}; --resume goes on." if config.out else "Without --out, nothing was kept."
        raise KeyboardInterrupt(f"stopped after step {record.step:,}. {then}")
    elif first_rank:
        print(f"Trained {record.step:,} steps, {record.images_seen:,} images, {record.minutes:.1f} minutes; loss {record.loss:.4f}."
              + (f" Network: {config.out / 'model.safetensors'}" if config.out else ""))
    for steps in evaluate if first_rank else ():
        evaluate_command(str(config.out / "model.safetensors"), steps=steps, samples=samples, device=config.device)


def train_paper_command(config: Config = PAPER, resume: bool = False, evaluate: tuple[int, ...] = (), samples: int = 5_000) -> None:
    """Like `train`, with the setting of the released S²-DM code as defaults.

    Args:
        config: what to train, on what, how, for how long
        resume: go on from the checkpoint in --out
        evaluate: measure the network afterwards, as the command evaluate does: with DDIM in so many steps, e.g. 10 20
        samples: number of images of each measurement
    """
    train_command(config, resume, evaluate, samples)


def export_command(checkpoint: Annotated[str, tyro.conf.Positional], folder: Annotated[Path, tyro.conf.Positional]) -> None:
    """Write a network and its schedule as a folder that diffusers loads: `DDPMPipeline.from_pretrained(folder)`.

    Args:
        checkpoint: a shipped network's name, or a file that `train` wrote
        folder: to write; what a pipeline there is made of is replaced
    """
    from .checkpoints import open_network

    network, record = open_network(checkpoint)
    interop().save_pipeline(network, schedule_of(record), folder)
    print(f"A pipeline for diffusers: {folder}")


def sample_command(checkpoint: Annotated[str, tyro.conf.Positional], n: int = 64, sampler: str = "ddim", steps: int = 50,
                   spacing: str = "uniform", eta: float = 0.0, seed: int = 0, columns: int = 8, enlarge: int = 3,
                   out: Path = Path("samples.png"), device: str = "auto") -> None:
    """Draw images from a checkpoint and write them as one PNG.

    Args:
        checkpoint: a shipped network's name, or a file that `train` wrote
        n: number of images
        sampler: see s2dm_mini.samplers
        steps: of the sampler
        spacing: of the timesteps: uniform, quadratic, trailing, logsnr
        eta: noise added by DDIM
        seed: of the starting noise; image i depends on the seed and i only
        columns: images in a row
        enlarge: pixels a pixel
        out: the PNG file
        device: auto, cpu, cuda
    """
    from .study.evaluate import samples_picture

    print(samples_picture(checkpoint, out, n, sampler, steps, spacing, eta, seed, columns, enlarge, device))


def evaluate_command(checkpoint: Annotated[str, tyro.conf.Positional], sampler: str = "ddim", steps: int = 50, spacing: str = "quadratic",
                     eta: float = 0.0, samples: int = 5_000, seed: int = 0, features: str = "classifier", device: str = "auto",
                     table: Path | None = None) -> None:
    """Measure how far a checkpoint's samples are from the pictures it was trained on, and append the row to data/results.

    Args:
        checkpoint: a shipped network's name, or a file that `train` wrote
        sampler: see s2dm_mini.samplers
        steps: of the sampler
        spacing: of the timesteps: uniform, quadratic, trailing, logsnr
        eta: noise added by DDIM
        samples: number of images; distances are too large where they are few
        seed: of the starting noise; every checkpoint starts from the same
        features: classifier (the package's own; not FID), inception (as in the literature), or a TorchScript file of Inception
        device: auto, cpu, cuda
        table: CSV file to append to; by default data/results/evaluations.csv
    """
    from .study.evaluate import evaluate

    row = evaluate(checkpoint, sampler, steps, spacing, eta, samples, seed, features, device, table)
    print(f"{row['checkpoint']}, {row['sampler']}, {steps} steps on the {spacing} grid, {row['nfe']} network evaluations an image")
    print(f"Fréchet distance in {row['features']} features, {samples:,} samples: {row['fd']:.4g}; "
          f"for infinitely many: {row['fd_infinite']:.4g}" + (" (too few samples)" if row["fd_infinite"] != row["fd_infinite"] else ""))
    print(f"KID in the same: {row['kid']:.3e} (its subsets scatter by {row['kid_deviation']:.1e}); "
          f"precision {row['precision']:.3f}, recall {row['recall']:.3f}")
    print(f"{row['seconds']:.1f} s of sampling, {samples / row['seconds']:,.0f} images/s on {row['device']}")
    if row["features"] != "inception":
        print("This is not the FID of the literature: compare it only with distances in the same features.")


def evaluate_classes_command(checkpoint: Annotated[str, tyro.conf.Positional], weight: float = 2.0, scale: str = "none", steps: int = 10,
                             spacing: str = "quadratic", samples: int = 500, seed: int = 0, device: str = "auto",
                             table: Path | None = None) -> None:
    """Measure whether samples are of the class asked for, and how far from its pictures, and append the rows to data/results.

    Args:
        checkpoint: a network that takes labels: a shipped one's name, or a file that `train` wrote
        weight: of guidance; 1 is none
        scale: what the guided noise prediction is multiplied by: none, s2dmK (s_t for skip K − 1, τ 0.99), or bX (1/X)
        steps: of DDIM
        spacing: of the timesteps: uniform, quadratic, trailing, logsnr
        samples: number of images, equally many of each class
        seed: of the starting noise; every checkpoint, weight and scale starts from the same
        device: auto, cpu, cuda
        table: CSV file to append to; by default data/results/conditional.csv
    """
    from .study.classes import evaluate_classes

    for row in evaluate_classes(checkpoint, weight, scale, steps, spacing, samples, seed, device, table):
        print(f"{row['class']:12} right {row['accuracy']:.1%}, KID {row['kid']:.4f}")


def interpolate_command(checkpoints: Annotated[tuple[str, ...], tyro.conf.Positional], against: str = "nano-cifar10-l0",
                        way: str = "slerp", against_way: str = "slerp", pairs: int = 200, frames: int = 7, steps: int = 10,
                        spacing: str = "quadratic", seed: int = 0, features: str = "classifier", real: bool = False, device: str = "auto",
                        table: Path | None = None) -> None:
    """Measure interpolations of checkpoints against those of another, or by another way, and append the rows to data/results.

    Args:
        checkpoints: shipped networks' names, or files that `train` wrote
        against: one of these, to compare each with on the same noises
        way: slerp or lerp
        against_way: of the other one
        pairs: of noises, between which strips are drawn
        frames: of a strip; an odd number, so that one is in the middle
        steps: of DDIM
        spacing: of the timesteps: uniform, quadratic, trailing, logsnr
        seed: of the noises
        features: classifier, inception, or a TorchScript file of Inception
        real: also encode as many pictures of CIFAR-10's test split as there are pairs, and draw them again
        device: auto, cpu, cuda
        table: CSV file to append to; by default data/results/interpolation.csv
    """
    from .study.interpolations import compare_interpolations

    for row in compare_interpolations(checkpoints, against, way, against_way, pairs, frames, steps, spacing, seed, features, real, device,
                                      table):
        if row["measure"] == "mean step":  # the first of each
            print(f"{row['checkpoint']}, {row['way']}, against {row['against']}, {row['against_way']}")
        clear = abs(row["difference"]) > 2 * row["difference_error"]
        print(f"{row['measure']:43} {row['mean']:9.4g} ± {row['error']:.2g}   "
              f"against {row['against_mean']:9.4g} ± {row['against_error']:.2g}   "
              f"difference {row['difference']:+.4g} ± {row['difference_error']:.2g}" + ("" if clear else ", within its error"))


def tune_command(checkpoint: Annotated[str, tyro.conf.Positional], sampler: str = "ddim", steps: int = 10, spacing: str = "quadratic",
                 samples: int = 512, seed: int = 100, held_out: int = 5, evaluations: int = 24, against: tuple[str, ...] = ("s2dm50",),
                 features: str = "classifier", device: str = "auto", table: Path | None = None) -> None:
    """Fit a scale of ε to a checkpoint, a sampler and a number of steps, without training, and measure it on other seeds.

    Args:
        checkpoint: a shipped network's name, or a file that `train` wrote
        sampler: see s2dm_mini.samplers
        steps: of the sampler
        spacing: of the timesteps: uniform, quadratic, trailing, logsnr
        samples: number of images of each candidate, and of each measurement
        seed: of the starting noise of all candidates
        held_out: number of seeds after it, on which the result is measured
        evaluations: number of candidates
        against: scales to measure beside it, named as in the ledger, e.g. s2dm50 b1.017
        features: classifier (the package's own; not FID), inception, or a TorchScript file of Inception
        device: auto, cpu, cuda
        table: CSV file to append to; by default data/results/tune.csv
    """
    from .study.tune import summary, tune

    rows = tune(checkpoint, sampler, steps, spacing, samples, seed, held_out, evaluations, against, features, device, table)
    print(f"{rows[0]['sampler']}, {steps} steps on the {spacing} grid; Fréchet distance and KID in {rows[0]['features']} features, "
          f"{held_out} held-out seeds of {samples:,} samples each; changes are paired, ± standard error")
    for s in summary(rows):
        print(f"{s.scale:10} λ {s.lambda_first:.4f} … {s.lambda_last:.4f}   FD {s.fd:8.4g} ± {s.fd_error:.2g} "
              f"({100 * s.fd_change:+.1f} ± {100 * s.fd_change_error:.1f} %)   "
              f"KID {s.kid:.3e} ({100 * s.kid_change:+.1f} ± {100 * s.kid_change_error:.1f} %)")
        if s.scale == "line":
            use = f"Shrunk(network, line({s.lambda_first}, {s.lambda_last}))  # from s2dm_mini.scales import line"
    print(f"To sample with it: {use}")


def compare_signals_command(seed: int = 0, settings: tuple[str, ...] = ("s2dm10", "s2dm50"), images: int = 12_800, samples: int = 400,
                            steps: tuple[int, ...] = (5, 10, 20, 50), device: str = "auto", table: Path | None = None) -> None:
    """Fine-tune the shipped network of waves with L_0 and with S²-DM, measure both and the closed form, and append to data/results.

    Args:
        seed: of the training and of the starting noise; several make error bars
        settings: see s2dm_mini.study.plan.TWINS
        images: waves that each network is fine-tuned on
        samples: drawn from each
        steps: of DDIM, on the quadratic grid
        device: auto, cpu, cuda
        table: CSV file to append to; by default data/results/signals.csv
    """
    from .study.signals import compare_signals

    for row in compare_signals(seed, settings, images, samples, steps, device=device, table=table):
        print(f"{row['setting']}, {row['how']}, {row['steps']:2} steps: distance {row['distance']:.4f}, spectrum {row['spectrum']:.2f} dB, "
              f"residual {row['residual']:.4f}")


def train_classifier_command(config: Annotated[ClassifierConfig, tyro.conf.arg(name="")], out: Path = Path("runs/classifier")) -> None:
    """Train the CIFAR-10 classifier that distances are measured in, and work out the reference of the training images; stopped and started
    again, it goes on after the last epoch that was finished.

    Args:
        config: how to train it
        out: folder for cifar10-classifier.safetensors and cifar10-train.cifar10-classifier.safetensors
    """
    from .data.cifar10 import cifar10
    from .measure.classifier import save_classifier, train_classifier
    from .measure.features import CLASSIFIER, ClassifierFeatures
    from .measure.references import compute_reference, write_reference
    from .support.files import sole_writer
    from .support.progress import bar

    images, path, state = cifar10("train"), out / f"{CLASSIFIER}.safetensors", out / "state.safetensors"
    with sole_writer(path, state):
        with bar("training the classifier", config.epochs) as progress:
            for record in train_classifier(config, images, cifar10("test"), state):
                progress.set_postfix_str(f"loss {record.loss:.3f}, test accuracy {record.accuracy:.2%}", refresh=False)
                progress.update(record.epoch - progress.n)
        save_classifier(path, record, config, images)
        features = ClassifierFeatures(path)
        write_reference(out / f"{images.name}.{CLASSIFIER}.safetensors", compute_reference(images, features), images, features)
        state.unlink()
    print(f"{record.minutes:.1f} minutes, accuracy on the test split {record.accuracy:.2%}: {path}")


def eigenvalues_command(out: Path = Path("runs/cifar10-train.eigenvalues.safetensors")) -> None:
    """Work out the eigenvalues of the covariance of CIFAR-10's training images, which predictions rest on; a copy is shipped.

    Args:
        out: the file to write
    """
    from .data.cifar10 import cifar10
    from .theory.gaussian import save_eigenvalues

    values = save_eigenvalues(out, cifar10("train"))
    print(f"{len(values):,} eigenvalues from {values[0]:.1f} down, their sum {values.sum():.1f}: {out}")


def zoo_command(size: str = "quick", out: Path = Path("runs/zoo"), only: tuple[str, ...] = (), ship: bool = False, device: str = "auto",
                table: Path | None = None) -> None:
    """Train, measure and draw the networks that the package ships; started again, it goes on where it stopped.

    Args:
        size: quick (a CPU, minutes, shapes), cpu (a CPU, hours, CIFAR-10), full (one GPU, three quarters of an hour, CIFAR-10)
        out: folder for the trainings
        only: members to make, by the beginning of their names, e.g. nano-cifar10-s2dm10
        ship: put them into data/checkpoints and data/pictures, where load_pretrained finds them
        device: auto, cpu, cuda
        table: CSV file for the measurements; by default data/results/evaluations.csv
    """
    from .study.zoo import build_zoo

    if not build_zoo(size, out, only, ship, device, table):
        raise KeyboardInterrupt
    print(f"All done, in {out}.")


def ledger_command(stage: Annotated[Literal["train", "sample", "measure"], tyro.conf.Positional],
                   group: Annotated[Group, tyro.conf.arg(name="")], size: str = "quick",
                   out: Path = Path("runs/ledger"), device: str = "auto", table: Path | None = None) -> None:
    """One step towards the ledger, data/results/ledger-SIZE.csv: `snakemake --cores 2 --config size=quick` runs all that it lacks.

    Args:
        stage: train a network, sample from it, or measure the samples
        group: which network, scaled how, with which sampler; all step counts of the size are done
        size: dry (does it run?), quick (a CPU, minutes, shapes), cpu (a CPU, a night, CIFAR-10), full (one GPU, CIFAR-10)
        out: folder for networks and samples
        device: auto, cpu, cuda
        table: CSV file to append to; by default data/results/ledger-SIZE.csv
    """
    from .study.ledger import measure_group, sample_group, train_network

    if stage == "train":
        if not train_network(size, group, out, device):
            raise KeyboardInterrupt
    elif stage == "sample":
        print(f"{len(sample_group(size, group, out, device, table))} sets of samples in {out}")
    else:
        for row in measure_group(size, group, out, table):
            name = f"{row['setting']}, seed {row['training_seed']}, {row['sampler']}, {row['steps']} steps"
            print(f"{name}: Fréchet distance {row['fd']:.3f} in {row['features']} features")


def predict_command(size: str = "cpu", table: Path | None = None) -> None:
    """Write down what theory foresees for every cell of the ledger: to be done before anything is measured.

    Args:
        size: of the ledger, quick, cpu or full
        table: CSV file to write; by default data/results/predictions-SIZE.csv
    """
    from .study.ledger import predict

    print(f"{len(predict(size, table))} cells predicted")


def verdicts_command(size: str = "cpu", table: Path | None = None) -> None:
    """Judge each claim of the paper by the ledger; writes verdicts-SIZE.md beside the table and prints it.

    Args:
        size: of the ledger, quick, cpu or full
        table: the ledger; by default data/results/ledger-SIZE.csv
    """
    from .study.ledger import table_of
    from .study.verdicts import report
    from .support.files import write_whole

    table = table or table_of(size)
    text = report(size, table)
    write_whole(table.with_name(f"verdicts-{size}.md"), text.encode())
    print(text)


def reproduce_command(only: tuple[str, ...] = (), set: tuple[str, ...] = (), out: Path = Path("build/reproduction")) -> None:
    """Run the notebook series and gather its pictures and checks in index.html.

    Args:
        only: notebooks to run, by the beginning of their names, e.g. 01 02
        set: papermill parameters for the notebooks that have them, e.g. profile=quick seed=1
        out: folder for the executed notebooks and index.html
    """
    print(f"All done: {reproduce(out, only, list(set))}")


def refresh_command(notebooks: Annotated[tuple[Path, ...], tyro.conf.Positional], timeout: float = 900) -> None:
    """Execute notebooks in place and store their outputs, with a hash of the code that made them.

    Args:
        notebooks: files, e.g. notebooks/05_samplers.ipynb
        timeout: seconds that one cell may take
    """
    from .series.refresh import refresh

    for path in notebooks:
        print(f"{path}: {refresh(path, timeout):.0f} s", flush=True)


def fetch_command(dataset: Annotated[str, tyro.conf.Positional] = "cifar10", folder: Path | None = None) -> None:
    """Download a data set, check it and unpack it; CelebA has to be downloaded by hand, which is said if it was not.

    Args:
        dataset: cifar10 or celeba
        folder: where to; by default the folder S2DM_DATA names, else the user's cache folder
    """
    from .data.celeba import celeba
    from .data.cifar10 import fetch_cifar10
    from .data.images import data_folder

    if dataset == "cifar10":
        print(f"CIFAR-10 is in {fetch_cifar10(folder)}")
    elif dataset == "celeba":
        print(f"CelebA is in {folder or data_folder()}, {len(celeba(folder=folder)):,} training images")
    else:
        raise ValueError(f"the data sets that can be fetched are cifar10 and celeba, not {dataset!r}.")


COMMANDS = {"train": train_command, "train-paper": train_paper_command, "export": export_command, "sample": sample_command,
            "evaluate": evaluate_command, "evaluate-classes": evaluate_classes_command,
            "interpolate": interpolate_command, "compare-signals": compare_signals_command, "tune": tune_command,
            "train-classifier": train_classifier_command, "eigenvalues": eigenvalues_command, "zoo": zoo_command,
            "predict": predict_command, "ledger": ledger_command, "verdicts": verdicts_command,
            "reproduce": reproduce_command, "refresh": refresh_command, "fetch": fetch_command}
# After Ctrl-C: what is kept and how to go on. Commands that are not here write all they have to at their end.
KEPT = {"train": "the last checkpoint in --out, if there is one yet, is kept; --resume goes on from it."}
KEPT["train-paper"] = KEPT["train"]


KEPT |= dict.fromkeys(("zoo", "ledger", "reproduce", "fetch", "train-classifier"), "what was finished is kept; the same command goes on.")


KEPT["refresh"] = "notebooks that were not finished are as they were."


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # sent by Slurm and `docker stop`: end as at Ctrl-C
    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="python -m s2dm_mini", description=__doc__)
    except (CheckpointError, DataError, TrainingError, RefreshError, ReproductionError, ResultsError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt as stop:
        kept = KEPT.get(sys.argv[1] if len(sys.argv) > 1 else "", "nothing was written; the same command starts again.")
        print(f"\n{str(stop) or f'stopped: {kept}'}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
