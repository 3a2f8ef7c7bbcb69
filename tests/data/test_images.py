"""The data sets: drawn scenes read back from their pixels, 2-D points, and CIFAR-10's files, whole and broken."""
import io
import math
import tarfile
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch

from s2dm_mini import cifar10, data, shapes
from s2dm_mini.data import DataError
from s2dm_mini.data import cifar10 as reader
from s2dm_mini.data.cifar10 import CIFAR10_MD5, CIFAR10_URL, fetch_cifar10
from s2dm_mini.data.points import RING_STD, points, ring_means
from s2dm_mini.data.shapes import SHAPES, draw_shapes
from s2dm_mini.support import files

RECORDS = 20  # images a CIFAR-10 file has in these tests
FILES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]

# ------------------------------------------------------------------------------------------------------ pixels


def test_scaling_is_exact_both_ways():
    pixels = torch.arange(256, dtype=torch.uint8)
    x = data.to_unit_range(pixels)
    np.testing.assert_allclose(x.numpy(), np.linspace(-1, 1, 256), atol=1e-7)
    assert data.to_pixels(x).equal(pixels)
    assert data.to_pixels(torch.tensor([-3.0, 0.003, 1.2])).tolist() == [0, 128, 255]


def test_random_flip_mirrors_about_half():
    x = torch.arange(400.0)[:, None, None, None] + torch.arange(3.0)[None, None, None, :] / 10  # (400, 1, 1, 3)
    flipped = data.random_flip(x, torch.Generator().manual_seed(0))
    mirrored = (flipped != x).any(3).flatten()
    assert flipped[mirrored].equal(x[mirrored].flip(3))
    assert 160 < mirrored.sum() < 240  # 4 standard deviations of 400 coin tosses
    assert data.random_flip(x, torch.Generator().manual_seed(0)).equal(flipped)


# ------------------------------------------------------------------------------------------------------ shapes

def test_shapes_are_a_function_of_the_seed():
    one, again, other = shapes(600, seed=3), shapes(600, seed=3), shapes(600, seed=4)
    assert one.pixels.shape == (600, 3, 32, 32) and one.pixels.dtype == torch.uint8
    assert one.pixels.equal(again.pixels) and not one.pixels.equal(other.pixels)
    assert one.labels.dtype == torch.int64 and one.labels.equal(one.factors["shape"].long()) and len(one) == 600
    assert data.fingerprint(one) == data.fingerprint(again) != data.fingerprint(other)
    state = torch.get_rng_state()
    shapes(10)
    assert torch.get_rng_state().equal(state)


def test_factors_lie_where_documented_and_fill_their_ranges():
    factors = shapes(5_000, size=8).factors
    ranges = {"hue": (0, 1), "radius": (0.3, 0.6), "x": (-0.35, 0.35), "y": (-0.35, 0.35), "background": (0.25, 0.75)}
    assert set(factors) == {"shape", *ranges}
    for name, (low, high) in ranges.items():
        values = factors[name]
        assert values.dtype == torch.float32 and values.min() >= low and values.max() <= high
        # Uniform: mean and spread of a range of that width, within 5 standard errors.
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=5 * (high - low) / math.sqrt(12 * 5_000))
        assert values.std().item() == pytest.approx((high - low) / math.sqrt(12), rel=0.05)
    assert torch.bincount(factors["shape"].long(), minlength=4).min() > 1_250 - 5 * 31
    correlation = torch.corrcoef(torch.stack(list(factors.values()))) - torch.eye(6)
    assert correlation.abs().max() < 5 / 5_000**0.5  # one says nothing about another


def test_factors_do_not_depend_on_the_size():
    small, large = shapes(50, size=8, seed=1), shapes(50, size=64, seed=1)
    assert all(small.factors[name].equal(large.factors[name]) for name in large.factors)
    assert small.pixels.shape == (50, 3, 8, 8)
    shrunk = torch.nn.functional.avg_pool2d(large.pixels.float(), 8)
    assert (shrunk - small.pixels.float()).abs().mean() < 3  # the same picture, of 255 greys


def centred_axis(size):
    return (torch.arange(size, dtype=torch.float64) + 0.5) / size * 2 - 1


