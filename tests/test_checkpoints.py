"""Checkpoints: what is written comes back, and what is broken is refused with a sentence."""
import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file
from shipping import add_to_zoo

from s2dm_mini import checkpoints
from s2dm_mini.checkpoints import CheckpointError, load_model, load_pretrained, read_tensors, save_model, write_tensors
from s2dm_mini.support import files
from s2dm_mini.unet import UNet, UNetConfig

CONFIG = UNetConfig(image_size=8, channels=(8, 16), blocks_per_level=1, attention_levels=(1,), norm_groups=4, dropout=0.0)
RECORD = {"data": "shapes8", "loss": 0.1 + 0.2, "images_seen": 12_800, "note": "ε, ᾱ"}


def some_model(seed=0):
    model = UNet(CONFIG)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


@pytest.fixture
def saved(tmp_path):
    save_model(tmp_path / "m.safetensors", some_model(), RECORD)
    return tmp_path / "m.safetensors"


# ------------------------------------------------------------------------------------------------- round trips

def test_a_model_comes_back_rounded_to_fp16(saved):
    model, record = load_model(saved)
    assert record == RECORD and model.config == CONFIG
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    for (name, ours), wanted in zip(model.state_dict().items(), some_model().state_dict().values(), strict=True):
        assert ours.dtype == torch.float32 and ours.equal(wanted.half().float()), name
    x, t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 800])
    torch.testing.assert_close(model(x, t), some_model().eval()(x, t), atol=2e-2, rtol=2e-2)
    assert saved.stat().st_size < 2.2 * sum(p.numel() for p in model.parameters()) + 20_000  # two bytes a number, and the header


class Wrapper(torch.nn.Module):
    """As DistributedDataParallel holds its network."""

    def __init__(self, module):
        super().__init__()
        self.module = module


@pytest.mark.parametrize("wrap", [Wrapper, torch.compile, lambda model: Wrapper(torch.compile(model))], ids=["DDP", "compile", "both"])
def test_wrappers_are_taken_off(saved, tmp_path, wrap):
    save_model(tmp_path / "wrapped.safetensors", wrap(some_model()), RECORD)
    assert (tmp_path / "wrapped.safetensors").read_bytes() == saved.read_bytes()
    assert checkpoints.network_hash(wrap(some_model())) == checkpoints.network_hash(some_model())


def test_another_network_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="a checkpoint holds a UNet or a DiffusersDenoiser, not a Linear"):
        save_model(tmp_path / "m.safetensors", torch.nn.Linear(2, 2), RECORD)
    assert not list(tmp_path.iterdir())


def test_full_precision_comes_back_to_the_bit(tmp_path):
    save_model(tmp_path / "m.safetensors", some_model(), RECORD, torch.float32)
    model, _ = load_model(tmp_path / "m.safetensors")
    assert all(a.equal(b) for a, b in zip(model.state_dict().values(), some_model().state_dict().values(), strict=True))


def test_tensors_of_any_kind_come_back(tmp_path):
    tensors = {"a": torch.randn(3, 4).t(), "b": torch.tensor(7.0), "c": torch.arange(5), "d": torch.zeros(0, 2),
               "e": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last), "f": torch.randn(3, requires_grad=True)}
    header = {"numbers": [1.0 / 3, 1e-300, None, True], "text": "ᾱ"}
    write_tensors(tmp_path / "new" / "folder" / "t.safetensors", tensors, header)
    back, header_back = read_tensors(tmp_path / "new" / "folder" / "t.safetensors")
    assert header_back == header and set(back) == set(tensors)
    assert all(back[name].equal(tensors[name]) and back[name].dtype == tensors[name].dtype for name in tensors)


def test_loading_draws_nothing(saved):
    state = torch.get_rng_state()
    load_model(saved)
    assert torch.get_rng_state().equal(state)


# ------------------------------------------------------------------------------------------------- broken files

