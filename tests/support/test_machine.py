"""Devices are opened by name or refused with a sentence, and results are stamped."""
import re
import subprocess

import pytest
import torch

from s2dm_mini.support import machine
from s2dm_mini.support.machine import open_device, stamp


def test_devices_by_name(monkeypatch):
    assert open_device("cpu") == torch.device("cpu")
    for found in (0, 2):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=found: found > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda found=found: found)
        assert open_device("auto") == torch.device("cuda" if found else "cpu")
    assert open_device("cuda") == torch.device("cuda") and open_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match=r"device = cuda:2 needs a GPU that PyTorch does not find here \(2 found\): choose auto or cpu\."):
        open_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "", "CPU", "meta", "cuda:", "cuda:-1", "cuda:999", "cpu\0", 3, None, True])
def test_names_that_are_no_device(name):
    with pytest.raises(ValueError, match=rf"^device must be auto, cpu or cuda, not {re.escape(repr(name))}\.$"):
        open_device(name)


def test_a_gpu_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match=r"device = cuda needs a GPU .*\(0 found\)"):
        open_device("cuda")


def test_stamp(monkeypatch):
    monkeypatch.setattr(machine, "git_commit", lambda: "0123456789ab+")
    found = stamp(torch.device("cpu"))
    assert list(found) == ["device", "torch", "commit", "date"]
    assert found["torch"] == torch.__version__ and found["commit"] == "0123456789ab+" and "threads" in found["device"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d", found["date"])


def test_the_commit_is_of_a_checkout_that_tracks_the_package(tmp_path, monkeypatch):
    """Not of another repository around the folder that the package was installed into."""
    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True)

    place = tmp_path / "site-packages" / "machine.py"
    place.parent.mkdir()
    place.write_text("", encoding="utf-8")
    monkeypatch.setattr(machine, "__file__", str(place))
    git("init")
    (tmp_path / "other.txt").write_text("", encoding="utf-8")
    git("add", "other.txt")
    git("commit", "-m", "other")
    assert machine.git_commit() == "unknown"
    git("add", "site-packages/machine.py")
    git("commit", "-m", "package")
    assert re.fullmatch(r"[0-9a-f]{12}", machine.git_commit())