def test_scenes_show_their_factors():
    """Read each scene's ground, colour and place from its pixels, and compare with what it was drawn from."""
    n, size = 400, 64
    scenes = shapes(n, size, seed=5)
    f, pixels, axis = scenes.factors, scenes.pixels.double() / 255, centred_axis(size)
    half_a_grey = 0.5 / 255 + 1e-6
    ground = pixels[:, :, 0, 0]  # no shape reaches the corner
    assert (ground - f["background"][:, None]).abs().max() <= half_a_grey

    # A little below its centre every shape shows its full colour.
    row, column = (((f[name].double() + shift + 1) / 2 * size).long() for name, shift in (("y", 0.05), ("x", 0.0)))
    seen = pixels[torch.arange(n), :, row, column]  # (n, 3)
    wave = [0.5 + 0.45 * torch.cos(2 * math.pi * f["hue"].double() - third * 2 * math.pi / 3) for third in range(3)]
    assert (seen - torch.stack(wave, 1)).abs().max() <= half_a_grey

    best = (seen - ground).abs().argmax(1)  # the channel in which the colour stands out most
    cover = (pixels - ground[:, :, None, None])[torch.arange(n), best] / (seen - ground)[torch.arange(n), best][:, None, None]
    x, y = ((cover * a).sum((1, 2)) / cover.sum((1, 2)) for a in (axis, axis[:, None]))
    assert (x - f["x"]).abs().max() < 0.01 and (y - f["y"]).abs().max() < 0.015  # centres of mass


@pytest.mark.parametrize("kind", range(4), ids=SHAPES)
def test_outlines(kind):
    """Each pixel's share of the shape against 8 × 8 points in it, which lie inside or not."""
    scenes = shapes(60, 32, seed=6)
    of = scenes.labels == kind
    assert of.sum() >= 5
    r, x, y = (scenes.factors[name][of].double()[:, None, None] for name in ("radius", "x", "y"))
    fine = centred_axis(8 * 32)
    dx, dy = (fine[None, None, :] - x) / r, (fine[None, :, None] - y) / r
    if kind == 0:
        inside = dx**2 + dy**2 < 1
    elif kind == 1:
        inside = (dx.abs() < 0.89) & (dy.abs() < 0.89)
    elif kind == 2:  # point up, on a base 0.64·r below the centre; equilateral, so 1.28·r high above it
        inside = (dy < 0.64) & (dx.abs() < (dy + 1.28) / math.sqrt(3))
    else:
        bars = [(a.abs() < 1.15) & (b.abs() < 0.34) for a, b in ((dx, dy), (dy, dx))]
        inside = bars[0] | bars[1]
    share = torch.nn.functional.avg_pool2d(inside.double(), 8)

    ground = scenes.factors["background"][of].double()
    best = torch.tensor([0, 1, 2])[None] / 3 - scenes.factors["hue"][of].double()[:, None]
    colour = 0.5 + 0.45 * torch.cos(2 * math.pi * best)  # (n, 3)
    wanted = share[:, None] * colour[..., None, None] + (1 - share[:, None]) * ground[:, None, None, None]
    difference = (wanted - scenes.pixels[of].double() / 255).abs()
    assert difference.mean() < 0.003 and difference.max() < 0.25  # corners and slanted edges are smoothed a little otherwise


def test_edges_of_shapes():
    assert shapes(0).pixels.shape == (0, 3, 32, 32) and len(shapes(0)) == 0
    assert shapes(1).pixels.shape == (1, 3, 32, 32)
    assert shapes(501).pixels[500].equal(draw_shapes({k: v[500:] for k, v in shapes(501).factors.items()})[0])
    for n, size, said in ((-1, 32, "n must be an integer of at least 0, not -1"), (5, 7, r"size must be an integer in 8\.\.2048, not 7"),
                          (10**9, 32, "would take|n = 1,000,000,000 scenes")):
        with pytest.raises(ValueError, match=said):
            shapes(n, size)


# ------------------------------------------------------------------------------------------------------ points

@pytest.mark.parametrize("name", ["ring", "moons"])
def test_points(name):
    x = points(name, 2_000, seed=1)
    assert x.shape == (2_000, 2) and x.dtype == torch.float32
    assert x.equal(points(name, 2_000, seed=1)) and not x.equal(points(name, 2_000, seed=2))
    assert (x.abs() < 1.5).all() and x.mean(0).abs().max() < 0.25
    assert points(name, 0).shape == (0, 2)


