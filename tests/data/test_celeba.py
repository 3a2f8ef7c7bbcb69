"""CelebA from an archive in the official layout, drawn here: whole, broken, hostile, half read, and through to a trained network."""
import io
import os
import signal
import stat
import struct
import sys
import threading
import tracemalloc
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

N = 24
SPLIT = [0, 0, 2, 1, 0, 2] * (N // 6)  # in the official list each split is in one piece; nothing may rest on that
NAMES = [f"{i + 1:06}.jpg" for i in range(N)]
ZIP, LIST = "img_align_celeba.zip", "list_eval_partition.txt"


def jpeg(i, size=(178, 218), mode="RGB", kind="JPEG"):
    """Photograph i: rough noise under fine noise, so that neither a shift nor another scaling goes unseen."""
    random = np.random.default_rng(i)
    rough = np.asarray(Image.fromarray(random.integers(0, 256, (14, 11, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC))
    fine = np.clip(rough + random.normal(0, 20, rough.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(fine).convert(mode).save(file, kind, quality=85)
    return file.getvalue()


PHOTOGRAPHS = [jpeg(i) for i in range(N)]


def good_members():
    return [(f"img_align_celeba/{name}", photograph) for name, photograph in zip(NAMES, PHOTOGRAPHS, strict=True)]


def write(folder, members=None, lines=None, packed=zipfile.ZIP_DEFLATED):
    """The archive and the list; members: (name or ZipInfo, content)."""
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(folder / ZIP, "w", packed) as archive:  # it warns of equal names
        for name, content in [("img_align_celeba/", b""), *(good_members() if members is None else members)]:
            archive.writestr(name, content)
    lines = [f"{name} {split}" for name, split in zip(NAMES, SPLIT, strict=True)] if lines is None else lines
    (folder / LIST).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def left(folder):
    """What there is in the folder, hidden files (locks) aside."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    monkeypatch.setattr(reader, "BLOCK", 5)
    monkeypatch.delenv("S2DM_DATA", raising=False)


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path)


@pytest.fixture
def decoded(monkeypatch):
    """The names of the photographs that are decoded from now on."""
    names, real = [], reader._pixels

    def watched(archive, member, size):
        names.append(member.filename.removeprefix("img_align_celeba/"))
        return real(archive, member, size)

    monkeypatch.setattr(reader, "_pixels", watched)
    return names


def by_hand(i, size):
    """The crop of the DDIM code, rows 57 to 184 and columns 25 to 152, each axis under a triangle as wide as two new pixels."""
    whole = np.asarray(Image.open(io.BytesIO(PHOTOGRAPHS[i]))).astype(float)[57:185, 25:153]  # (128, 128, 3)
    ratio = 128 / size
    new, old = (np.arange(size)[:, None] + 0.5) * ratio, np.arange(128)[None] + 0.5
    weight = np.clip(1 - np.abs(new - old) / ratio, 0, None)  # (size, 128)
    weight /= weight.sum(1, keepdims=True)
    return weight @ whole.transpose(2, 0, 1) @ weight.T  # (3, size, size)


# ------------------------------------------------------------------------------------------------- what is read

@pytest.mark.parametrize("size", [64, 32, 128, 40])
def test_each_split_is_cropped_scaled_and_in_order(folder, size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of tensors on memory that may not be written
        found = {split: celeba(split, size, folder) for split in ("train", "valid", "test")}
    for which, (split, images) in enumerate(found.items()):
        wanted = np.stack([by_hand(i, size) for i in range(N) if SPLIT[i] == which])
        assert images.pixels.shape == wanted.shape and images.pixels.dtype == torch.uint8
        assert np.abs(images.pixels.numpy() - wanted).max() <= 1.01  # Pillow rounds twice, once an axis
        assert images.name == f"celeba{size}-{split}" and len(images) == SPLIT.count(which)
        assert images.labels.tolist() == [0] * len(images) and images.labels.dtype == torch.int64 and images.classes == ("face",)
    assert len({data.fingerprint(images) for images in found.values()}) == 3


def test_what_the_official_list_and_archives_look_like_is_taken(tmp_path, monkeypatch):
    """Each split in one piece; line ends of Windows; stored members; the folder found by S2DM_DATA."""
    split = sorted(SPLIT)
    write(tmp_path, lines=[f"{name} {s}\r" for name, s in zip(NAMES, split, strict=True)], packed=zipfile.ZIP_STORED)
    monkeypatch.setenv("S2DM_DATA", str(tmp_path))
    parts = [celeba(name, 16).pixels for name in ("train", "valid", "test")]
    assert [len(part) for part in parts] == [split.count(s) for s in range(3)]
    assert np.abs(torch.cat(parts).numpy() - np.stack([by_hand(i, 16) for i in range(N)])).max() <= 1.01


def test_an_empty_split_is_empty(tmp_path):
    write(tmp_path, good_members()[:3], [f"{name} 1" for name in NAMES[:3]])
    assert [len(celeba(split, 8, tmp_path)) for split in ("train", "valid", "test")] == [0, 3, 0]


@pytest.mark.parametrize("size", [7, 129])
def test_sizes_and_splits_out_of_range(folder, size):
    with pytest.raises(ValueError, match=rf"size must be an integer in 8\.\.128.*not {size}"):
        celeba(size=size, folder=folder)
    with pytest.raises(ValueError, match="train, valid, test, not 'all'"):
        celeba("all", folder=folder)


# -------------------------------------------------------------------------------------------- the file of pixels

def test_photographs_are_decoded_once(folder, decoded):
    first = celeba("train", 8, folder)
    assert len(decoded) == N
    again = celeba("test", 8, folder)
    assert len(decoded) == N and len(again) == SPLIT.count(2)
    assert len(left(folder)) == 3  # archive, list, pixels: no part
    assert celeba("train", 16, folder).pixels.shape[-1] == 16 and len(decoded) == 2 * N  # another size, another file
    assert celeba("train", 8, folder).pixels.equal(first.pixels)


def test_pixels_are_mapped_and_the_file_stays_as_it_is(folder):
    images = celeba("train", 8, folder)
    (cache,) = folder.glob("*.npy")
    before = cache.read_bytes()
    if Path("/proc/self/maps").exists():
        assert cache.name in Path("/proc/self/maps").read_text(encoding="utf-8")
    images.pixels.add_(1)
    assert cache.read_bytes() == before and not celeba("train", 8, folder).pixels.equal(images.pixels)
    cache.chmod(0o400)
    assert len(celeba("train", 8, folder)) == len(images)


def test_another_archive_has_another_file(folder, decoded):
    celeba("train", 8, folder)
    length = len(PHOTOGRAPHS[-1])
    another = next(photograph for photograph in map(jpeg, range(99, 199)) if len(photograph) <= length).ljust(length, b"\0")
    write(folder, [*good_members()[:-1], (f"img_align_celeba/{NAMES[-1]}", another)])  # of the same name and length
    other = celeba("test", 8, folder)
    assert len(decoded) == 2 * N and SPLIT[-1] == 2
    assert np.abs(other.pixels[:-1].numpy() - np.stack([by_hand(i, 8) for i in range(N) if SPLIT[i] == 2][:-1])).max() <= 1.01
    write(folder, lines=[f"{name} {2 - split}" for name, split in zip(NAMES, SPLIT, strict=True)])  # another list
    assert celeba("train", 8, folder).pixels.equal(celeba("train", 8, folder).pixels) and len(decoded) == 3 * N
    assert np.abs(celeba("train", 8, folder).pixels[0].numpy() - by_hand(SPLIT.index(2), 8)).max() <= 1.01


@pytest.mark.parametrize(("damage", "said"), [
    (lambda whole: whole[:-1], "is damaged"),
    (lambda whole: b"", "is damaged"),
    (lambda whole: b"rubbish" * 100, "is damaged"),
    (lambda whole: whole.replace(b"(24, 3, 8, 8)", b"(8, 3, 8, 24)"), r"uint8 of shape \(8, 3, 8, 24\)"),
], ids=["cut", "empty", "rubbish", "another shape"])
def test_a_damaged_file_of_pixels_is_not_taken(folder, damage, said):
    celeba("train", 8, folder)
    (cache,) = folder.glob("*.npy")
    cache.write_bytes(damage(cache.read_bytes()))
    with pytest.raises(DataError, match=f"{said}.*[Dd]elete it"):
        celeba("train", 8, folder)
    cache.unlink()
    assert len(celeba("train", 8, folder)) == SPLIT.count(0)


# ------------------------------------------------------------------------------------------------------- kills

def killed_at(line, folder):
    """Read the archive in another process that kills itself at the given line it executes of `_build`; False if it came through."""
    child = os.fork()
    if child == 0:
        left_to_live = line

        def trace(frame, event, argument):
            nonlocal left_to_live
            if frame.f_code is not reader._build.__code__:
                return None
            left_to_live -= event == "line"
            if left_to_live < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            with open(os.devnull, "w", encoding="utf-8") as sys.stderr:
                sys.settrace(trace)
                celeba("train", 8, folder)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def finished(folder):
    """Photographs of the left part in blocks before its last one, which may be incomplete; size 8."""
    parts = list(folder.glob("*.part"))
    return max(parts[0].stat().st_size - 128 - 1, 0) // (5 * 192) * 5 if parts else 0


def whole_and_right(folder):
    pixels = torch.cat([celeba(split, 8, folder).pixels for split in ("train", "valid", "test")])
    order = sorted(range(N), key=SPLIT.__getitem__)
    return np.abs(pixels.numpy() - np.stack([by_hand(i, 8) for i in order])).max() <= 1.01 and len(left(folder)) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_at_any_moment_it_goes_on(tmp_path, decoded):
    """Every third line of the making, from the first to the last; all blocks but the last one are not decoded again."""
    seen = set()
    for line in range(0, 1_000, 3):
        folder = tmp_path / str(line)
        folder.mkdir()
        write(folder) if line == 0 else [os.link(tmp_path / "0" / name, folder / name) for name in (ZIP, LIST)]
        if not killed_at(line, folder):
            break
        done = finished(folder) if not list(folder.glob("*.npy")) else N
        seen.add(done)
        decoded.clear()
        assert whole_and_right(folder), f"after a kill at line {line}"
        assert len(decoded) == N - done
    else:
        pytest.fail("the making has no end")
    assert seen >= {0, 5, 10, 15, 20} and line > 60


@pytest.mark.parametrize("change", [
    lambda part: part.write_bytes(part.read_bytes() + b"x" * 100),  # in the block that is written again
    lambda part: part.write_bytes(part.read_bytes()[:-1]),
    lambda part: part.write_bytes(part.read_bytes()[:-900] + bytes(900)),  # a file system may extend a file before it fills it
    lambda part: part.write_bytes(b""),
    lambda part: part.write_bytes(b"rubbish"),
    lambda part: part.unlink(),
], ids=["longer", "shorter", "zeros at the end", "empty", "rubbish", "no part"])
def test_an_incomplete_part(folder, monkeypatch, change):
    real, count = reader._pixels, iter(range(N))
    monkeypatch.setattr(reader, "_pixels", lambda *a: real(*a) if next(count) < 10 else (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        celeba("train", 8, folder)
    (part,) = folder.glob("*.part")
    assert part.stat().st_size == 128 + 10 * 192
    change(part)
    monkeypatch.setattr(reader, "_pixels", real)
    assert whole_and_right(folder)


def test_of_two_at_once_one_waits(folder, monkeypatch):
    real, inside, found = reader._pixels, threading.Event(), []
    calls = []

    def slow(*arguments):
        calls.append(threading.get_ident())
        inside.set()
        return real(*arguments)

    monkeypatch.setattr(reader, "_pixels", slow)
    threads = [threading.Thread(target=lambda: found.append(celeba("train", 8, folder))) for _ in range(2)]
    threads[0].start()
    inside.wait()
    threads[1].start()
    for thread in threads:
        thread.join()
    assert len(calls) == N and len(set(calls)) == 1
    assert len(found) == 2 and found[0].pixels.equal(found[1].pixels)


def test_no_room_on_the_disk(folder, monkeypatch, decoded):
    real, syncs = os.fsync, []

    def full(descriptor):
        syncs.append(descriptor)
        if len(syncs) == 2:  # after the second block
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(reader.os, "fsync", full)
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\).* GB; the finished part is kept"):
        celeba("train", 8, folder)
    assert len(decoded) == 10
    monkeypatch.setattr(reader.os, "fsync", real)
    assert len(celeba("train", 8, folder)) == SPLIT.count(0)
    assert len(decoded) == 10 + N - 5


# ---------------------------------------------------------------------------------------------------- refusals

def refused(folder, said, size=8):
    """One sentence or a few on one line, and nothing left behind."""
    before = left(folder)
    with pytest.raises(DataError, match=said) as caught:
        celeba("train", size, folder)
    assert "\n" not in str(caught.value) and left(folder) == before
    return str(caught.value)


@pytest.mark.parametrize("gone", [{ZIP}, {LIST}, {ZIP, LIST}])
def test_files_that_are_not_there(folder, gone):
    for name in gone:
        (folder / name).unlink()
    said = refused(folder, "downloaded by hand")
    assert all(word in said for word in ("CUHK's Multimedia Laboratory", ZIP, LIST, str(folder), "S2DM_DATA"))
    assert ("lacks " + " and ".join(name for name in (ZIP, LIST) if name in gone)) in said


@pytest.mark.parametrize(("damage", "said"), [
    (lambda whole: whole[:len(whole) // 2], "cannot be read as a zip file"),
    (lambda whole: whole[:-10], "cannot be read as a zip file"),
    (lambda whole: b"", "cannot be read as a zip file"),
    (lambda whole: b"<html>Google Drive - Quota exceeded</html>", "cannot be read as a zip file.*web page"),
    (lambda whole: whole[:60_000] + bytes(b ^ 0xFF for b in whole[60_000:60_040]) + whole[60_040:], r"00000\d\.jpg is damaged"),
    (lambda whole: whole.replace(b"PK\x03\x04", b"PK\x03\x05", 3), r"000001\.jpg is damaged"),
], ids=["half", "end cut", "empty", "web page", "some bits", "local headers"])
def test_damaged_archives(folder, damage, said):
    (folder / ZIP).write_bytes(damage((folder / ZIP).read_bytes()))
    assert "Download" in refused(folder, said)


def info(name, mode=stat.S_IFREG | 0o644, packed=zipfile.ZIP_STORED):
    member = zipfile.ZipInfo(name)
    member.external_attr, member.compress_type = mode << 16, packed
    return member


FIRST = f"img_align_celeba/{NAMES[0]}"


@pytest.mark.parametrize(("member", "said"), [
    (("img_align_celeba/000999.jpg", b"x"), r"'img_align_celeba/000999\.jpg', which list_eval_partition\.txt does not name"),
    (("img_align_celeba/../000001.jpg", b"x"), "does not name"),
    (("../img_align_celeba/000001.jpg", b"x"), "does not name"),
    (("/img_align_celeba/000001.jpg", b"x"), "does not name"),
    (("img_align_celeba/img_align_celeba/000001.jpg", b"x"), "does not name"),
    (("000001.jpg", b"x"), "does not name"),
    (("img_align_celeba/" + "a\n" * 1_000, b"x"), "does not name"),
    (("img_align_celeba/other/", b""), "does not name"),
    ((FIRST, b"x"), "twice"),
], ids=["one too many", "inner ..", "..", "absolute", "folder in folder", "no folder", "long name", "another folder", "twice"])
def test_members_that_do_not_belong(tmp_path, member, said):
    write(tmp_path, [*good_members(), member])
    assert "download both again" in refused(tmp_path, said)


@pytest.mark.parametrize(("member", "said"), [
    ((info(FIRST, stat.S_IFLNK | 0o777), b"/etc/passwd"), "as a link or a device"),
    ((info(FIRST, stat.S_IFCHR | 0o666), b""), "as a link or a device"),
    ((info(FIRST, packed=zipfile.ZIP_BZIP2), PHOTOGRAPHS[0]), "encrypted or packed in an unusual way"),
    ((FIRST, bytes(2_000_000)), "2,000,000 bytes; a photograph has at most 1,048,576"),
    ((FIRST, PHOTOGRAPHS[0][:-1_500]), r"000001\.jpg is damaged or no photograph of CelebA \(image file is truncated"),
    ((FIRST, b""), "cannot identify image file"),
    ((FIRST, b"<html>"), "cannot identify image file"),
    ((FIRST, jpeg(0, kind="PNG")), "cannot identify image file"),
    ((FIRST, jpeg(0, (218, 178))), r"RGB of 218×178 pixels, not RGB of 178×218"),
    ((FIRST, jpeg(0, (178, 219))), "RGB of 178×219"),
    ((FIRST, jpeg(0, mode="L")), "L of 178×218 pixels, not RGB"),
    ((FIRST, jpeg(0, mode="CMYK")), "CMYK of 178×218 pixels, not RGB"),
], ids=["link", "device", "bzip2", "large", "cut JPEG", "nothing", "web page", "PNG", "on its side", "a row more", "grey", "CMYK"])
def test_members_that_are_no_photographs(tmp_path, member, said):
    write(tmp_path, [member, *good_members()[1:]])
    refused(tmp_path, said)


def test_photographs_that_are_missing(tmp_path):
    write(tmp_path, good_members()[4:])
    refused(tmp_path, r"lacks 4 of the 24 photographs, 000001\.jpg first")


def of_size(photograph, width, height):
    """The same JPEG with another size in its header."""
    at = photograph.index(b"\xff\xc0") + 5
    return photograph[:at] + struct.pack(">HH", height, width) + photograph[at + 4:]


@pytest.mark.parametrize("side", [10_000, 65_500], ids=["Pillow would warn", "Pillow would refuse"])
def test_a_picture_of_a_forbidding_size_is_never_decoded(tmp_path, side, monkeypatch):
    monkeypatch.setattr(Image.Image, "crop", lambda *_: pytest.fail("decoded"))
    write(tmp_path, [(FIRST, of_size(PHOTOGRAPHS[0], side, side)), *good_members()[1:]])
    with warnings.catch_warnings(record=True, action="always") as warned:
        refused(tmp_path, "exceeds limit")
    assert not warned, "a sentence is enough"


def with_entry(folder, changes, name=FIRST):
    """Rewrite fields of a member's entry in the archive's table of contents: offset → bytes."""
    whole = bytearray((folder / ZIP).read_bytes())
    entry = whole.rindex(name.encode()) - 46
    assert whole[entry:entry + 4] == b"PK\x01\x02"
    for offset, value in changes.items():
        whole[entry + offset:entry + offset + len(value)] = value
    (folder / ZIP).write_bytes(whole)


def test_a_member_that_unpacks_to_more_than_it_says(tmp_path):
    write(tmp_path, [(FIRST, bytes(20_000_000)), *good_members()[1:]])
    with_entry(tmp_path, {24: struct.pack("<I", 1_000)})  # its size, unpacked
    tracemalloc.start()
    try:
        refused(tmp_path, r"000001\.jpg is damaged .*\(Bad CRC-32")
        assert tracemalloc.get_traced_memory()[1] < 3e6, "all of it was unpacked"
    finally:
        tracemalloc.stop()


def test_members_with_a_lying_entry(tmp_path):
    write(tmp_path)
    with_entry(tmp_path, {8: b"\1\0"})
    refused(tmp_path, "encrypted")
    write(tmp_path)
    with_entry(tmp_path, {20: struct.pack("<I", 2_000_000)})
    refused(tmp_path, "2,000,000 bytes")
    write(tmp_path)
    with_entry(tmp_path, {42: struct.pack("<I", 5)})  # where it begins
    refused(tmp_path, r"000001\.jpg is damaged")


@pytest.mark.parametrize(("lines", "said"), [
    ([], "is empty"),
    (["image_id,partition", *(f"{name},0" for name in NAMES)], "line 1, 'image_id,partition', is not like '000001.jpg 0'"),
    ([*(f"{name} 0" for name in NAMES[:7]), "000008.jpg 3"], "line 8, '000008.jpg 3', is not like"),
    (["../../x.jpg 0"], "line 1"),
    (["000001.jpg 0", "000001.jpg 1"], "line 2, '000001.jpg 1', names a photograph for the second time"),
    (["٠٠٠٠٠١.jpg 0"], "line 1"),
    (["x" * 100_000], "line 1"),
    ([f"{name} 0" for name in NAMES[:-1]], r"'img_align_celeba/000024\.jpg', which list_eval_partition\.txt does not name"),
    ([*(f"{name} 0" for name in NAMES), "000025.jpg 0"], r"lacks 1 of the 25 photographs, 000025\.jpg first"),
], ids=["empty", "Kaggle's", "split 3", "path", "twice", "other digits", "no lines", "one too few", "one too many"])
def test_lists_that_do_not_fit(tmp_path, lines, said):
    write(tmp_path, lines=lines)
    assert len(refused(tmp_path, said)) < 600


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


def test_fetching_says_what_to_download(tmp_path, capsys):
    said = command("fetch", "celeba", "--folder", tmp_path)
    assert "downloaded by hand" in said and ZIP in said and str(tmp_path) in said
    write(tmp_path)
    assert command("fetch", "celeba", "--folder", tmp_path) is None
    assert f"CelebA is in {tmp_path}, {SPLIT.count(0)} training images" in capsys.readouterr().out


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
    assert (record["data"], record["data_images"]) == ("celeba64-train", SPLIT.count(0))
    assert record["data_sha256"] == data.fingerprint(celeba("train", 64, folder))

    file, table = str(out / "model.safetensors"), folder / "table.csv"
    said = command("evaluate", file, "--features", "own", "--device", "cpu", "--table", table)
    assert "features = pixels, spectrum, inception" in said, "the classifier knows no faces"
    monkeypatch.setattr(evaluate, "open_features", lambda name, device: MeanColours())
    row, = evaluate.evaluate(file, "tab-deis-3", steps=2, spacing="uniform", samples=6, features=("inception",), device="cpu", table=table)
    real = MeanColours()(celeba("train", 64, folder).pixels)
    drawn = torch.cat(list(draw(network, 6, (3, 64, 64), NoiseSchedule.linear(), "tab-deis-3", 2, "uniform")))
    assert row["fd"] == pytest.approx(frechet_distance(real, MeanColours()(drawn)), rel=1e-4)
    assert row["data"] == "celeba64-train" and row["preset"] == "paper64" and table.exists()
    assert len(list((folder / "references").iterdir())) == 1


def test_a_preset_of_another_size_is_refused_before_anything_is_read(folder, monkeypatch, decoded):
    monkeypatch.setenv("S2DM_DATA", str(folder))
    said = command("train-paper", "--data", "celeba")  # whose preset is the one for CIFAR-10
    assert "CelebA is 64×64, but this network takes 32×32 images; use a preset for 64×64" in said and not decoded
