"""What all tests share: one thread, so that sums run in one order on every machine; an empty zoo to write into; real pictures."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from s2dm_mini import checkpoints, cifar10

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes and kernels that tests start: beside a second worker's, two threads each crawl

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))  # scripts that tests try, and that fill the zoo

UNPACK = Path(__file__).resolve().parents[2] / "shared" / "tools" / "unpack_cifar10.py"


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A folder of shipped checkpoints of its own, empty at first; returns its path."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    monkeypatch.setattr(checkpoints, "ZOO", folder)
    return folder


@pytest.fixture(scope="session")
def classifier_features():
    """The shipped classifier's features."""
    from s2dm_mini.measure.features import ClassifierFeatures

    return ClassifierFeatures()


@pytest.fixture(scope="session")
def real_cifar10(tmp_path_factory):
    """CIFAR-10 by split, where the real images are beside the checkout; the test is skipped where they are not.

    Read here and now: a test may have shortened the files by the time it looks at them.
    """
    if not UNPACK.exists():
        pytest.skip("the real images are not beside this checkout")
    folder = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, str(UNPACK), str(folder)], check=True, capture_output=True)
    return {split: cifar10(split, folder) for split in ("train", "test")}
