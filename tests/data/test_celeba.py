"""CelebA from an archive in the official layout, drawn here: read, damaged, and through to a trained network."""
import hashlib
import io
import sys
import threading
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from s2dm_mini import NoiseSchedule, data
from s2dm_mini.__main__ import main
from s2dm_mini.checkpoints import load_model
from s2dm_mini.data import DataError
from s2dm_mini.data import celeba as reader
from s2dm_mini.data.celeba import celeba
from s2dm_mini.measure.draw import draw
from s2dm_mini.measure.metrics import frechet_distance
from s2dm_mini.study import evaluate
from s2dm_mini.unet import PRESETS, UNetConfig

SPLITS = {"train": 14, "valid": 4, "test": 6}
N = sum(SPLITS.values())
ZIP = "img_align_celeba.zip"


def jpeg(i, size=(178, 218)):
    """Photograph i: rough noise under fine noise, so that neither a shift nor another scaling goes unseen."""
    random = np.random.default_rng(i)
    rough = np.asarray(Image.fromarray(random.integers(0, 256, (14, 11, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC))
    fine = np.clip(rough + random.normal(0, 20, rough.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(fine).save(file, "JPEG", quality=85)
    return file.getvalue()


PHOTOGRAPHS = [jpeg(i) for i in range(N)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the archive, which is taken for the published one."""
    with zipfile.ZipFile(tmp_path / ZIP, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("img_align_celeba/", b"")
        for i, photograph in enumerate(PHOTOGRAPHS, 1):
            archive.writestr(f"img_align_celeba/{i:06}.jpg", photograph)
    monkeypatch.setattr(reader, "SPLITS", SPLITS)
    monkeypatch.setattr(reader, "ARCHIVE_MD5", hashlib.md5((tmp_path / ZIP).read_bytes()).hexdigest())
    monkeypatch.delenv("S2DM_DATA", raising=False)
    return tmp_path


def left(folder):
    """What there is in the folder, hidden files (locks) aside."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def refused(folder, said, size=8):
    """A sentence or two on one line, and nothing left behind."""
    before = left(folder)
    with pytest.raises(DataError, match=said) as caught:
        celeba("train", size, folder)
    assert "\n" not in str(caught.value) and left(folder) == before
    return str(caught.value)


def by_hand(i, size):
    """The crop of the DDIM code, rows 57 to 184 and columns 25 to 152, each axis under a triangle as wide as two new pixels."""
    whole = np.asarray(Image.open(io.BytesIO(PHOTOGRAPHS[i]))).astype(float)[57:185, 25:153]  # (128, 128, 3)
    ratio = 128 / size
    new, old = (np.arange(size)[:, None] + 0.5) * ratio, np.arange(128)[None] + 0.5
    weight = np.clip(1 - np.abs(new - old) / ratio, 0, None)  # (size, 128)
    weight /= weight.sum(1, keepdims=True)
    return weight @ whole.transpose(2, 0, 1) @ weight.T  # (3, size, size)


@pytest.mark.parametrize("size", [64, 32, 128, 40])
def test_each_split_is_cropped_scaled_and_in_order(folder, size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of tensors on memory that may not be written
        found = {split: celeba(split, size, folder) for split in SPLITS}
    wanted = np.stack([by_hand(i, size) for i in range(N)])
    pixels = torch.cat([images.pixels for images in found.values()])
    assert pixels.shape == wanted.shape and pixels.dtype == torch.uint8
    assert np.abs(pixels.numpy() - wanted).max() <= 1.01  # Pillow rounds twice, once an axis
    for split, images in found.items():
        assert images.name == f"celeba{size}-{split}" and len(images) == SPLITS[split]
        assert images.labels.tolist() == [0] * len(images) and images.labels.dtype == torch.int64 and images.classes == ("face",)


def test_the_published_splits():
    assert reader.SPLITS == {"train": 162_770, "valid": 19_867, "test": 19_962} and sum(reader.SPLITS.values()) == 202_599


@pytest.mark.parametrize("size", [7, 129])
def test_sizes_and_splits_out_of_range(folder, size):
    with pytest.raises(ValueError, match=rf"size must be an integer in 8\.\.128.*not {size}"):
        celeba(size=size, folder=folder)
    with pytest.raises(ValueError, match="train, valid, test, not 'all'"):
        celeba("all", folder=folder)


def test_the_archive_is_read_once(folder):
    first = celeba("train", 8, folder)
    assert left(folder) == {ZIP, "celeba8.npy"}
    (folder / ZIP).unlink()
    assert celeba("train", 8, folder).pixels.equal(first.pixels)
    refused(folder, "downloaded by hand", size=16)  # another size, another file


def test_pixels_are_mapped_and_the_file_stays_as_it_is(folder):
    images = celeba("train", 8, folder)
    cache = folder / "celeba8.npy"
    before = cache.read_bytes()
    if Path("/proc/self/maps").exists():
        assert cache.name in Path("/proc/self/maps").read_text(encoding="utf-8")
    images.pixels.add_(1)
    assert cache.read_bytes() == before and not celeba("train", 8, folder).pixels.equal(images.pixels)
    cache.chmod(0o400)
    assert len(celeba("train", 8, folder)) == len(images)


@pytest.mark.parametrize(("damage", "said"), [
    (lambda whole: whole[:-1], "is damaged"),
    (lambda whole: b"", "is damaged"),
    (lambda whole: b"rubbish" * 100, "is damaged"),
    (lambda whole: whole.replace(b"(24, 3, 8, 8)", b"(8, 3, 8, 24)"), r"uint8 of shape \(8, 3, 8, 24\)"),
], ids=["cut", "empty", "rubbish", "another shape"])
def test_a_damaged_file_of_pixels_is_not_taken(folder, damage, said):
    celeba("train", 8, folder)
    cache = folder / "celeba8.npy"
    cache.write_bytes(damage(cache.read_bytes()))
    refused(folder, f"{said}.*[Dd]elete it")
    cache.unlink()
    assert len(celeba("train", 8, folder)) == SPLITS["train"]


def test_an_archive_that_is_not_there(folder):
    (folder / ZIP).unlink()
    said = refused(folder, "downloaded by hand")
    assert all(word in said for word in ("CUHK's Multimedia Laboratory", ZIP, str(folder), "S2DM_DATA"))


@pytest.mark.parametrize("damage", [
    lambda whole: whole[:-10], lambda whole: whole + b"x", lambda whole: b"", lambda whole: b"<html>Google Drive - Quota exceeded</html>",
    lambda whole: whole[:60_000] + bytes(b ^ 1 for b in whole[60_000:60_001]) + whole[60_001:],
], ids=["cut", "longer", "empty", "web page", "a bit"])
def test_another_archive_is_never_opened(folder, damage, monkeypatch):
    (folder / ZIP).write_bytes(damage((folder / ZIP).read_bytes()))
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("it was opened"))
    refused(folder, f"its MD5 is [0-9a-f]{{32}}, not {reader.ARCHIVE_MD5}.*Download it again")


def test_no_room_on_the_disk(folder, monkeypatch):
    class Full(io.BytesIO):
        def write(self, content):
            raise OSError(28, "No space left on device")

    real = open
    with monkeypatch.context() as patched:
        patched.setattr(reader, "open", lambda path, mode: Full() if mode == "wb" else real(path, mode), raising=False)
        refused(folder, r"cannot be written \(No space left on device\).* GB")
    assert len(celeba("train", 8, folder)) == SPLITS["train"]


@pytest.mark.parametrize("stop", [1, 10, N])
def test_stopped_it_leaves_nothing_and_starts_again(folder, monkeypatch, stop):
    real, count = reader.Image.open, iter(range(1, N + 1))

    def stopping(file):
        if next(count) == stop:
            raise KeyboardInterrupt
        return real(file)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(reader.Image, "open", stopping)
        celeba("train", 8, folder)
    assert left(folder) == {ZIP}
    (folder / "celeba8.npy.new.part").write_bytes(b"of a process that was killed")
    assert np.abs(celeba("test", 8, folder).pixels.numpy() - np.stack([by_hand(i, 8) for i in range(18, N)])).max() <= 1.01
    assert left(folder) == {ZIP, "celeba8.npy"}


def test_of_two_at_once_one_waits(folder, monkeypatch):
    real, inside, found, calls = reader.Image.open, threading.Event(), [], []

    def slow(file):
        calls.append(threading.get_ident())
        inside.set()
        return real(file)

    monkeypatch.setattr(reader.Image, "open", slow)
    threads = [threading.Thread(target=lambda: found.append(celeba("train", 8, folder))) for _ in range(2)]
    threads[0].start()
    inside.wait()
    threads[1].start()
    for thread in threads:
        thread.join()
    assert len(calls) == N and len(set(calls)) == 1
    assert len(found) == 2 and found[0].pixels.equal(found[1].pixels)


# ------------------------------------------------------------------------------------------- from archive to table

def command(*arguments):
    """A command line in this process; what it would have said on its way out, or None."""
    before, sys.argv = sys.argv, ["s2dm_mini", *map(str, arguments)]
    try:
        main()
    except SystemExit as error:
        return error.code
    finally:
        sys.argv = before


def test_fetching_says_what_to_download(folder, capsys):
    said = command("fetch", "celeba", "--folder", folder / "empty")
    assert "downloaded by hand" in said and ZIP in said and str(folder / "empty") in said
    assert command("fetch", "celeba", "--folder", folder) is None
    assert f"CelebA is in {folder}, {SPLITS['train']} training images" in capsys.readouterr().out


class MeanColours:
    """Features of a stand-in: the mean colour of each quarter of a picture, (N, 12)."""

    name, hash, width = "inception", "0" * 16, 12

    def __call__(self, pixels):
        assert pixels.shape[1:] == (3, 64, 64)
        return torch.nn.functional.avg_pool2d(pixels.float(), 32).flatten(1)


@pytest.mark.filterwarnings("error:.*not writable")
def test_training_and_evaluating_the_paper_way(folder, monkeypatch):
    tiny = UNetConfig(image_size=64, channels=(8, 8, 8), blocks_per_level=1, attention_levels=(), norm_groups=4, dropout=0.1)
    monkeypatch.setitem(PRESETS, "paper64", tiny)
    monkeypatch.setenv("S2DM_DATA", str(folder))
    out = folder / "run"
    paper = ["train-paper", "--data", "celeba", "--preset", "paper64", "--batch", 4, "--log-every", 1, "--device", "cpu", "--out", out]
    assert command(*paper, "--steps", 2) is None
    assert command(*paper, "--steps", 3, "--resume") is None
    network, record = load_model(out / "model.safetensors")
    assert network.config == replace(tiny, dropout=network.config.dropout) and record["steps"] == 3
    assert (record["data"], record["data_images"]) == ("celeba64-train", SPLITS["train"])
    assert record["data_sha256"] == data.fingerprint(celeba("train", 64, folder))

    file, table = str(out / "model.safetensors"), folder / "table.csv"
    said = command("evaluate", file, "--features", "own", "--device", "cpu", "--table", table)
    assert "features = pixels, spectrum or inception" in said, "the classifier knows no faces"
    monkeypatch.setattr(evaluate, "open_features", lambda name, device: MeanColours())
    row, = evaluate.evaluate(file, "tab-deis-3", steps=2, spacing="uniform", samples=6, features=("inception",), device="cpu", table=table)
    real = MeanColours()(celeba("train", 64, folder).pixels)
    drawn = torch.cat(list(draw(network, 6, (3, 64, 64), NoiseSchedule.linear(), "tab-deis-3", 2, "uniform")))
    assert row["fd"] == pytest.approx(frechet_distance(real, MeanColours()(drawn)), rel=1e-4)
    assert row["data"] == "celeba64-train" and row["preset"] == "paper64" and table.exists()
    assert len(list((folder / "references").iterdir())) == 1


def test_a_preset_of_another_size_is_refused_before_anything_is_read(folder, monkeypatch):
    monkeypatch.setenv("S2DM_DATA", str(folder))
    said = command("train-paper", "--data", "celeba")  # whose preset is the one for CIFAR-10
    assert "CelebA is 64×64, but this network takes 32×32 images; use a preset for 64×64" in said and left(folder) == {ZIP}
