"""Train the classifier whose features distances are measured in, and compute the reference of the training images in them."""
from pathlib import Path

from ..data.cifar10 import cifar10
from ..measure.classifier import ClassifierConfig, save_classifier
from ..measure.classifier import train_classifier as epochs
from ..measure.features import CLASSIFIERS, ClassifierFeatures
from ..measure.references import Reference, write_reference
from ..support.files import sole_writer
from ..support.progress import bar


def train_classifier(config: ClassifierConfig, out: Path = Path("runs/classifier")) -> str:
    """Train the CIFAR-10 classifier in whose features distances are measured; the same command goes on after a stop.

    Args:
        config: how to train it
        out: folder for cifar10-classifier.safetensors, of the residual network cifar10-plain.safetensors, and its reference
    """
    name = CLASSIFIERS["own" if config.network == "whitened" else "plain"]
    images, path, state = cifar10("train"), out / f"{name}.safetensors", out / "state.safetensors"
    with sole_writer(path, state):
        with bar("training the classifier", config.epochs) as progress:
            for record in epochs(config, images, cifar10("test"), state):
                progress.set_postfix_str(f"loss {record.loss:.3f}, test accuracy {record.accuracy:.2%}", refresh=False)
                progress.update(record.epoch - progress.n)
        save_classifier(path, record, config, images)
        features = ClassifierFeatures(path)
        write_reference(out / f"{images.name}.{name}.safetensors", Reference.of(features(images.pixels)), images, features)
        state.unlink()
    return f"{record.minutes:.1f} minutes, accuracy on the test split {record.accuracy:.2%}: {path}"