def with_header(content, change):
    """The same tensors under a changed safetensors header."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + length])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length:]


def entry(header, change):
    ours = json.loads(header["__metadata__"]["s2dm_mini"])
    change(ours)
    header["__metadata__"]["s2dm_mini"] = json.dumps(ours)


@pytest.mark.parametrize("damage", [
    lambda whole: b"",
    lambda whole: whole[:5],
    lambda whole: whole[:200],
    lambda whole: whole[:-1],
    lambda whole: whole + b"\0",
    lambda whole: b"<html>404</html>" * 100,
    lambda whole: b"\x80\x04\x95" + bytes(500),  # a pickle's start
    lambda whole: (2**60).to_bytes(8, "little") + whole[8:],  # a header longer than any file
    lambda whole: (10**9).to_bytes(8, "little") + b"{" + whole[8:],
    lambda whole: whole[:8] + b"[" * 200 + whole[208:],
    lambda whole: with_header(whole, lambda h: h["conv_in.bias"].update(data_offsets=[0, 10**12])),
    lambda whole: with_header(whole, lambda h: h["conv_in.bias"].update(dtype="F99")),
    lambda whole: with_header(whole, lambda h: h["__metadata__"].update(s2dm_mini="{not JSON")),
    lambda whole: with_header(whole, lambda h: h["__metadata__"].update(s2dm_mini="[" * 200_000)),
], ids=["empty", "5 bytes", "start only", "a byte short", "a byte long", "web page", "pickle", "huge header", "large header", "no JSON",
        "offsets", "dtype", "our entry no JSON", "our entry too deep"])
def test_damaged_files(saved, damage):
    saved.write_bytes(damage(saved.read_bytes()))
    for read in (load_model, read_tensors):
        with pytest.raises(CheckpointError, match=r"m\.safetensors is damaged or not a safetensors file"):
            read(saved)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_foreign_files(tmp_path, metadata):
    save_file({"a": torch.zeros(2)}, tmp_path / "m.safetensors", metadata)
    with pytest.raises(CheckpointError, match="not one of this package"):
        load_model(tmp_path / "m.safetensors")


@pytest.mark.parametrize(("change", "said"), [
    (lambda h: h.pop("unet"), "KeyError, 'unet'"),
    (lambda h: h["unet"].update(channels=[16, 16]), "size mismatch"),
    (lambda h: h["unet"].update(channels=[8, 16, 16], image_size=8), "Missing key"),
    (lambda h: h["unet"].update(attention_levels=[]), "Unexpected key"),
    (lambda h: h["unet"].update(channels=[2**40, 2**40]), "1 to 8 widths"),  # not: out of memory
    (lambda h: h["unet"].update(norm_groups=0), "norm_groups"),
    (lambda h: h["unet"].update(norm_groups="4"), "must be of the type int"),
    (lambda h: h["unet"].update(channels=7), "must be of the type tuple"),
    (lambda h: h["unet"].update(colour="red"), "colour"),
    (lambda h: h.update(unet="nano"), "TypeError"),
])
def test_headers_that_do_not_fit_the_tensors(saved, change, said):
    saved.write_bytes(with_header(saved.read_bytes(), lambda h: entry(h, change)))
    with pytest.raises(CheckpointError, match=rf"m\.safetensors does not hold a network of this package: .*({said})") as caught:
        load_model(saved)
    assert "\n" not in str(caught.value)


def test_tensors_that_are_no_network(tmp_path):
    write_tensors(tmp_path / "m.safetensors", {"a": torch.zeros(2)}, {"unet": CONFIG.to_dict(), "record": {}})
    with pytest.raises(CheckpointError, match="Missing key"):
        load_model(tmp_path / "m.safetensors")
    write_tensors(tmp_path / "m.safetensors", {}, ["a list"])
    with pytest.raises(CheckpointError, match="not one of this package"):
        load_model(tmp_path / "m.safetensors")


def test_the_state_of_a_training_names_the_network_beside_it(tmp_path):
    write_tensors(tmp_path / "state.safetensors", {"model.a": torch.zeros(2)}, {"unet": CONFIG.to_dict(), "record": {}})
    with pytest.raises(CheckpointError, match=r"is the state of a training: name its network, model\.safetensors"):
        load_model(tmp_path / "state.safetensors")


def test_missing_and_oversized_files(saved, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match=r"gone\.safetensors cannot be read: No such file"):
        load_model(tmp_path / "gone.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(tmp_path)
    monkeypatch.setattr(checkpoints, "MAX_BYTES", 1_000)
    with pytest.raises(CheckpointError, match=rf"{saved.stat().st_size:,} bytes, more than .*1,000"):
        load_model(saved)


# ------------------------------------------------------------------------------------------ whole or not at all

@pytest.mark.parametrize("failing", ["fsync", "write", "replace"])
def test_a_failed_write_keeps_the_old_file(saved, monkeypatch, failing):
    before = saved.read_bytes()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    if failing == "fsync":
        monkeypatch.setattr(files.os, "fsync", fail)
    elif failing == "replace":
        monkeypatch.setattr(files.Path, "replace", fail)
    else:  # half of the content gets through
        class Half:
            def __init__(self, file):
                self.file = file

            def __enter__(self):
                return self

            def __exit__(self, *exc):
                self.file.close()

            def write(self, content):
                self.file.write(content[:len(content) // 2])
                fail()

        monkeypatch.setattr(files, "open", lambda *arguments: Half(open(*arguments)), raising=False)  # noqa: SIM115
    with pytest.raises(OSError, match="No space left"):
        save_model(saved, some_model(seed=1), {})
    monkeypatch.undo()
    assert saved.read_bytes() == before and [p.name for p in saved.parent.iterdir()] == ["m.safetensors"]
    save_model(saved, some_model(seed=1), {})
    assert load_model(saved)[0].conv_in.weight.equal(some_model(seed=1).conv_in.weight.half().float())


# ----------------------------------------------------------------------------------------------------- the zoo

def test_an_empty_zoo(zoo):
    assert checkpoints.zoo() == {}
    with pytest.raises(CheckpointError, match=r"'nano'\. Known: none"):
        load_pretrained("nano")


def test_the_zoo_gives_back_what_was_entered(zoo, saved):
    for name in ("nano-l0", "nano-s2dm10"):
        add_to_zoo(saved, name)
    assert {p.name for p in zoo.iterdir() if p.suffix != ".lock"} == {"manifest.json", "nano-l0.safetensors", "nano-s2dm10.safetensors"}
    row = checkpoints.zoo()["nano-l0"]
    assert row["sha256"] == hashlib.sha256((zoo / row["file"]).read_bytes()).hexdigest()
    assert row["record"] == RECORD and row["parameters"] == sum(p.numel() for p in some_model().parameters())
    assert UNetConfig(**row["unet"]) == CONFIG
    model = load_pretrained("nano-l0")
    assert all(a.equal(b) for a, b in zip(model.state_dict().values(), load_model(saved)[0].state_dict().values(), strict=True))


def test_unknown_names_list_the_known_ones(zoo, saved):
    for name in ("nano-l0", "compact-l0"):
        add_to_zoo(saved, name)
    with pytest.raises(CheckpointError, match=r"'nano_lo'\. Did you mean 'nano-l0'\? Known: compact-l0, nano-l0\."):
        load_pretrained("nano_lo")
    with pytest.raises(CheckpointError, match=r"'xyz'\. Known: compact-l0, nano-l0\."):
        load_pretrained("xyz")


def test_the_folder_of_a_training_is_named_as_one(zoo, tmp_path, saved):
    add_to_zoo(saved, "nano-l0")
    (tmp_path / "run").mkdir()
    saved.rename(tmp_path / "run" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"It is the folder of a training, whose network is .*/run/model\.safetensors\."):
        checkpoints.open_network(str(tmp_path / "run"))


def test_another_file_than_was_shipped(zoo, saved):
    file = add_to_zoo(saved, "nano-l0")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # one bit, and still a sound safetensors file
    load_model(file)
    with pytest.raises(CheckpointError, match=r"nano-l0\.safetensors is not the file that was shipped: its SHA-256 is \w{12}…"):
        load_pretrained("nano-l0")
    file.unlink()
    with pytest.raises(CheckpointError, match=r"nano-l0\.safetensors cannot be read"):
        load_pretrained("nano-l0")


def test_shipped_networks_are_what_the_manifest_says():
    """Every row of the real manifest, as far as there is one."""
    for name, row in checkpoints.zoo().items():
        model = load_pretrained(name)
        assert model.config == UNetConfig(**row["unet"])
        assert sum(p.numel() for p in model.parameters()) == row["parameters"]
        assert all(p.isfinite().all() for p in model.parameters())
