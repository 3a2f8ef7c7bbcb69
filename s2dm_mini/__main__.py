"""The command line, `python -m s2dm_mini COMMAND`: the options of a command are the arguments of its function."""
import os
import signal
import sys
from pathlib import Path

import tyro

from .checkpoints import CheckpointError, interop, open_network, schedule_of
from .data.celeba import celeba
from .data.cifar10 import fetch_cifar10
from .data.images import DataError, data_folder
from .series.refresh import RefreshError, refresh_all
from .series.reproduce import ReproductionError, reproduce
from .series.shipped import lay_out, open_explorer, open_lab
from .study import classes, interpolations, ledger, tune, verdicts
from .study import evaluate as measuring
from .study.tables import ResultsError
from .support.checks import check_integer, check_name
from .support.progress import set_up_terminal
from .training.config import PAPER, TrainConfig
from .training.setup import TrainingError, is_first_process
from .training.watched import train_with_bar


def train(config: TrainConfig, resume: bool = False, evaluate: tuple[int, ...] = (), samples: int = 5_000) -> None:
    """Train a network: `train --minutes 60 --tau 1 --out runs/l0`.

    Args:
        config: the data, the network, the loss and the budget
        resume: go on from the checkpoint in --out
        evaluate: then measure the network, as the command evaluate does, with DDIM in these numbers of steps, e.g. 10 20
        samples: number of images of each measurement
    """
    if evaluate and config.out is None:
        raise ValueError("to evaluate, set out to the folder of the run.")
    for steps in evaluate:
        check_integer("evaluate", steps, 1, config.T, ", numbers of steps")
    check_integer("samples", samples, 4)
    if config.out is None and is_first_process():
        print("The network will not be kept: --out names no folder for it.", file=sys.stderr)
    record = train_with_bar(config, resume)
    if not is_first_process():
        return
    network = f" Network: {config.out / 'model.safetensors'}" if config.out else ""
    print(f"Nothing left to train: the run in {config.out} has already spent this budget." if record is None else
          f"Trained {record.step:,} steps, {record.images_seen:,} images, {record.minutes:.1f} minutes; loss {record.loss:.4f}.{network}")
    for steps in evaluate:
        rows = measuring.evaluate(str(config.out / "model.safetensors"), steps=steps, samples=samples, device=config.device)
        print(measuring.sentences(rows))


def train_paper(config: TrainConfig = PAPER, resume: bool = False, evaluate: tuple[int, ...] = (), samples: int = 5_000) -> None:
    """Train a network with the setting of the released S²-DM code as defaults.

    Args:
        config: the data, the network, the loss and the budget
        resume: as for train
        evaluate: as for train
        samples: as for train
    """
    train(config, resume, evaluate, samples)


def export(checkpoint: str, folder: Path) -> str:
    """Write a network and its schedule as a pipeline of diffusers, for `DDPMPipeline.from_pretrained(folder)`.

    Args:
        checkpoint: a shipped network's name, or a file that `train` wrote
        folder: the pipeline's folder; an earlier pipeline there is replaced
    """
    network, record = open_network(checkpoint)
    interop().save_pipeline(network, schedule_of(record), folder)
    return f"A pipeline for diffusers: {folder}"


def fetch(dataset: str = "cifar10", /, folder: Path | None = None) -> str:
    """Download a data set, check it and unpack it; for CelebA, check and read the archive downloaded by hand.

    Args:
        dataset: cifar10 or celeba
        folder: folder of the data; by default the one that S2DM_DATA names, else the user's cache
    """
    check_name("dataset", dataset, ("cifar10", "celeba"))
    if dataset == "cifar10":
        return f"CIFAR-10 is in {fetch_cifar10(folder)}"
    return f"CelebA is in {folder or data_folder()}, {len(celeba(folder=folder)):,} training images"


USE = {"notebooks": lay_out, "lab": open_lab, "explore": open_explorer, "train": train, "train-paper": train_paper,
       "sample": measuring.samples_picture, "evaluate": measuring.evaluate, "evaluate-classes": classes.evaluate_classes, "tune": tune.tune,
       "export": export, "fetch": fetch, "reproduce": reproduce}
STUDY = {"ledger": ledger.run_stage, "predict": ledger.predict, "verdicts": verdicts.write_verdicts,
         "interpolate": interpolations.compare_interpolations,
         "refresh": refresh_all}
COMMANDS = USE | STUDY
# The text printed for what a command returns, where that is not a text.
SAYS = {"evaluate": measuring.sentences, "evaluate-classes": classes.sentences, "tune": tune.sentences, "reproduce": "All done: {}".format,
        "interpolate": interpolations.sentences,
        "predict": lambda cells: f"{len(cells)} cells predicted"}
# The text after Ctrl-C: what is kept and how to go on. Other commands write everything at their end.
KEPT = {**dict.fromkeys(("train", "train-paper"), "the last checkpoint in --out, if there is one yet, is kept; --resume goes on from it."),
        **dict.fromkeys(("ledger", "reproduce", "fetch", "notebooks", "lab", "explore"),
                        "what was finished is kept; the same command goes on."),
        "refresh": "notebooks that were not finished are as they were."}


def overview() -> str:
    """The help of the command line: every command with the first line of its function's docstring."""
    lines = ["usage: python -m s2dm_mini COMMAND [OPTIONS]; `python -m s2dm_mini COMMAND --help` lists the options."]
    for title, commands in (("use", USE), ("study", STUDY)):
        lines += ["", f"{title}:", *(f"  {name:17} {function.__doc__.splitlines()[0]}" for name, function in commands.items())]
    return "\n".join(lines)


def main() -> None:
    set_up_terminal()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # sent by Slurm and `docker stop`: end as at Ctrl-C
    name, *options = sys.argv[1:] or ["--help"]
    try:
        if name in ("-h", "--help"):
            result = overview()
        else:
            check_name("command", name, COMMANDS)
            result = tyro.cli(COMMANDS[name], prog=f"python -m s2dm_mini {name}", args=options,
                              config=(tyro.conf.PositionalRequiredArgs, tyro.conf.OmitArgPrefixes))
        if result is not None:
            print(SAYS.get(name, str)(result), flush=True)
    except BrokenPipeError:  # the reader of stdout, such as `head`, has seen enough
        os._exit(0)
    except (CheckpointError, DataError, TrainingError, RefreshError, ReproductionError, ResultsError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt as stop:
        kept = KEPT.get(name, "nothing was written; the same command starts again.")
        print(f"\n{str(stop) or 'stopped'}: {kept}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
