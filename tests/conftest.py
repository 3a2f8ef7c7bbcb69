"""What all tests share: one thread, so that sums run in one order on every machine, and an empty zoo to write into."""
import pytest
import torch

from s2dm_mini import checkpoints

torch.set_num_threads(1)


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A folder of shipped checkpoints of its own, empty at first; returns its path."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    monkeypatch.setattr(checkpoints, "ZOO", folder)
    return folder