def test_ring_is_the_mixture_it_says():
    x, means = points("ring", 20_000).double(), ring_means()
    np.testing.assert_allclose(means.numpy(), [[math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)] for k in range(8)], atol=1e-12)
    distance, nearest = torch.cdist(x, means).min(1)
    assert torch.bincount(nearest, minlength=8).min() > 2_500 - 5 * 47
    assert distance.square().mean().item() == pytest.approx(2 * RING_STD**2, rel=0.03)


def test_unknown_points():
    with pytest.raises(ValueError, match="ring, moons, not 'rings'"):
        points("rings")


# --------------------------------------------------------------------------------------------- CIFAR-10's files

@pytest.fixture(autouse=True)
def short_files(monkeypatch):
    monkeypatch.setattr(reader, "RECORDS_PER_FILE", RECORDS)
    monkeypatch.delenv("S2DM_DATA", raising=False)


def content(i):
    """File i in the official layout: RECORDS times a label byte, then the red, green and blue planes, row by row."""
    random = np.random.default_rng(i)
    labels = random.integers(0, 10, RECORDS, dtype=np.uint8)
    images = random.integers(0, 256, (RECORDS, 3, 32, 32), dtype=np.uint8)
    return b"".join(bytes([label]) + image.tobytes() for label, image in zip(labels, images, strict=True)), labels, images


def write_files(folder):
    batches = folder / "cifar-10-batches-bin"
    batches.mkdir(parents=True)
    for i, name in enumerate(FILES):
        (batches / name).write_bytes(content(i)[0])
    return batches


def test_cifar10_reads_pixels_and_labels(tmp_path, monkeypatch):
    batches = write_files(tmp_path)
    train, test = cifar10("train", tmp_path), cifar10("test", str(tmp_path))
    assert train.pixels.shape == (5 * RECORDS, 3, 32, 32) and train.pixels.dtype == torch.uint8 and len(test) == RECORDS
    assert train.labels.dtype == torch.int64 and train.classes[9] == "truck"
    for i in range(6):
        _, labels, images = content(i)
        of = test if i == 5 else train
        part = slice(0, RECORDS) if i == 5 else slice(i * RECORDS, (i + 1) * RECORDS)
        assert (of.pixels[part].numpy() == images).all() and (of.labels[part].numpy() == labels).all()
    assert cifar10("train", batches).pixels.equal(train.pixels)  # the folder of the files themselves
    monkeypatch.setenv("S2DM_DATA", str(tmp_path))
    assert data.data_folder() == tmp_path and cifar10("train").pixels.equal(train.pixels)
    train.pixels.add_(1)  # its own memory, not the file's


def test_data_folder_without_a_name(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data.data_folder().name == "s2dm_mini"
    monkeypatch.setenv("S2DM_DATA", "~/pictures")
    assert data.data_folder() == Path.home() / "pictures"


def test_unknown_split(tmp_path):
    with pytest.raises(ValueError, match="train, test, not 'valid'"):
        cifar10("valid", tmp_path)


def test_missing_files(tmp_path):
    with pytest.raises(DataError, match=r"data_batch_1\.bin is missing.*fetch cifar10.*S2DM_DATA"):
        cifar10("train", tmp_path)
    batches = write_files(tmp_path)
    (batches / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_4\.bin is missing"):
        cifar10("train", tmp_path)
    assert len(cifar10("test", tmp_path)) == RECORDS  # the other split is whole


def test_the_folder_of_the_files_may_be_named_itself(tmp_path, monkeypatch):
    """For reading and for fetching alike: what is there is read, what lacks is put beside it."""
    batches = write_files(tmp_path)
    assert fetch_cifar10(batches) == batches  # whole: nothing is downloaded
    archive = tmp_path / "archive.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(batches, "cifar-10-batches-bin")
    (batches / "test_batch.bin").unlink()
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: str(archive))
    assert fetch_cifar10(batches) == batches and len(cifar10("test", batches)) == RECORDS
    assert not (batches / "cifar-10-batches-bin").exists()


@pytest.mark.parametrize("name", ["cifar-10-batches-py", "cifar-10-python.tar.gz"])
def test_the_python_version_is_named(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=rf"is missing\. {name}, CIFAR-10 for Python, holds pickles.*fetch cifar10"):
        cifar10("train", tmp_path)


@pytest.mark.parametrize(("change", "size"), [
    (lambda whole: whole[:-1], RECORDS * 3073 - 1),
    (lambda whole: whole + b"\0", RECORDS * 3073 + 1),
    (lambda whole: whole + whole, 2 * RECORDS * 3073),
    (lambda whole: b"", 0),
], ids=["truncated", "oversized", "twice", "empty"])
def test_files_of_another_size(tmp_path, change, size):
    batches = write_files(tmp_path)
    file = batches / "data_batch_3.bin"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(DataError, match=rf"data_batch_3\.bin has {size:,} bytes.* {RECORDS * 3073:,}"):
        cifar10("train", tmp_path)


def test_mislabelled_files(tmp_path):
    batches = write_files(tmp_path)
    whole = bytearray(content(1)[0])
    whole[7 * 3073] = 10
    whole[9 * 3073] = 12
    (batches / "data_batch_2.bin").write_bytes(whole)
    with pytest.raises(DataError, match=r"data_batch_2\.bin: image 7 has label 10"):
        cifar10("train", tmp_path)


# ---------------------------------------------------------------------------------------------------- archives

def plain(name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member, content


def good_members():
    prefix = "cifar-10-batches-bin/"
    return [plain(f"{prefix}readme.html", b"<html>"), *(plain(prefix + name, content(i)[0]) for i, name in enumerate(FILES))]


def archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return path


def everything_below(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir() and p.suffix != ".lock"}


# ----------------------------------------------------------------------------------------------------- fetching

def test_fetching_without_a_network(tmp_path, monkeypatch):
    def offline(*arguments, **options):
        raise ConnectionError("no route to host\nand a second line")

    monkeypatch.setattr(pooch, "retrieve", offline)
    with pytest.raises(DataError) as caught:
        fetch_cifar10(tmp_path)
    said = str(caught.value)
    assert "\n" not in said
    assert all(part in said for part in (CIFAR10_URL, CIFAR10_MD5, str(tmp_path), "S2DM_DATA", "ConnectionError"))
    assert everything_below(tmp_path) == set()


def test_fetching_checks_and_unpacks(tmp_path, monkeypatch):
    asked = []

    def retrieve(url, known_hash, fname, path, downloader):
        asked.append((url, known_hash))
        path.mkdir(exist_ok=True)
        return str(archive(Path(path) / fname, good_members()))

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    monkeypatch.setenv("S2DM_DATA", str(tmp_path))
    batches = fetch_cifar10()
    assert batches == tmp_path / "cifar-10-batches-bin" and len(cifar10("train")) == 5 * RECORDS
    assert asked == [("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "md5:c32a1d4ab5d03f1284b67883e8d87530")]
    assert fetch_cifar10() == batches and len(asked) == 1  # whole files are left alone
    (batches / "test_batch.bin").write_bytes(b"half")
    fetch_cifar10()
    assert len(asked) == 2 and (batches / "test_batch.bin").read_bytes() == content(5)[0]


def test_no_room_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: str(archive(tmp_path / "a.tar.gz", good_members())))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(files.WriteError, match=r"data_batch_1\.bin cannot be written \(No space left"):
        patched.setattr(files.os, "fsync", full)
        fetch_cifar10(tmp_path)
    assert everything_below(tmp_path) == {"a.tar.gz"}
    assert len(cifar10("train", fetch_cifar10(tmp_path))) == 5 * RECORDS


# -------------------------------------------------------------------------------------------- the real images

@pytest.mark.slow
def test_the_real_images(real_cifar10):
    train, test = real_cifar10["train"], real_cifar10["test"]
    assert (len(train), len(test)) == (50_000, 10_000)
    assert (torch.bincount(train.labels) == 5_000).all() and (torch.bincount(test.labels) == 1_000).all()
    mean = np.array([part.double().mean((0, 2, 3)).numpy() for part in train.pixels.split(5_000)]).mean(0) / 255
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=1e-4)  # the means everyone normalises by
